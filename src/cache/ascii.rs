//! The classic text protocol (protocol.txt of memcached): lines to requests, replies to lines. No I/O.
//! Error texts are memcached's, because clients match on them. Meta commands, which share the lines, are in `meta`.

use super::command::{Arithmetic, Command, Delete, Hit, Mode, Reply, Terms};
use super::meta;
use super::number::{self, Digits};
use super::output::Output;
use super::request::{Decoded, Form as AnyForm, Head, Many, Refusal, Request, Scratch, VERSION};
use super::store::{Expiry, KEY_MAX, Moment, SHARE_FROM};

/// A line that is not a `get` of many keys ends within so many bytes (memcached's limit).
const LINE_MAX: usize = 2048;
/// A `get` of many keys: 4000 keys of full length.
const MANY_MAX: usize = 1 << 20;
/// Largest value length that can be announced (protocol.txt: a signed 32-bit number, less the line end).
const LENGTH_MAX: u64 = i32::MAX as u64 - 2;

/// Of a hit all but key and value: words, and three numbers.
const BESIDE: usize = 80;
/// The line before a value.
const HEAD_MAX: usize = KEY_MAX + BESIDE;

pub const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
const BAD_EXPIRY: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const BAD_DELETE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";

/// How to answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// `noreply`: silence, on errors too.
    pub is_quiet: bool,
    /// `gets` and `gats` show the unique.
    pub with_cas: bool,
}

impl Form {
    const LOUD: AnyForm<'static> = AnyForm::Ascii(Form {
        is_quiet: false,
        with_cas: false,
    });

    fn quiet(is_quiet: bool) -> AnyForm<'static> {
        AnyForm::Ascii(Form {
            is_quiet,
            with_cas: false,
        })
    }
}

/// The words of a line: whatever stands between spaces.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(pub &'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| *byte != b' ')?;
        let rest = self.0.get(start..)?;
        let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

/// Decodes the first line of the input. `scratch` takes a key that was sent in base64.
pub fn decode<'a>(input: &'a [u8], moment: Moment, scratch: &'a mut Scratch) -> Decoded<'a> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return unfinished(input);
    };
    let line = input.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = Words(line);
    let command = words.next().unwrap_or_default();
    let request = match command {
        [b'm', verb] => meta::decode(*verb, words, moment, scratch),
        _ => classic(command, words, moment),
    };
    match request {
        Ok(request) => Decoded::Whole { size: end + 1, request },
        // A browser that was lured here by a page must not get to its body, which may be commands.
        Err(Refused::Unknown) if words.last().is_some_and(|last| last.starts_with(b"HTTP/")) => Decoded::Hopeless,
        Err(refused) => Decoded::Whole {
            size: end + 1,
            request: Request::Refusal(refused.into_refusal()),
        },
    }
}

/// Why a line is no request.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    Unknown,
    /// An error line, unless the client wants silence; then a value of so many bytes to drop.
    Error {
        text: &'static str,
        is_quiet: bool,
        skip: usize,
    },
}

impl Refused {
    pub const fn loud(text: &'static str) -> Self {
        Self::error(text, false)
    }

    const fn error(text: &'static str, is_quiet: bool) -> Self {
        Refused::Error {
            text,
            is_quiet,
            skip: 0,
        }
    }

    fn into_refusal<'a>(self) -> Refusal<'a> {
        let (reply, form, skip) = match self {
            Refused::Unknown => (Reply::Unknown, Form::LOUD, 0),
            Refused::Error { text, is_quiet, skip } => (Reply::Refused(text), Form::quiet(is_quiet), skip),
        };
        Refusal {
            reply,
            form,
            skip,
            is_last: false,
        }
    }
}

fn unfinished(input: &[u8]) -> Decoded<'_> {
    let line = input.trim_ascii_start();
    let is_many = line.starts_with(b"get ") || line.starts_with(b"gets ");
    let limit = if is_many { MANY_MAX } else { LINE_MAX };
    if input.len() > limit {
        Decoded::Hopeless
    } else {
        Decoded::Partial
    }
}

