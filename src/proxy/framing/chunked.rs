//! A chunked body, read byte for byte as RFC 9112 §7.1 writes it, with the strict choice wherever it leaves one:
//! no white space after a size, extensions bounded and printable, CRLF and nothing else as line end.

use super::field::Field;
use super::{Refusal, malformed};

/// Hexadecimal digits of a size: as many as 64 bits need, so that leading zeros cannot go on for ever.
const SIZE_DIGITS: u8 = 16;

/// Bytes of chunk extensions in one body. Nobody uses them, attackers aside; hyper's own bound is 16 KiB.
const EXTENSION_BYTES: u16 = 4 << 10;

/// Bytes of a trailer section. hyper's own bound is 16 KiB.
const TRAILER_BYTES: u16 = 8 << 10;

/// Fields that must not come after the body: they frame, route or authorise. RFC 9110 §6.5.1.
const NOT_IN_TRAILERS: [&str; 12] = [
    "transfer-encoding",
    "content-length",
    "content-encoding",
    "content-type",
    "host",
    "trailer",
    "te",
    "connection",
    "upgrade",
    "expect",
    "authorization",
    "cookie",
];

#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    extension_bytes: u16,
    trailer_bytes: u16,
    trailer_fields: usize,
    /// The trailer line being read.
    line: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    Extension(u64),
    /// The LF that ends the line of a size.
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    Done,
}

impl Chunked {
    /// `fields`: how many trailer fields are let through.
    pub fn new(fields: usize) -> Self {
        Chunked {
            state: State::Size { size: 0, digits: 0 },
            extension_bytes: EXTENSION_BYTES,
            trailer_bytes: TRAILER_BYTES,
            trailer_fields: fields,
            line: Vec::new(),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Reads up to the end of the body; returns how many bytes belong to it.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut index = 0;
        while let Some(&byte) = bytes.get(index) {
            match &mut self.state {
                State::Done => break,
                State::Data(left) => {
                    let ahead = bytes.len() - index;
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(ahead);
                    *left -= count as u64;
                    index += count;
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                }
                _ => {
                    self.state = self.next(byte)?;
                    index += 1;
                }
            }
        }
        Ok(index)
    }

    fn next(&mut self, byte: u8) -> Result<State, Refusal> {
        match (&self.state, byte) {
            (&State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeEnd(size)),
            (&State::Size { size, digits: 1.. }, b';') => Ok(State::Extension(size)),
            (&State::Size { size, digits }, byte) => digit(size, digits, byte),
            (&State::Extension(size), b'\r') => Ok(State::SizeEnd(size)),
            (&State::Extension(size), byte) => self.extension(size, byte),
            (State::SizeEnd(0), b'\n') => Ok(State::Trailer),
            (&State::SizeEnd(size), b'\n') => Ok(State::Data(size)),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::Trailer, b'\n') => Err(malformed("a trailer line that ends without CR")),
            (State::Trailer, byte) => self.trailer(byte),
            (State::TrailerLf, b'\n') => self.end_trailer(),
            (State::DataCr | State::DataLf, _) => Err(malformed("a chunk longer than its size")),
            _ => Err(malformed("a chunk line that does not end in CRLF")),
        }
    }

    fn extension(&mut self, size: u64, byte: u8) -> Result<State, Refusal> {
        if !matches!(byte, b'\t' | 0x20..=0x7e) {
            return Err(malformed("a chunk extension with bytes that are not printable"));
        }
        let left = self.extension_bytes.checked_sub(1);
        self.extension_bytes = left.ok_or(malformed("chunk extensions beyond the limit"))?;
        Ok(State::Extension(size))
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        let left = self.trailer_bytes.checked_sub(1);
        self.trailer_bytes = left.ok_or(malformed("a trailer section beyond the limit"))?;
        self.line.push(byte);
        Ok(State::Trailer)
    }

    fn end_trailer(&mut self) -> Result<State, Refusal> {
        if self.line.is_empty() {
            return Ok(State::Done);
        }
        let left = self.trailer_fields.checked_sub(1);
        self.trailer_fields = left.ok_or(malformed("more trailer fields than the limit"))?;
        let field = Field::parse(&self.line)?;
        if NOT_IN_TRAILERS.iter().any(|name| field.is(name)) {
            return Err(malformed("a trailer field that belongs into the header"));
        }
        self.line.clear();
        Ok(State::Trailer)
    }
}

fn digit(size: u64, digits: u8, byte: u8) -> Result<State, Refusal> {
    let value = char::from(byte)
        .to_digit(16)
        .ok_or(malformed("a chunk size that is not a number"))?;
    if digits == SIZE_DIGITS {
        return Err(malformed("a chunk size beyond counting"));
    }
    Ok(State::Size {
        size: size << 4 | u64::from(value),
        digits: digits + 1,
    })
}
