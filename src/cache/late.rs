//! Replies that are not all there yet: what a session keeps of requests that another node has a part in, in their order.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;

use super::command::Reply;
use super::council::{Shard, ShardSet};
use super::request::Form;
use super::router::{Order, Work};

/// Orders of one client that may wait together, and bytes in them. Beyond, no further request is looked at.
const ORDERS_MAX: usize = 1024;
const BYTES_MAX: usize = 256 << 10;
/// Of one thread, for clients that ask next; as many as are asked for in one turn of a busy thread.
const SPARES: usize = 32;
/// One that has grown beyond so many places is freed.
const SPARE_MAX: usize = 64;

/// A reply, or the place of the order that will have it.
#[derive(Debug)]
pub enum Answer {
    Ready(Reply),
    Order(usize),
    /// The order's reply does not matter: this is told when it has one.
    After(usize, Reply),
}

/// A request as far as it is needed to write its reply. Its answers are the next ones.
#[derive(Debug)]
pub enum Entry {
    One {
        /// Decoded again.
        line: Bytes,
    },
    /// So many keys of a text `get`; further ones follow in another entry unless it is the last.
    Many {
        form: Form<'static>,
        count: usize,
        is_last: bool,
    },
}

/// The line or header of a request. What is kept of it shares one copy, made when it is needed.
pub struct Line<'a> {
    bytes: &'a [u8],
    kept: OnceCell<Bytes>,
}

impl<'a> Line<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Line {
            bytes,
            kept: OnceCell::new(),
        }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn whole(&self) -> Bytes {
        self.kept.get_or_init(|| Bytes::copy_from_slice(self.bytes)).clone()
    }

    /// `part`: of the line, or else copied.
    pub fn part(&self, part: &[u8]) -> Bytes {
        let start = part.as_ptr().addr().checked_sub(self.bytes.as_ptr().addr());
        let place = start.map(|start| start..start + part.len());
        match place.filter(|place| self.bytes.get(place.clone()).is_some()) {
            Some(place) => self.whole().slice(place),
            None => Bytes::copy_from_slice(part),
        }
    }
}

#[derive(Debug, Default)]
pub struct Late {
    entries: VecDeque<Entry>,
    answers: VecDeque<Answer>,
    pub orders: Vec<Order>,
    shards: ShardSet,
    /// A command for all nodes is among them: whatever follows it must wait.
    is_barred: bool,
    bytes: usize,
}

thread_local! {
    /// An idle client shall hold none, and a busy one shall not allocate all of it anew for each request.
    #[expect(clippy::vec_box, reason = "they go in and out without being copied")]
    static SPARE: RefCell<Vec<Box<Late>>> = const { RefCell::new(Vec::new()) };
}

impl Late {
    /// Empty.
    pub fn new() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// For the next one.
    pub fn give_back(mut self: Box<Self>) {
        let Late {
            entries,
            answers,
            orders,
            shards,
            is_barred,
            bytes,
        } = &mut *self;
        entries.clear();
        answers.clear();
        orders.clear();
        (*shards, *is_barred, *bytes) = (ShardSet::EMPTY, false, 0);
        if entries.capacity().max(answers.capacity()).max(orders.capacity()) <= SPARE_MAX {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARES {
                    spare.push(self);
                }
            });
        }
    }

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

    /// Adds an answer of the request that is pushed next.
    pub fn answer(&mut self, answer: Answer) {
        if let Answer::Ready(Reply::Hit(hit)) = &answer {
            self.bytes += hit.record.footprint();
        }
        self.answers.push_back(answer);
    }

    /// `line`: of the request, which its orders hold. Its answers have been added.
    pub fn push(&mut self, entry: Entry, line: &Line<'_>) {
        self.bytes += 64 + line.bytes().len();
        self.entries.push_back(entry);
    }

    /// The first request, once all of it is answered.
    pub fn pop(&mut self) -> Option<Entry> {
        let is_there = |answer: &Answer| match answer {
            Answer::Ready(_) => true,
            Answer::Order(place) | Answer::After(place, _) => {
                self.orders.get(*place).is_none_or(|order| order.reply.is_some())
            }
        };
        let count = match self.entries.front()? {
            Entry::One { .. } => 1,
            Entry::Many { count, .. } => *count,
        };
        let is_whole = self.answers.iter().take(count).all(is_there);
        if is_whole { self.entries.pop_front() } else { None }
    }

    /// The reply to the first of the popped request's keys whose reply was not taken yet.
    pub fn next_reply(&mut self) -> Reply {
        match self.answers.pop_front() {
            Some(answer) => self.reply(answer),
            None => Reply::Unavailable,
        }
    }

    /// Takes the reply out.
    fn reply(&mut self, answer: Answer) -> Reply {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_line_shares_one_copy() {
        let request = b"get first second\r\n".to_vec();
        let line = Line::new(&request);
        let (first, second) = (line.part(&request[4..9]), line.part(&request[10..16]));
        let whole = line.whole();
        drop(request);
        assert_eq!((&first[..], &second[..]), (&b"first"[..], &b"second"[..]));
        assert_eq!(first.as_ptr(), whole[4..].as_ptr());
        assert_eq!(second.as_ptr(), whole[10..].as_ptr());
    }

    #[test]
    fn a_key_from_elsewhere_is_copied() {
        // Neighbours in memory: the second half is not of the line.
        let memory = b"mg a2V5 key";
        let line = Line::new(&memory[..7]);
        for key in [&memory[8..], &memory[5..9], b"elsewhere"] {
            assert_eq!(&line.part(key)[..], key);
        }
        assert!(line.kept.get().is_none());
    }
}
