//! Commands to bytes and bytes to replies, in memcached's meta protocol (protocol.txt, "Meta Commands"). No I/O.
//! Keys travel in base64, because those of the binary protocol may hold any byte.

use std::io::Write;

use data_encoding::BASE64;

use crate::cache::command::{Arithmetic, Command, Delete, Get, Hit, Mode, Number, Reply, Set};
use crate::cache::number;
use crate::cache::store::{Expiry, Moment, Record};

/// Longest line of a reply: a key in base64 and some flags.
const LINE_MAX: usize = 2048;
/// Longest value that a server may send, whatever its own limit is.
const VALUE_MAX: u64 = 1 << 30;
/// Beyond this many seconds an expiry must be sent as unix time (protocol.txt, "Expiration times").
const RELATIVE_MAX: u64 = 60 * 60 * 24 * 30;
const REFUSED: &str = "SERVER_ERROR the external memcached refused";

/// What a reply is the reply to.
#[derive(Debug)]
pub struct Expected {
    kind: Kind,
    key: Vec<u8>,
    /// Bytes of the value that was sent.
    size: usize,
    /// A unique was given: then "not found" is not "not stored".
    is_compared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Touch,
    Set,
    Delete,
    Sum,
    Flush,
}

/// The front of what a server has sent.
#[derive(Debug)]
pub enum Decoded {
    Partial,
    Whole {
        size: usize,
        reply: Reply,
    },
    /// Not the protocol: nothing after it can be trusted.
    Broken,
}

/// Appends a command. `None`, and nothing appended, for those that are no server's: `stats` and the like.
pub fn encode(command: &Command<'_>, moment: Moment, out: &mut Vec<u8>) -> Option<Expected> {
    let mut line = Line { out, moment };
    let expected = |kind, key: &[u8], compare: Option<u64>| Expected {
        kind,
        key: key.to_vec(),
        size: 0,
        is_compared: compare.is_some(),
    };
    Some(match command {
        Command::Get(get) => {
            line.get(get);
            expected(Kind::Get, get.key, None)
        }
        Command::Touch { key, expiry } => {
            line.begin("mg", key);
            line.word(format_args!("b f c t"));
            line.expiry('T', Some(*expiry));
            line.end();
            expected(Kind::Touch, key, None)
        }
        Command::Set(set) => {
            line.set(set);
            Expected {
                size: set.record.value().len(),
                ..expected(Kind::Set, set.record.key(), set.terms.compare)
            }
        }
        Command::Delete(delete) => {
            line.delete(delete);
            expected(Kind::Delete, delete.key, delete.compare)
        }
        Command::Arithmetic(sum) => {
            line.sum(sum);
            expected(Kind::Sum, sum.key, sum.compare)
        }
        Command::Flush { after } => {
            line.out.extend_from_slice(b"flush_all");
            if let Some(after) = after {
                line.word(format_args!("{}", after.div_ceil(1000)));
            }
            line.end();
            expected(Kind::Flush, b"", None)
        }
        _ => return None,
    })
}

/// One command's line.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    moment: Moment,
}

impl Line<'_> {
    fn begin(&mut self, verb: &str, key: &[u8]) {
        self.out.extend_from_slice(verb.as_bytes());
        self.word(format_args!("{}", BASE64.encode_display(key)));
    }

    fn word(&mut self, word: std::fmt::Arguments<'_>) {
        write!(self.out, " {word}").expect("memory takes everything");
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, letter: char, number: Option<u64>) {
        if let Some(number) = number {
            self.word(format_args!("{letter}{number}"));
        }
    }

    fn expiry(&mut self, letter: char, expiry: Option<Expiry>) {
        match expiry {
            None => {}
            Some(Expiry::Never) => self.word(format_args!("{letter}0")),
            Some(Expiry::Past) => self.word(format_args!("{letter}-1")),
            Some(Expiry::In(left)) => {
                let seconds = left.div_ceil(1000);
                let seconds = if seconds > RELATIVE_MAX {
                    (self.moment.unix / 1000).saturating_add(seconds)
                } else {
                    seconds
                };
                self.word(format_args!("{letter}{seconds}"));
            }
        }
    }

    fn get(&mut self, get: &Get<'_>) {
        self.begin("mg", get.key);
        self.word(format_args!("b v f c t l h"));
        if get.is_peek {
            self.word(format_args!("u"));
        }
        self.expiry('T', get.touch);
        self.expiry('N', get.vivify);
        self.expiry('R', get.recache.map(Expiry::In));
        self.number('E', get.new_cas);
        self.end();
    }

    fn set(&mut self, set: &Set) {
        let terms = &set.terms;
        self.begin("ms", set.record.key());
        self.word(format_args!("{} b c s F{}", set.record.value().len(), terms.flags));
        self.word(format_args!(
            "M{}",
            match terms.mode {
                Mode::Set => 'S',
                Mode::Add => 'E',
                Mode::Replace => 'R',
                Mode::Append => 'A',
                Mode::Prepend => 'P',
            }
        ));
        self.expiry('T', Some(terms.expiry));
        self.expiry('N', terms.vivify);
        self.number('C', terms.compare);
        self.number('E', terms.new_cas);
        if terms.invalidate {
            self.word(format_args!("I"));
        }
        self.end();
        self.out.extend_from_slice(set.record.value_line());
    }

    fn delete(&mut self, delete: &Delete<'_>) {
        self.begin("md", delete.key);
        self.word(format_args!("b"));
        self.number('C', delete.compare);
        self.number('E', delete.new_cas);
        if let Some(touch) = delete.invalidate {
            self.word(format_args!("I"));
            self.expiry('T', touch);
        }
        if delete.keep_item {
            self.word(format_args!("x"));
        }
        self.end();
    }

    fn sum(&mut self, sum: &Arithmetic<'_>) {
        self.begin("ma", sum.key);
        self.word(format_args!("b v c t D{}", sum.delta));
        self.word(format_args!("M{}", if sum.is_decrement { 'D' } else { 'I' }));
        if let Some((value, expiry)) = sum.initial {
            self.expiry('N', Some(expiry));
            self.number('J', Some(value));
        }
        self.expiry('T', sum.touch);
        self.number('C', sum.compare);
        self.number('E', sum.new_cas);
        self.end();
    }
}

