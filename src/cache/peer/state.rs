//! The state of a key, as it travels to a node that keeps a copy.

use super::bytes::{Damaged, Reader, put_bytes, put_number};
use super::command::{key, option, put_option};
use crate::cache::store::{Copy, Record, State};

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const STALE: u8 = 1 << 1;
const WON: u8 = 1 << 2;

pub fn encode(state: &State, out: &mut Vec<u8>) {
    match state {
        State::Absent(key) => {
            out.push(ABSENT);
            put_bytes(out, key);
        }
        State::Present(copy) => {
            let stale = if copy.is_stale { STALE } else { 0 };
            let won = if copy.has_winner { WON } else { 0 };
            out.push(PRESENT | stale | won);
            put_bytes(out, copy.record.key());
            put_number(out, u64::from(copy.flags));
            put_number(out, copy.cas);
            put_option(out, copy.left, put_number);
            put_bytes(out, copy.record.value());
        }
    }
}

pub fn decode(from: &mut Reader<'_>) -> Result<State, Damaged> {
    let bits = from.byte()?;
    let key = key(from)?;
    match bits {
        ABSENT => Ok(State::Absent(key.into())),
        bits if bits & PRESENT != 0 && bits < WON << 1 => Ok(State::Present(Copy {
            flags: from.small()?,
            cas: from.number()?,
            left: option(from, Reader::number)?,
            record: Record::new(key, from.bytes()?, b""),
            is_stale: bits & STALE != 0,
            has_winner: bits & WON != 0,
        })),
        _ => Err(Damaged),
    }
}
