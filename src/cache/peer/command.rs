//! A command on one key, as it travels to the key's owner. The value of a storage command is the last thing in it.

use super::bytes::{Damaged, Reader, put_bytes, put_number};
use crate::cache::command::{Arithmetic, Command, Delete, Get, Mode, Set, Terms};
use crate::cache::store::{Expiry, KEY_MAX, Record};

const GET: u8 = 1;
const SET: u8 = 2;
const DELETE: u8 = 3;
const ARITHMETIC: u8 = 4;
const TOUCH: u8 = 5;

/// Writes a command that has a key; of others nothing is written.
pub fn encode(command: &Command<'_>, out: &mut Vec<u8>) {
    match command {
        Command::Get(get) => {
            out.push(GET);
            put_bytes(out, get.key);
            out.push(u8::from(get.is_peek));
            put_option(out, get.touch, put_expiry);
            put_option(out, get.vivify, put_expiry);
            put_option(out, get.recache, put_number);
            put_option(out, get.new_cas, put_number);
        }
        Command::Set(set) => {
            out.push(SET);
            put_bytes(out, set.record.key());
            put_terms(out, &set.terms);
            put_bytes(out, set.record.value());
        }
        Command::Delete(delete) => {
            out.push(DELETE);
            put_bytes(out, delete.key);
            out.push(u8::from(delete.keep_item));
            put_option(out, delete.compare, put_number);
            put_option(out, delete.new_cas, put_number);
            put_option(out, delete.invalidate, |out, touch| put_option(out, touch, put_expiry));
        }
        Command::Arithmetic(sum) => {
            out.push(ARITHMETIC);
            put_bytes(out, sum.key);
            put_number(out, sum.delta);
            out.push(u8::from(sum.is_decrement));
            put_option(out, sum.compare, put_number);
            put_option(out, sum.new_cas, put_number);
            put_option(out, sum.initial, |out, (value, expiry)| {
                put_number(out, value);
                put_expiry(out, expiry);
            });
            put_option(out, sum.touch, put_expiry);
        }
        Command::Touch { key, expiry } => {
            out.push(TOUCH);
            put_bytes(out, key);
            put_expiry(out, *expiry);
        }
        _ => {}
    }
}

/// The same of a plain `get`: nothing but the key is said.
pub fn encode_plain_get(key: &[u8], out: &mut Vec<u8>) {
    out.push(GET);
    put_bytes(out, key);
    out.extend_from_slice(&[0; 5]);
}

pub fn decode<'a>(from: &mut Reader<'a>) -> Result<Command<'a>, Damaged> {
    let verb = from.byte()?;
    let key = key(from)?;
    Ok(match verb {
        GET => Command::Get(Get {
            key,
            is_peek: flag(from)?,
            touch: option(from, expiry)?,
            vivify: option(from, expiry)?,
            recache: option(from, Reader::number)?,
            new_cas: option(from, Reader::number)?,
        }),
        SET => {
            let terms = terms(from)?;
            let record = Record::new(key, from.bytes()?, b"");
            Command::Set(Set { terms, record })
        }
        DELETE => Command::Delete(Delete {
            key,
            keep_item: flag(from)?,
            compare: option(from, Reader::number)?,
            new_cas: option(from, Reader::number)?,
            invalidate: option(from, |from| option(from, expiry))?,
        }),
        ARITHMETIC => Command::Arithmetic(Arithmetic {
            key,
            delta: from.number()?,
            is_decrement: flag(from)?,
            compare: option(from, Reader::number)?,
            new_cas: option(from, Reader::number)?,
            initial: option(from, |from| Ok((from.number()?, expiry(from)?)))?,
            touch: option(from, expiry)?,
        }),
        TOUCH => Command::Touch {
            key,
            expiry: expiry(from)?,
        },
        _ => return Err(Damaged),
    })
}

/// A key that a record can hold.
pub fn key<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], Damaged> {
    let key = from.bytes()?;
    if key.len() > KEY_MAX { Err(Damaged) } else { Ok(key) }
}

pub fn flag(from: &mut Reader<'_>) -> Result<bool, Damaged> {
    match from.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Damaged),
    }
}

pub fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub fn option<'a, T>(
    from: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Damaged>,
) -> Result<Option<T>, Damaged> {
    match flag(from)? {
        true => read(from).map(Some),
        false => Ok(None),
    }
}

fn put_terms(out: &mut Vec<u8>, terms: &Terms) {
    out.push(match terms.mode {
        Mode::Set => 0,
        Mode::Add => 1,
        Mode::Replace => 2,
        Mode::Append => 3,
        Mode::Prepend => 4,
    });
    put_number(out, u64::from(terms.flags));
    put_expiry(out, terms.expiry);
    put_option(out, terms.compare, put_number);
    put_option(out, terms.new_cas, put_number);
    out.push(u8::from(terms.invalidate));
    put_option(out, terms.vivify, put_expiry);
}

fn terms(from: &mut Reader<'_>) -> Result<Terms, Damaged> {
    Ok(Terms {
        mode: match from.byte()? {
            0 => Mode::Set,
            1 => Mode::Add,
            2 => Mode::Replace,
            3 => Mode::Append,
            4 => Mode::Prepend,
            _ => return Err(Damaged),
        },
        flags: from.small()?,
        expiry: expiry(from)?,
        compare: option(from, Reader::number)?,
        new_cas: option(from, Reader::number)?,
        invalidate: flag(from)?,
        vivify: option(from, expiry)?,
    })
}

fn put_expiry(out: &mut Vec<u8>, expiry: Expiry) {
    match expiry {
        Expiry::Never => out.push(0),
        Expiry::Past => out.push(1),
        Expiry::In(left) => {
            out.push(2);
            put_number(out, left);
        }
    }
}

fn expiry(from: &mut Reader<'_>) -> Result<Expiry, Damaged> {
    match from.byte()? {
        0 => Ok(Expiry::Never),
        1 => Ok(Expiry::Past),
        2 => from.number().map(Expiry::In),
        _ => Err(Damaged),
    }
}
