//! Where HTTP/1 messages begin and end on a client's connection. A codec: no I/O, no clock.
//!
//! hyper reads requests well but generously: it takes two `Host` fields, lists of transfer codings and bare line feeds, and whatever
//! stands behind us may read those differently (request smuggling, RFC 9112 §11.2). So every byte passes here first. A head is
//! let through only when it is complete and means one thing; a body only as far as its framing holds. The tables of
//! what is refused are in `head` and `chunked`; the tests hold them against a corpus.

mod chunked;
mod field;
mod head;
#[cfg(test)]
mod tests;

use std::fmt;

use super::error::Kind;
use chunked::Chunked;
use head::{Body, Scan};

/// Bounds of one request head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of request line and field lines, line ends included.
    pub size: usize,
    /// Field lines of a head, and of a trailer section.
    pub fields: usize,
}

/// Why the connection cannot go on. The reason is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    pub why: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.why)
    }
}

impl std::error::Error for Refusal {}

const fn malformed(why: &'static str) -> Refusal {
    Refusal {
        kind: Kind::Malformed,
        why,
    }
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Head,
    Body,
    /// A request to upgrade stands unanswered: its answer decides what the next byte is.
    Held,
    /// Another protocol, after an upgrade.
    Open,
}

/// Whether a method and a target would pass here: HTTP/2 shall not be the wider door.
pub fn is_plain(method: &str, target: &str) -> bool {
    method.bytes().all(field::is_method_byte) && field::is_target(target.as_bytes())
}

/// The reader of one connection.
#[derive(Debug)]
pub struct Framing {
    limits: Limits,
    state: State,
    /// The request under way wants to upgrade.
    is_upgrade: bool,
    heads: u64,
    failed: Option<Refusal>,
}

#[derive(Debug)]
enum State {
    Head(Scan),
    Fixed(u64),
    Chunked(Chunked),
    Held,
    Open,
}

impl Framing {
    pub fn new(limits: Limits) -> Self {
        Framing {
            limits,
            state: State::Head(Scan::default()),
            is_upgrade: false,
            heads: 0,
            failed: None,
        }
    }

    /// How many of the leading `bytes` may be handed on; the others must lead the next call, with more behind them.
    /// An error is final and concerns the first byte that was not handed on.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        if let Some(refusal) = self.failed {
            return Err(refusal);
        }
        let mut passed = 0;
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(0) => break,
                Ok(count) => passed += count,
                Err(refusal) => {
                    self.failed = Some(refusal);
                    if passed == 0 {
                        return Err(refusal);
                    }
                    break;
                }
            }
        }
        Ok(passed)
    }

    /// What the next byte is part of.
    pub fn part(&self) -> Part {
        match self.state {
            State::Head(_) => Part::Head,
            State::Fixed(_) | State::Chunked(_) => Part::Body,
            State::Held => Part::Held,
            State::Open => Part::Open,
        }
    }

    /// Heads let through so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// The held request was answered: with 101, the connection speaks another protocol from now on; else the next head follows.
    pub fn settle(&mut self, is_upgraded: bool) {
        self.state = if is_upgraded {
            State::Open
        } else {
            State::Head(Scan::default())
        };
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        match &mut self.state {
            State::Head(scan) => {
                let Some(head) = scan.read(bytes, &self.limits)? else {
                    return Ok(0);
                };
                self.heads += 1;
                self.is_upgrade = head.is_upgrade;
                match head.body {
                    Body::None => self.end_message(),
                    Body::Fixed(length) => self.state = State::Fixed(length),
                    Body::Chunked => self.state = State::Chunked(Chunked::new(self.limits.fields)),
                }
                Ok(head.len)
            }
            State::Fixed(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                if *left == 0 {
                    self.end_message();
                }
                Ok(count)
            }
            State::Chunked(chunked) => {
                let count = chunked.read(bytes)?;
                if chunked.is_done() {
                    self.end_message();
                }
                Ok(count)
            }
            State::Held => Ok(0),
            State::Open => Ok(bytes.len()),
        }
    }

    fn end_message(&mut self) {
        self.state = if self.is_upgrade {
            State::Held
        } else {
            State::Head(Scan::default())
        };
    }
}
