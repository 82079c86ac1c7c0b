//! What the councils of two nodes say to each other, and how it stands on the wire: a version, then postcard's encoding. Variants are
//! numbered by their order in the source. No I/O.
//!
//! Times are the sender's own, since its boot; others send them back as they are and never compare them with theirs.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::table::{Epoch, NODES_MAX, Table, Term};
use crate::net::mesh::Name;

const VERSION: u8 = 1;

/// Two tables of `NODES_MAX` nodes and voters with names of 63 bytes.
pub const LONGEST: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Ping(Ping),
    Order(Order),
    Ask(Ask),
    Vote(Vote),
    /// Is there a way to you?
    Probe(Duration),
    Echo(Duration),
    /// A leader to those who follow it: it leads no more, and serves nothing.
    Release(Term),
}

/// A node to its leader; to all, when it knows none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub incarnation: u64,
    pub sent: Duration,
    /// The highest term that it has seen.
    pub seen: Term,
    /// Whose orders it follows, and when the last of these was sent.
    pub term: Term,
    pub heard: Option<Duration>,
    /// It votes for no other for a while after that order came.
    pub is_promise: bool,
    /// The table that it takes to be in force.
    pub base: Option<Epoch>,
    /// The next table that it has prepared.
    pub prepared: Option<Epoch>,
    pub wish: Wish,
    /// Nodes that it cannot reach.
    pub cut: Vec<Name>,
    pub filled: Vec<Filled>,
}

/// What a node wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// It keeps a cache.
    Serve,
    /// It keeps one, but not yet: it is emptying itself.
    Later,
    /// It only votes, or it is about to stop.
    Vote,
}

/// A node that is filling has all that the sender owns of what it will hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    pub node: Name,
    pub incarnation: u64,
    pub epoch: Epoch,
}

/// The leader to a node: all that is decided, each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub term: Term,
    pub sent: Duration,
    /// Incarnation and `sent` of the ping that this answers.
    pub echo: Option<(u64, Duration)>,
    /// The node may serve, for a lease from when it sent that ping.
    pub is_lease: bool,
    #[serde(with = "shared")]
    pub base: Arc<Table>,
    pub is_committed: bool,
    #[serde(with = "shared_option")]
    pub next: Option<Arc<Table>>,
}

/// A candidate to a voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub term: Term,
    pub sent: Duration,
    /// It only wants to know what would be answered; nothing is promised.
    pub is_trial: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// As in the `Ask` that it answers.
    pub term: Term,
    pub sent: Duration,
    pub is_trial: bool,
    pub is_granted: bool,
    pub seen: Term,
    /// Whom the voter followed or voted for before, and in which term.
    pub last: Option<(Term, Name)>,
    pub memory: Memory,
}

/// The tables that a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    #[serde(with = "shared_option")]
    pub base: Option<Arc<Table>>,
    pub is_committed: bool,
    #[serde(with = "shared_option")]
    pub next: Option<Arc<Table>>,
}

impl Memory {
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        [&self.base, &self.next].into_iter().flatten()
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("a message of unknown version {0:?}")]
    Version(Option<u8>),
    #[error("a message that cannot be read: {0}")]
    Body(postcard::Error),
    #[error("a message has {0} bytes too many")]
    Trailing(usize),
    #[error("a table without order or bounds")]
    Table,
}

pub fn encode(message: &Message) -> Vec<u8> {
    let encoded = postcard::to_extend(message, vec![VERSION]);
    encoded.expect("a vector takes all, and lengths are known")
}

pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    let Some((&VERSION, body)) = bytes.split_first() else {
        return Err(Malformed::Version(bytes.first().copied()));
    };
    let message = match postcard::take_from_bytes(body) {
        Ok((message, [])) => message,
        Ok((_, rest)) => return Err(Malformed::Trailing(rest.len())),
        Err(error) => return Err(Malformed::Body(error)),
    };
    is_sound(&message).then_some(message).ok_or(Malformed::Table)
}

