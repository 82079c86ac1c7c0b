//! An order: a command that the node of the client cannot answer at once, kept until it is answered.

use bytes::Bytes;

use crate::cache::class::Rules;
use crate::cache::command::{Command, Get, Reply};
use crate::cache::council::Shard;
use crate::cache::peer::message::Ask;
use crate::cache::peer::{NAMELESS, RequestId, Space};

/// Name and value of a row of `stats`.
pub type Row = (String, String);

#[derive(Debug)]
pub struct Order {
    pub space: Space,
    pub work: Work,
    pub reply: Option<Reply>,
}

#[derive(Debug)]
pub enum Work {
    Key(OnKey),
    /// For every node.
    Flush {
        after: Option<u64>,
    },
    Stats,
    /// For a server that keeps the items: what it has of one class, so many at most.
    Dump {
        class: u64,
        limit: u64,
    },
    /// This node's own rows of `stats`, to which the other nodes' numbers are added.
    Sums(Vec<Row>),
}

/// A command on one key.
#[derive(Debug)]
pub struct OnKey {
    pub id: RequestId,
    pub shard: Shard,
    key: Bytes,
    verb: Verb,
}

/// The command but for its key.
#[derive(Debug)]
enum Verb {
    /// What nearly all are; kept small, because a client may ask for many keys at once.
    PlainGet,
    Other(Box<Command<'static>>),
}

impl OnKey {
    /// `shard`: of its key. `keep`: makes the key last. `None`: the command has no key.
    pub fn new(id: RequestId, shard: Shard, command: &Command<'_>, keep: impl FnOnce(&[u8]) -> Bytes) -> Option<Self> {
        let (key, verb) = match command {
            Command::Get(get) if get.is_plain() => (keep(get.key), Verb::PlainGet),
            // The key is in the record already.
            Command::Set(_) => (Bytes::new(), Verb::Other(Box::new(command.with_key(b"")?))),
            _ => (keep(command.key()?), Verb::Other(Box::new(command.with_key(b"")?))),
        };
        Some(OnKey { id, shard, key, verb })
    }

    pub fn plain_get(shard: Shard, key: Bytes) -> Self {
        let (id, verb) = (NAMELESS, Verb::PlainGet);
        OnKey { id, shard, key, verb }
    }

    /// The same, for a task of its own.
    pub fn copy(&self) -> Option<Self> {
        let verb = match &self.verb {
            Verb::PlainGet => Verb::PlainGet,
            Verb::Other(command) => Verb::Other(Box::new(command.with_key(b"")?)),
        };
        Some(OnKey {
            id: self.id,
            shard: self.shard,
            key: self.key.clone(),
            verb,
        })
    }

    pub fn command(&self) -> Command<'_> {
        match &self.verb {
            Verb::PlainGet => Command::Get(Get::plain(&self.key)),
            Verb::Other(command) => command.with_key(&self.key).unwrap_or(Command::Noop),
        }
    }

    pub fn key(&self) -> &[u8] {
        match &self.verb {
            Verb::Other(command) => match &**command {
                Command::Set(set) => set.record.key(),
                _ => &self.key,
            },
            Verb::PlainGet => &self.key,
        }
    }

    /// The key as it was kept, for the reply; of a storage command nothing, for its record has it.
    pub fn take_name(&mut self) -> Bytes {
        std::mem::take(&mut self.key)
    }

    /// Appends it to a message for its owner.
    pub fn put(&self, space: Space, ask: &mut Ask) {
        match &self.verb {
            Verb::PlainGet => ask.push_get(space, &self.key),
            // Not `command`, which would copy the value.
            Verb::Other(command) if matches!(&**command, Command::Set(_)) => ask.push(self.id, space, command),
            _ => ask.push(self.id, space, &self.command()),
        }
    }

    /// What a client is told when nobody can answer in time.
    pub fn give_up(&self, rules: &Rules) -> Reply {
        give_up(rules, &self.command())
    }
}

impl Order {
    pub fn new(space: Space, work: Work) -> Self {
        Order {
            space,
            work,
            reply: None,
        }
    }

    /// Bytes that it holds, about.
    pub fn size(&self) -> usize {
        let held = match &self.work {
            Work::Key(OnKey {
                verb: Verb::Other(command),
                ..
            }) => match &**command {
                Command::Set(set) => set.record.footprint(),
                _ => 0,
            },
            _ => 0,
        };
        128 + held
    }
}

/// A failed read is a miss, because a client knows how to go on after a miss; but for a session: the program would go on with an
/// empty one, and write that. ext-memcached does so after an error, too.
pub fn give_up(rules: &Rules, command: &Command<'_>) -> Reply {
    match command {
        Command::Get(get) if rules.is_session(get.key) => Reply::Silence,
        Command::Get(get) if get.vivify.is_none() => Reply::Miss,
        _ => Reply::Unavailable,
    }
}