/// Decodes the reply at the front of the input.
pub fn decode(expected: &Expected, input: &[u8]) -> Decoded {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > LINE_MAX {
            Decoded::Broken
        } else {
            Decoded::Partial
        };
    };
    let line = input.get(..end).unwrap_or_default();
    let mut words = line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b' ');
    let status = words.next().unwrap_or_default();
    if status != b"VA" {
        return Decoded::Whole {
            size: end + 1,
            reply: expected.without_value(status, line, &Flags::read(words)),
        };
    }
    let length = words
        .next()
        .and_then(number::parse)
        .filter(|length| *length <= VALUE_MAX);
    let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else {
        return Decoded::Broken;
    };
    let Some((value, rest)) = input.get(end + 1..).unwrap_or_default().split_at_checked(length) else {
        return Decoded::Partial;
    };
    match rest {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => return Decoded::Partial,
        _ => return Decoded::Broken,
    }
    match expected.with_value(value, &Flags::read(words)) {
        Some(reply) => Decoded::Whole {
            size: end + 1 + length + 2,
            reply,
        },
        None => Decoded::Broken,
    }
}

impl Expected {
    fn with_value(&self, value: &[u8], flags: &Flags) -> Option<Reply> {
        match self.kind {
            Kind::Get => Some(Reply::Hit(flags.hit(&self.key, value))),
            Kind::Sum => Some(Reply::Number(Number {
                value: number::parse(value)?,
                cas: flags.cas,
                left: flags.left,
            })),
            _ => None,
        }
    }

    fn without_value(&self, status: &[u8], line: &[u8], flags: &Flags) -> Reply {
        match (status, self.kind) {
            (b"HD", Kind::Touch) => Reply::Touched(flags.hit(&self.key, b"")),
            (b"HD", Kind::Set) => Reply::Stored {
                cas: flags.cas,
                size: flags.size.unwrap_or(self.size),
            },
            (b"HD", Kind::Delete) => Reply::Deleted,
            (b"OK", Kind::Flush) => Reply::Done,
            (b"EN", Kind::Get | Kind::Touch) => Reply::Miss,
            (b"NF", Kind::Set) if self.is_compared => Reply::NotFound,
            (b"NF", Kind::Delete | Kind::Sum) => Reply::Miss,
            (b"NS" | b"NF", _) => Reply::NotStored,
            (b"EX", _) => Reply::Exists,
            (b"CLIENT_ERROR", Kind::Sum) if line.starts_with(b"CLIENT_ERROR cannot increment") => Reply::NotNumeric,
            (b"SERVER_ERROR", Kind::Set) if line.starts_with(b"SERVER_ERROR object too large") => Reply::TooLarge,
            _ => Reply::Refused(REFUSED),
        }
    }
}

/// What the flags of a reply say.
#[derive(Debug, Default)]
struct Flags {
    flags: u32,
    cas: u64,
    left: Option<u64>,
    idle: u32,
    size: Option<usize>,
    was_fetched: bool,
    is_stale: bool,
    is_winner: bool,
    had_winner: bool,
}

impl Flags {
    fn read<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut found = Flags::default();
        for word in words {
            let Some((letter, token)) = word.split_first() else {
                continue;
            };
            match letter {
                b'f' => found.flags = number::parse_u32(token).unwrap_or_default(),
                b'c' => found.cas = number::parse(token).unwrap_or_default(),
                // -1 is without end.
                b't' => found.left = number::parse(token),
                b'l' => found.idle = number::parse_u32(token).unwrap_or_default(),
                b's' => found.size = number::parse(token).and_then(|size| usize::try_from(size).ok()),
                b'h' => found.was_fetched = token == b"1",
                b'X' => found.is_stale = true,
                b'W' => found.is_winner = true,
                b'Z' => found.had_winner = true,
                _ => {}
            }
        }
        found
    }

    fn hit(&self, key: &[u8], value: &[u8]) -> Hit {
        Hit {
            record: Record::new(key, value, b""),
            flags: self.flags,
            cas: self.cas,
            left: self.left,
            idle: self.idle,
            was_fetched: self.was_fetched,
            is_stale: self.is_stale,
            is_winner: self.is_winner,
            had_winner: self.had_winner,
        }
    }
}
