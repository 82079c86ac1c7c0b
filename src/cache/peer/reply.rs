//! What a key's owner answers, as it travels back. A hit comes without its key, which the asking node knows.

use bytes::Bytes;

use super::bytes::{Damaged, Reader, put_bytes, put_number};
use super::command::{flag, option, put_option};
use crate::cache::command::{Hit, Number, Reply};
use crate::cache::seen::Seen;
use crate::cache::store::Record;

const HIT: u8 = 1;
const TOUCHED: u8 = 2;
const MISS: u8 = 3;
const STORED: u8 = 4;
const NOT_STORED: u8 = 5;
const EXISTS: u8 = 6;
const NOT_FOUND: u8 = 7;
const DELETED: u8 = 8;
const NUMBER: u8 = 9;
const NOT_NUMERIC: u8 = 10;
const TOO_LARGE: u8 = 11;
const UNAVAILABLE: u8 = 12;

/// All that stands beside a value: marks, and five numbers of ten bytes at most.
const BESIDE: usize = 64;

pub fn encoded(reply: &Reply) -> Vec<u8> {
    let room = match reply {
        Reply::Hit(hit) => BESIDE + hit.record.value().len(),
        _ => BESIDE,
    };
    let mut out = Vec::with_capacity(room);
    encode(reply, &mut out);
    out
}

/// The same of an item that is still in its place.
pub fn encoded_hit(hit: &Hit<&Record>) -> Vec<u8> {
    let value = hit.record.value();
    let mut out = Vec::with_capacity(BESIDE + value.len());
    out.push(HIT);
    put_hit(&mut out, hit, value);
    out
}

/// Writes what a command with a key may be answered.
pub fn encode(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Hit(hit) => {
            out.push(HIT);
            put_hit(out, hit, hit.record.value());
        }
        // Nobody is told the value of what he touched.
        Reply::Touched(hit) => {
            out.push(TOUCHED);
            put_hit(out, hit, b"");
        }
        Reply::Miss => out.push(MISS),
        Reply::Stored { cas, size } => {
            out.push(STORED);
            put_number(out, *cas);
            put_number(out, *size as u64);
        }
        Reply::NotStored => out.push(NOT_STORED),
        Reply::Exists => out.push(EXISTS),
        Reply::NotFound => out.push(NOT_FOUND),
        Reply::Deleted => out.push(DELETED),
        Reply::Number(number) => {
            out.push(NUMBER);
            put_number(out, number.value);
            put_number(out, number.cas);
            put_option(out, number.left, put_number);
        }
        Reply::NotNumeric => out.push(NOT_NUMERIC),
        Reply::TooLarge => out.push(TOO_LARGE),
        _ => out.push(UNAVAILABLE),
    }
}

/// `key`: what was asked for. `message`: of which `from` is the rest.
pub fn decode(from: &mut Reader<'_>, key: impl FnOnce() -> Bytes, message: &Bytes) -> Result<Reply, Damaged> {
    Ok(match from.byte()? {
        HIT => Reply::Hit(hit(from, key, message)?),
        TOUCHED => Reply::Touched(hit(from, key, message)?),
        MISS => Reply::Miss,
        STORED => Reply::Stored {
            cas: from.number()?,
            size: from.small()?,
        },
        NOT_STORED => Reply::NotStored,
        EXISTS => Reply::Exists,
        NOT_FOUND => Reply::NotFound,
        DELETED => Reply::Deleted,
        NUMBER => Reply::Number(Number {
            value: from.number()?,
            cas: from.number()?,
            left: option(from, Reader::number)?,
        }),
        NOT_NUMERIC => Reply::NotNumeric,
        TOO_LARGE => Reply::TooLarge,
        UNAVAILABLE => Reply::Unavailable,
        _ => return Err(Damaged),
    })
}

fn put_hit<R>(out: &mut Vec<u8>, hit: &Hit<R>, value: &[u8]) {
    put_number(out, u64::from(hit.flags));
    put_number(out, hit.cas);
    put_option(out, hit.left, put_number);
    put_number(out, u64::from(hit.idle));
    for mark in [hit.was_fetched, hit.is_stale, hit.is_winner, hit.had_winner] {
        out.push(u8::from(mark));
    }
    put_bytes(out, value);
}

fn hit(from: &mut Reader<'_>, key: impl FnOnce() -> Bytes, message: &Bytes) -> Result<Hit, Damaged> {
    Ok(Hit {
        flags: from.small()?,
        cas: from.number()?,
        left: option(from, Reader::number)?,
        idle: from.small()?,
        was_fetched: flag(from)?,
        is_stale: flag(from)?,
        is_winner: flag(from)?,
        had_winner: flag(from)?,
        record: Seen::Sent {
            value: message.slice_ref(from.bytes()?),
            key: key(),
        },
    })
}
