//! What the three dialects can ask and what can be answered: one `Command`, one `Reply`, no bytes of any protocol.
//!
//! Every command that touches items names exactly one key, so that a router can send it to the key's owner; a text `get` of
//! many keys becomes many commands. Expiries are relative already (`Expiry`), so that owners need no common clock.

use super::seen::Seen;
use super::store::{Expiry, Record};

/// One operation.
#[derive(Debug)]
pub enum Command<'a> {
    Get(Get<'a>),
    Set(Set),
    Delete(Delete<'a>),
    Arithmetic(Arithmetic<'a>),
    /// Sets a new end of life without reading the value.
    Touch {
        key: &'a [u8],
        expiry: Expiry,
    },
    /// Removes everything, now or after some milliseconds.
    Flush {
        after: Option<u64>,
    },
    /// What follows the word `stats`.
    Stats(Vec<&'a [u8]>),
    Version,
    /// Accepted and ignored: what is logged is the configuration's business.
    Verbosity,
    Noop,
    /// Close after the replies before it are out.
    Quit,
}

impl<'a> Command<'a> {
    /// The key of a command that touches an item.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Command::Get(get) => Some(get.key),
            Command::Set(set) => Some(set.record.key()),
            Command::Delete(delete) => Some(delete.key),
            Command::Arithmetic(sum) => Some(sum.key),
            Command::Touch { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Leaves every item as it is.
    pub fn is_read(&self) -> bool {
        matches!(self, Command::Get(get) if get.touch.is_none() && get.vivify.is_none() && get.recache.is_none())
    }

    /// The same on a key that lies elsewhere; a stored item keeps the key in its record.
    pub fn with_key<'b>(&self, key: &'b [u8]) -> Option<Command<'b>> {
        Some(match self {
            Command::Get(get) => Command::Get(Get { key, ..*get }),
            Command::Set(set) => Command::Set(set.clone()),
            Command::Delete(delete) => Command::Delete(Delete { key, ..*delete }),
            Command::Arithmetic(sum) => Command::Arithmetic(Arithmetic { key, ..*sum }),
            Command::Touch { expiry, .. } => Command::Touch { key, expiry: *expiry },
            _ => return None,
        })
    }
}

/// A read. The default is a plain `get`.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    pub key: &'a [u8],
    /// New end of life.
    pub touch: Option<Expiry>,
    /// On a miss, add an empty item and tell the caller that he won.
    pub vivify: Option<Expiry>,
    /// Tell the first caller that he won when less than these milliseconds are left.
    pub recache: Option<u64>,
    /// Does not count as a read.
    pub is_peek: bool,
    /// Unique for an item that is added.
    pub new_cas: Option<u64>,
}

impl<'a> Get<'a> {
    pub fn plain(key: &'a [u8]) -> Self {
        Get {
            key,
            touch: None,
            vivify: None,
            recache: None,
            is_peek: false,
            new_cas: None,
        }
    }

    /// Nothing but a key is asked for.
    pub fn is_plain(&self) -> bool {
        let Get {
            key: _,
            touch,
            vivify,
            recache,
            is_peek,
            new_cas,
        } = self;
        !is_peek && touch.is_none() && vivify.is_none() && recache.is_none() && new_cas.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// How to store; the value comes apart from it.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub mode: Mode,
    pub flags: u32,
    pub expiry: Expiry,
    /// Only if the item has this unique.
    pub compare: Option<u64>,
    pub new_cas: Option<u64>,
    /// A unique older than the item's is accepted too, but the item is stale then.
    pub invalidate: bool,
    /// Append and prepend make an item that is not there.
    pub vivify: Option<Expiry>,
}

#[derive(Clone, Debug)]
pub struct Set {
    pub terms: Terms,
    pub record: Record,
}

#[derive(Clone, Copy, Debug)]
pub struct Delete<'a> {
    pub key: &'a [u8],
    pub compare: Option<u64>,
    pub new_cas: Option<u64>,
    /// Marks the item as stale instead; with a new end of life if given.
    pub invalidate: Option<Option<Expiry>>,
    /// Empties the item instead.
    pub keep_item: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Arithmetic<'a> {
    pub key: &'a [u8],
    pub delta: u64,
    pub is_decrement: bool,
    pub compare: Option<u64>,
    pub new_cas: Option<u64>,
    /// Value and end of life of an item that is not there.
    pub initial: Option<(u64, Expiry)>,
    pub touch: Option<Expiry>,
}

/// What came of a command.
#[derive(Clone, Debug)]
pub enum Reply {
    Hit(Hit),
    /// Nothing to read, touch, delete or count.
    Miss,
    Stored {
        cas: u64,
        size: usize,
    },
    NotStored,
    /// The unique does not match.
    Exists,
    /// A unique was given, but there is no item.
    NotFound,
    Deleted,
    Touched(Hit),
    Number(Number),
    NotNumeric,
    TooLarge,
    /// The value did not end where the client said.
    BadChunk,
    Done,
    Reset,
    Version,
    Table(Vec<(String, String)>),
    /// Keys of one class, already in lines.
    Dump(Vec<u8>),
    /// No such command.
    Unknown,
    /// A packet whose parts do not fit together (binary protocol).
    Malformed,
    /// An error of the client's, as the text protocols say it.
    Refused(&'static str),
    /// The nodes that must have a part in it could not be reached in time; it may have happened or not.
    Unavailable,
    /// The same for a read that no answer fits: clients take an error for a miss. Their connection ends.
    Silence,
    Quit,
}

impl Reply {
    /// Bytes of the value in it.
    pub fn size(&self) -> usize {
        match self {
            Reply::Hit(hit) => hit.record.value().len(),
            _ => 0,
        }
    }
}

/// An item as a reader sees it; its key and value may still be the store's own.
#[derive(Clone, Debug)]
pub struct Hit<R = Seen> {
    pub record: R,
    pub flags: u32,
    pub cas: u64,
    /// Seconds left, rounded up; `None` for an item without end.
    pub left: Option<u64>,
    /// Seconds since the read before this one.
    pub idle: u32,
    /// Was read before.
    pub was_fetched: bool,
    pub is_stale: bool,
    /// This caller shall make the item anew.
    pub is_winner: bool,
    /// Somebody before was told so.
    pub had_winner: bool,
}

impl<R> Hit<R> {
    pub fn with<S>(self, record: S) -> Hit<S> {
        let Hit {
            record: _,
            flags,
            cas,
            left,
            idle,
            was_fetched,
            is_stale,
            is_winner,
            had_winner,
        } = self;
        Hit {
            record,
            flags,
            cas,
            left,
            idle,
            was_fetched,
            is_stale,
            is_winner,
            had_winner,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub value: u64,
    pub cas: u64,
    pub left: Option<u64>,
}
