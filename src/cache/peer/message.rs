//! Whole messages: heads, and what they are lists of.

use std::cell::RefCell;

use bytes::Bytes;

use super::bytes::{Damaged, Reader, put_bytes, put_number};
use super::command::{option, put_option};
use super::{Epoch, NAMELESS, RequestId, Space, command, reply, state};
use crate::base::chunk;
use crate::cache::command::{Command, Reply};
use crate::cache::council::Term;
use crate::cache::store::State;

/// The format. A reader of another version would take one thing for another.
const VERSION: u8 = 1;

/// Room for some commands.
const FIRST: usize = 1000;
/// Buffers of one thread that wait for the next commands, and the largest of them.
const SPARES: usize = 8;
const SPARE_MAX: usize = 16 << 10;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// One command of an `Ask`.
#[derive(Debug)]
pub struct Asked<'a> {
    pub id: RequestId,
    pub space: Space,
    pub command: Command<'a>,
}

/// Writes commands one after another.
#[derive(Debug)]
pub struct Ask {
    bytes: Vec<u8>,
}

impl Ask {
    pub fn new(epoch: Epoch) -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        let mut bytes = spare.unwrap_or_else(|| Vec::with_capacity(FIRST));
        put_head(&mut bytes, epoch);
        Ask { bytes }
    }

    pub fn push(&mut self, id: RequestId, space: Space, command: &Command<'_>) {
        put_number(&mut self.bytes, id);
        self.bytes.push(space.encode());
        command::encode(command, &mut self.bytes);
    }

    /// What `push` writes of a plain `get`.
    pub fn push_get(&mut self, space: Space, key: &[u8]) {
        put_number(&mut self.bytes, NAMELESS);
        self.bytes.push(space.encode());
        command::encode_plain_get(key, &mut self.bytes);
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(self) -> Bytes {
        let mut bytes = self.bytes;
        if bytes.len() > SPARE_MAX {
            return bytes.into();
        }
        let message = chunk::cut(&bytes);
        bytes.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARES && bytes.capacity() <= SPARE_MAX {
                spare.push(bytes);
            }
        });
        message
    }
}

/// The epoch of a message, and the rest of it.
pub fn open(message: &[u8]) -> Result<(Epoch, Reader<'_>), Damaged> {
    let mut from = Reader(message);
    if from.byte()? != VERSION {
        return Err(Damaged);
    }
    let term = Term {
        number: from.number()?,
        mark: from.number()?,
    };
    let number = from.number()?;
    Ok((Epoch { term, number }, from))
}

pub fn head(epoch: Epoch) -> Vec<u8> {
    let mut out = Vec::new();
    put_head(&mut out, epoch);
    out
}

fn put_head(out: &mut Vec<u8>, epoch: Epoch) {
    out.push(VERSION);
    for number in [epoch.term.number, epoch.term.mark, epoch.number] {
        put_number(out, number);
    }
}

/// The next command of an `Ask`.
pub fn asked<'a>(from: &mut Reader<'a>) -> Result<Asked<'a>, Damaged> {
    Ok(Asked {
        id: from.number()?,
        space: Space::decode(from.byte()?)?,
        command: command::decode(from)?,
    })
}

/// An owner's word on one command. `None`: it does not serve that key now; ask whoever does.
pub fn put_answer(answer: Option<&[u8]>, out: &mut Vec<u8>) {
    put_option(out, answer, |out, reply| out.extend_from_slice(reply));
}

/// `message`: of which `from` is the rest. `key` is asked for nothing but the reply.
pub fn answer(from: &mut Reader<'_>, key: impl FnOnce() -> Bytes, message: &Bytes) -> Result<Option<Reply>, Damaged> {
    option(from, |from| reply::decode(from, key, message))
}

/// One place of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub space: Space,
    /// The command that made the state and what was replied, so that the node that keeps the copy can answer it again.
    pub request: Option<(RequestId, Box<[u8]>)>,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    State(State),
    /// All items of the sender's shards are gone.
    Flush,
}

impl Note {
    /// Bytes that it takes on the way, about.
    pub fn size(&self) -> usize {
        let reply = self.request.as_ref().map_or(0, |(_, reply)| reply.len() + 8);
        let state = match &self.change {
            Change::State(state) => state.size(),
            Change::Flush => 0,
        };
        8 + reply + state
    }

    /// Leaves out the reply, or else the state of the key.
    pub fn lighten(&mut self) {
        if self.request.take().is_none()
            && let Change::State(state) = &mut self.change
        {
            *state = State::Absent(state.key().into());
        }
    }
}

/// Writes a piece of a stream. Places are counted; one without a note is a place whose state concerns the receiver no more.
#[derive(Debug)]
pub struct States {
    bytes: Vec<u8>,
}

impl States {
    /// `first`: the number of the first place.
    pub fn new(epoch: Epoch, first: u64) -> Self {
        let mut bytes = head(epoch);
        put_number(&mut bytes, first);
        States { bytes }
    }

    pub fn push(&mut self, note: Option<&Note>) {
        put_option(&mut self.bytes, note, |out, note| {
            out.push(note.space.encode());
            put_option(out, note.request.as_ref(), |out, (id, reply)| {
                put_number(out, *id);
                put_bytes(out, reply);
            });
            let state = match &note.change {
                Change::State(state) => Some(state),
                Change::Flush => None,
            };
            put_option(out, state, |out, state| state::encode(state, out));
        });
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The next place of a stream.
pub fn note(from: &mut Reader<'_>) -> Result<Option<Note>, Damaged> {
    option(from, |from| {
        Ok(Note {
            space: Space::decode(from.byte()?)?,
            request: option(from, |from| Ok((from.number()?, from.bytes()?.into())))?,
            change: option(from, state::decode)?.map_or(Change::Flush, Change::State),
        })
    })
}

/// The receiver's word on a piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// All places before this one are kept.
    Kept(u64),
    /// The receiver knows another table: the sender's is older, or its own is still under way.
    OtherEpoch,
}

impl Receipt {
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        let next = match self {
            Receipt::Kept(next) => Some(next),
            Receipt::OtherEpoch => None,
        };
        put_option(&mut out, next, put_number);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let next = option(&mut Reader(bytes), Reader::number)?;
        Ok(next.map_or(Receipt::OtherEpoch, Receipt::Kept))
    }
}

/// What concerns a node as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Removes everything, now or after some milliseconds.
    Flush { space: Space, after: Option<u64> },
    /// The numbers of a node.
    Stats { space: Space },
}

impl Control {
    pub fn encode(&self, epoch: Epoch) -> Vec<u8> {
        let mut out = head(epoch);
        match self {
            Control::Flush { space, after } => {
                out.extend([0, space.encode()]);
                put_option(&mut out, *after, put_number);
            }
            Control::Stats { space } => out.extend([1, space.encode()]),
        }
        out
    }

    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let kind = from.byte()?;
        let space = Space::decode(from.byte()?)?;
        match kind {
            0 => Ok(Control::Flush {
                space,
                after: option(from, Reader::number)?,
            }),
            1 => Ok(Control::Stats { space }),
            _ => Err(Damaged),
        }
    }
}