fn classic<'a>(command: &[u8], words: Words<'a>, moment: Moment) -> Result<Request<'a>, Refused> {
    match command {
        b"get" | b"bget" => many(words, None, false),
        b"gets" => many(words, None, true),
        b"gat" => many_touched(words, moment, false),
        b"gats" => many_touched(words, moment, true),
        b"set" => store(words, Mode::Set, false, moment),
        b"add" => store(words, Mode::Add, false, moment),
        b"replace" => store(words, Mode::Replace, false, moment),
        b"append" => store(words, Mode::Append, false, moment),
        b"prepend" => store(words, Mode::Prepend, false, moment),
        b"cas" => store(words, Mode::Set, true, moment),
        b"incr" => arithmetic(words, false),
        b"decr" => arithmetic(words, true),
        b"delete" => delete(words),
        b"touch" => touch(words, moment),
        b"flush_all" => flush(words, moment),
        b"verbosity" => verbosity(words),
        b"stats" => Ok(Request::One(Command::Stats(words.collect()), Form::LOUD)),
        b"version" => Ok(Request::One(Command::Version, Form::LOUD)),
        b"quit" => Ok(Request::One(Command::Quit, Form::LOUD)),
        b"shutdown" => Err(Refused::loud("ERROR: shutdown not enabled")),
        _ => Err(Refused::Unknown),
    }
}

fn many<'a>(keys: Words<'a>, touch: Option<Expiry>, with_cas: bool) -> Result<Request<'a>, Refused> {
    // All bytes at once, and most lines are too short for a key that is too long.
    let are_letters = keys
        .0
        .iter()
        .fold(true, |so_far, byte| so_far & (*byte >= b' ' && *byte != 0x7f));
    let are_short = || keys.clone().all(|key| key.len() <= KEY_MAX);
    if !are_letters || keys.0.len() > KEY_MAX && !are_short() {
        return Err(Refused::loud(BAD_FORMAT));
    }
    keys.clone().next().ok_or(Refused::Unknown)?;
    let form = Form {
        is_quiet: false,
        with_cas,
    };
    Ok(Request::Many(Many { keys, touch, form }))
}

fn many_touched<'a>(mut words: Words<'a>, moment: Moment, with_cas: bool) -> Result<Request<'a>, Refused> {
    let expiry = words.next().ok_or(Refused::Unknown)?;
    let expiry = number::parse_signed(expiry).ok_or(Refused::loud(BAD_EXPIRY))?;
    many(words, Some(Expiry::from_wire(expiry, moment)), with_cas)
}

/// The words of a command with a fixed number of arguments, and whether `noreply` follows them.
fn arguments<'a, const N: usize>(mut words: Words<'a>) -> Result<([&'a [u8]; N], bool), Refused> {
    let mut found = [&b""[..]; N];
    for argument in &mut found {
        *argument = words.next().ok_or(Refused::Unknown)?;
    }
    // Anything may stand in the place of `noreply`, as in memcached, but nothing after it. It silences the complaint
    // about a missing number too, in whose place it then stands.
    let last = words.next();
    match words.next() {
        Some(_) => Err(Refused::Unknown),
        None => Ok((found, last.or(found.last().copied()) == Some(b"noreply"))),
    }
}

fn store<'a>(words: Words<'a>, mode: Mode, has_cas: bool, moment: Moment) -> Result<Request<'a>, Refused> {
    let ([key, flags, expiry, length], compare, is_quiet) = if has_cas {
        let ([key, flags, expiry, length, cas], is_quiet) = arguments(words)?;
        ([key, flags, expiry, length], Some(cas), is_quiet)
    } else {
        let (fixed, is_quiet) = arguments(words)?;
        (fixed, None, is_quiet)
    };
    let bad = Refused::error(BAD_FORMAT, is_quiet);
    if !is_key(key) {
        return Err(bad);
    }
    let terms = Terms {
        mode,
        flags: number::parse_u32(flags).ok_or(bad)?,
        expiry: Expiry::from_wire(number::parse_signed(expiry).ok_or(bad)?, moment),
        compare: compare.map(|cas| number::parse(cas).ok_or(bad)).transpose()?,
        new_cas: None,
        invalidate: false,
        vivify: None,
    };
    Ok(Request::Store(Head {
        key,
        terms,
        length: length_of(length).ok_or(bad)?,
        form: Form::quiet(is_quiet),
    }))
}

