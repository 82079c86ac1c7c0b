//! Replies that are not all there yet: what a session keeps of requests that another node has a part in, in their order.

use std::collections::VecDeque;

use super::command::Reply;
use super::council::{Shard, ShardSet};
use super::router::{Order, Work};

/// Orders of one client that may wait together, and bytes in them. Beyond, no further request is looked at.
const ORDERS_MAX: usize = 1024;
const BYTES_MAX: usize = 256 << 10;

/// A reply, or the place of the order that will have it.
#[derive(Debug)]
pub enum Answer {
    Ready(Reply),
    Order(usize),
    /// The order's reply does not matter: this is told when it has one.
    After(usize, Reply),
}

/// A request with its line, by which its reply will be written.
#[derive(Debug)]
pub struct Entry {
    pub line: Box<[u8]>,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    One(Answer),
    /// Keys of a text `get` from number `from` on; the rest of its keys follow in another entry unless it is the last.
    Many {
        from: usize,
        answers: Vec<Answer>,
        is_last: bool,
    },
}

#[derive(Debug, Default)]
pub struct Late {
    entries: VecDeque<Entry>,
    pub orders: Vec<Order>,
    shards: ShardSet,
    /// A command for all nodes is among them: whatever follows it must wait.
    is_barred: bool,
    bytes: usize,
}

impl Late {
    /// An earlier command has to do with that shard.
    pub fn concerns(&self, shard: Shard) -> bool {
        self.is_barred || self.shards.has(shard)
    }

    pub fn is_full(&self) -> bool {
        self.orders.len() >= ORDERS_MAX || self.bytes >= BYTES_MAX
    }

    /// Adds an order; returns its place.
    pub fn order(&mut self, order: Order) -> usize {
        match &order.work {
            Work::Key(on_key) => self.shards.insert(on_key.shard),
            Work::Flush { .. } | Work::Stats | Work::Sums(_) | Work::Dump { .. } => self.is_barred = true,
        }
        self.bytes += order.size();
        self.orders.push(order);
        self.orders.len() - 1
    }

    pub fn push(&mut self, line: &[u8], what: What) {
        let answers = match &what {
            What::One(answer) => std::slice::from_ref(answer),
            What::Many { answers, .. } => answers,
        };
        let values = answers.iter().map(|answer| match answer {
            Answer::Ready(Reply::Hit(hit)) => hit.record.footprint(),
            _ => 0,
        });
        self.bytes += 64 + line.len() + values.sum::<usize>();
        let line = line.into();
        self.entries.push_back(Entry { line, what });
    }

    /// The first request, once all of it is answered.
    pub fn pop(&mut self) -> Option<Entry> {
        let is_there = |answer: &Answer| match answer {
            Answer::Ready(_) => true,
            Answer::Order(place) | Answer::After(place, _) => {
                self.orders.get(*place).is_none_or(|order| order.reply.is_some())
            }
        };
        let is_whole = match &self.entries.front()?.what {
            What::One(answer) => is_there(answer),
            What::Many { answers, .. } => answers.iter().all(is_there),
        };
        if is_whole { self.entries.pop_front() } else { None }
    }

    /// Takes the reply out.
    pub fn reply(&mut self, answer: Answer) -> Reply {
        match answer {
            Answer::Ready(reply) | Answer::After(_, reply) => reply,
            Answer::Order(place) => {
                let told = Reply::Done;
                let order = self.orders.get_mut(place);
                // The order stays answered, but holds its value no more.
                let reply = order.and_then(|order| order.reply.replace(told));
                reply.unwrap_or(Reply::Unavailable)
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