fn is_sound(message: &Message) -> bool {
    match message {
        Message::Ping(ping) => ping.cut.len() <= NODES_MAX && ping.filled.len() <= NODES_MAX,
        Message::Order(order) => order.base.is_sound() && order.next.as_ref().is_none_or(|next| next.is_sound()),
        Message::Vote(vote) => vote.memory.tables().all(|table| table.is_sound()),
        Message::Ask(_) | Message::Probe(_) | Message::Echo(_) | Message::Release(_) => true,
    }
}

/// A shared table stands on the wire as itself.
mod shared {
    use super::*;

    pub fn serialize<S: Serializer>(table: &Arc<Table>, out: S) -> Result<S::Ok, S::Error> {
        Table::serialize(table, out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Arc<Table>, D::Error> {
        Table::deserialize(input).map(Arc::new)
    }
}

mod shared_option {
    use super::*;

    pub fn serialize<S: Serializer>(table: &Option<Arc<Table>>, out: S) -> Result<S::Ok, S::Error> {
        table.as_deref().serialize(out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Arc<Table>>, D::Error> {
        Ok(Option::<Table>::deserialize(input)?.map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fixture::{name, table};
    use super::*;

    fn order(base: Table) -> Message {
        let next = Some(Arc::new(table(3, &["n1", "n3"])));
        Message::Order(Order {
            term: base.epoch.term,
            sent: Duration::from_nanos(1_234_567_890_123),
            echo: Some((7, Duration::from_millis(5))),
            is_lease: true,
            base: Arc::new(base),
            is_committed: false,
            next,
        })
    }

    #[test]
    fn messages_come_back_and_what_is_cut_or_longer_is_refused() {
        let ping = Message::Ping(Ping {
            incarnation: u64::MAX,
            sent: Duration::from_secs(100),
            seen: Term { number: 9, mark: 8 },
            term: Term { number: 9, mark: 8 },
            heard: Some(Duration::from_secs(3)),
            is_promise: true,
            base: None,
            prepared: Some(Epoch::default()),
            wish: Wish::Later,
            cut: vec![name("n2")],
            filled: vec![Filled {
                node: name("n3"),
                incarnation: 5,
                epoch: Epoch::default(),
            }],
        });
        let vote = Message::Vote(Vote {
            term: Term::default(),
            sent: Duration::ZERO,
            is_trial: false,
            is_granted: true,
            seen: Term::default(),
            last: Some((Term::default(), name("n1"))),
            memory: Memory::default(),
        });
        let ask = Message::Ask(Ask {
            term: Term::default(),
            sent: Duration::ZERO,
            is_trial: true,
        });
        let all = [
            ping,
            order(table(2, &["n1", "+n2", "n3"])),
            ask,
            vote,
            Message::Probe(Duration::ZERO),
            Message::Release(Term::default()),
        ];
        for message in all {
            let bytes = encode(&message);
            assert_eq!(decode(&bytes), Ok(message));
            (0..bytes.len()).for_each(|cut| assert!(decode(&bytes[..cut]).is_err(), "{cut}"));
            assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(Malformed::Trailing(1)));
        }
        assert_eq!(decode(&[9, 0]), Err(Malformed::Version(Some(9))));
        assert_eq!(decode(&[]), Err(Malformed::Version(None)));
    }

    #[test]
    fn tables_without_order_are_refused_and_the_largest_fits() {
        assert_eq!(decode(&encode(&order(table(2, &["n2", "n1"])))), Err(Malformed::Table));
        let long = |number: usize| format!("{number:02}{}", "x".repeat(61));
        let names: Vec<String> = (0..NODES_MAX).map(long).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Message::Order(mut largest) = order(table(2, &names)) else {
            unreachable!("it is one")
        };
        largest.next = Some(largest.base.clone());
        assert!(encode(&Message::Order(largest)).len() < LONGEST);
    }
}