/// The announced length of a value.
pub fn length_of(word: &[u8]) -> Option<usize> {
    let length = number::parse(word).filter(|length| *length <= LENGTH_MAX)?;
    usize::try_from(length).ok()
}

fn arithmetic(words: Words<'_>, is_decrement: bool) -> Result<Request<'_>, Refused> {
    let ([key, delta], is_quiet) = arguments(words)?;
    let error = |text| Refused::error(text, is_quiet);
    if !is_key(key) {
        return Err(error(BAD_FORMAT));
    }
    let sum = Arithmetic {
        key,
        delta: number::parse(delta).ok_or(error(BAD_DELTA))?,
        is_decrement,
        compare: None,
        new_cas: None,
        initial: None,
        touch: None,
    };
    Ok(Request::One(Command::Arithmetic(sum), Form::quiet(is_quiet)))
}

/// `delete <key> [0] [noreply]`: the 0 is a hold time of old clients.
fn delete(mut words: Words<'_>) -> Result<Request<'_>, Refused> {
    let key = words.next().ok_or(Refused::Unknown)?;
    let rest = [words.next(), words.next(), words.next()];
    let is_quiet = match rest {
        [None, _, _] | [Some(b"0"), None, _] => false,
        [Some(b"noreply"), None, _] | [Some(b"0"), Some(b"noreply"), None] => true,
        [_, _, Some(_)] => return Err(Refused::Unknown),
        [_, last, None] => {
            return Err(Refused::error(BAD_DELETE, last == Some(b"noreply")));
        }
    };
    if !is_key(key) {
        return Err(Refused::error(BAD_FORMAT, is_quiet));
    }
    let delete = Delete {
        key,
        compare: None,
        new_cas: None,
        invalidate: None,
        keep_item: false,
    };
    Ok(Request::One(Command::Delete(delete), Form::quiet(is_quiet)))
}

fn touch(words: Words<'_>, moment: Moment) -> Result<Request<'_>, Refused> {
    let ([key, expiry], is_quiet) = arguments(words)?;
    let error = |text| Refused::error(text, is_quiet);
    if !is_key(key) {
        return Err(error(BAD_FORMAT));
    }
    let expiry = number::parse_signed(expiry).ok_or(error(BAD_EXPIRY))?;
    let expiry = Expiry::from_wire(expiry, moment);
    Ok(Request::One(Command::Touch { key, expiry }, Form::quiet(is_quiet)))
}

fn flush(mut words: Words<'_>, moment: Moment) -> Result<Request<'_>, Refused> {
    let (first, second, third) = (words.next(), words.next(), words.next());
    if third.is_some() {
        return Err(Refused::Unknown);
    }
    let is_quiet = second.or(first) == Some(b"noreply");
    let delay = if second.is_none() && is_quiet { None } else { first };
    let bad = Refused::error(BAD_EXPIRY, is_quiet);
    let delay = delay.map_or(Some(0), number::parse_signed).ok_or(bad)?;
    let after = flush_delay(delay, moment);
    Ok(Request::One(Command::Flush { after }, Form::quiet(is_quiet)))
}

/// Milliseconds until a flush; `None`: now.
pub fn flush_delay(seconds: i64, moment: Moment) -> Option<u64> {
    match Expiry::from_wire(seconds, moment) {
        Expiry::In(after) => Some(after),
        Expiry::Never | Expiry::Past => None,
    }
}

fn verbosity(words: Words<'_>) -> Result<Request<'_>, Refused> {
    let ([level], is_quiet) = arguments(words)?;
    number::parse_u32(level).ok_or(Refused::error(BAD_FORMAT, is_quiet))?;
    Ok(Request::One(Command::Verbosity, Form::quiet(is_quiet)))
}

/// 1 to 250 bytes without spaces and control bytes (protocol.txt, "Keys").
pub fn is_key(key: &[u8]) -> bool {
    (1..=KEY_MAX).contains(&key.len()) && key.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// Writes a reply. A hit is one `VALUE` block; the `END` after the last is `encode_end`'s.
pub fn encode(form: &Form, reply: &Reply, out: &mut Output) {
    if form.is_quiet {
        return;
    }
    match reply {
        Reply::Hit(hit) => encode_hit(form, hit, out),
        Reply::Number(number) => {
            out.put_number(number.value);
            out.put(b"\r\n");
        }
        Reply::Version => {
            out.put(b"VERSION ");
            out.put(VERSION.as_bytes());
            out.put(b"\r\n");
        }
        Reply::Table(rows) => {
            for (name, value) in rows {
                for part in ["STAT ", name, " ", value, "\r\n"] {
                    out.put(part.as_bytes());
                }
            }
            encode_end(out);
        }
        Reply::Dump(lines) => {
            out.put(lines);
            encode_end(out);
        }
        Reply::Quit => {}
        other => {
            out.put(line(other).as_bytes());
            out.put(b"\r\n");
        }
    }
}

/// After the last hit of a `get`.
pub fn encode_end(out: &mut Output) {
    out.put(b"END\r\n");
}

fn encode_hit(form: &Form, hit: &Hit, out: &mut Output) {
    let (key, value) = (hit.record.key(), hit.record.value());
    if value.len() < SHARE_FROM {
        return out.write(block_max(key, value), |tail| put_block(form, (key, value), hit, tail));
    }
    out.write(HEAD_MAX, |tail| put_head(form, (key, value), hit, tail));
    out.put_value(&hit.record, true);
}

/// Bytes that are enough for a hit with its value.
pub fn block_max(key: &[u8], value: &[u8]) -> usize {
    BESIDE + key.len() + value.len()
}

/// A hit with its value.
pub fn put_block<R>(form: &Form, (key, value): (&[u8], &[u8]), hit: &Hit<R>, out: &mut Vec<u8>) {
    out.reserve(block_max(key, value));
    put_head(form, (key, value), hit, out);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn put_head<R>(form: &Form, (key, value): (&[u8], &[u8]), hit: &Hit<R>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    put_word(u64::from(hit.flags), out);
    put_word(value.len() as u64, out);
    if form.with_cas {
        put_word(hit.cas, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn put_word(number: u64, out: &mut Vec<u8>) {
    out.push(b' ');
    match u8::try_from(number) {
        // Flags nearly always.
        Ok(digit @ 0..10) => out.push(b'0' + digit),
        _ => out.extend_from_slice(Digits::of(number).as_bytes()),
    }
}

/// Replies that are one fixed line.
pub fn line(reply: &Reply) -> &'static str {
    match reply {
        Reply::Stored { .. } => "STORED",
        Reply::NotStored => "NOT_STORED",
        Reply::Exists => "EXISTS",
        Reply::Miss | Reply::NotFound => "NOT_FOUND",
        Reply::Deleted => "DELETED",
        Reply::Touched(_) => "TOUCHED",
        Reply::Done => "OK",
        Reply::Reset => "RESET",
        Reply::NotNumeric => "CLIENT_ERROR cannot increment or decrement non-numeric value",
        Reply::TooLarge => "SERVER_ERROR object too large for cache",
        Reply::BadChunk => "CLIENT_ERROR bad data chunk",
        Reply::Refused(text) => text,
        Reply::Unavailable => "SERVER_ERROR no answer from the node that has the key",
        _ => "ERROR",
    }
}
