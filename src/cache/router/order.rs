//! An order: a command that the node of the client cannot answer at once, kept until it is answered.

use crate::cache::class::Rules;
use crate::cache::command::{Command, Reply};
use crate::cache::council::Shard;
use crate::cache::peer::{RequestId, Space};

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
    key: Box<[u8]>,
    command: Command<'static>,
    /// A miss would be taken for a session that is over.
    is_session: bool,
}

impl OnKey {
    /// `None`: the command has no key.
    pub fn new(id: RequestId, rules: &Rules, command: &Command<'_>) -> Option<Self> {
        let key = match command {
            // In the record already.
            Command::Set(_) => Box::default(),
            _ => command.key()?.into(),
        };
        Some(OnKey {
            id,
            shard: rules.shard(command.key()?),
            is_session: rules.is_session(command.key()?),
            key,
            command: command.with_key(b"")?,
        })
    }

    pub fn command(&self) -> Command<'_> {
        self.command.with_key(&self.key).unwrap_or(Command::Noop)
    }

    pub fn key(&self) -> &[u8] {
        match &self.command {
            Command::Set(set) => set.record.key(),
            _ => &self.key,
        }
    }

    /// What a client is told when nobody can answer in time. A failed read is a miss, because a client knows how to go on after a
    /// miss; but for a session: the program would go on with an empty one, and write that. ext-memcached does so after an error, too.
    pub fn give_up(&self) -> Reply {
        match self.command {
            Command::Get(_) if self.is_session => Reply::Silence,
            Command::Get(get) if get.vivify.is_none() => Reply::Miss,
            _ => Reply::Unavailable,
        }
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
                command: Command::Set(set),
                ..
            }) => set.record.footprint(),
            _ => 0,
        };
        128 + held
    }
}
