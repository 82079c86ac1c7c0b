//! Replies that are not all there yet: what a session keeps of requests that another node has a part in, in their order.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;

use super::ascii;
use super::command::Reply;
use super::council::{Shard, ShardSet};
use super::peer::Space;
use super::router::{Order, Work};
use crate::base::chunk;

/// Orders of one client that may wait together, and bytes in them. Beyond, no further request is looked at.
const ORDERS_MAX: usize = 1024;
const BYTES_MAX: usize = 256 << 10;
/// Of one thread, for clients that ask next; as many as are asked for in one turn of a busy thread.
const SPARES: usize = 32;
/// One that has grown beyond so many places or bytes is freed.
const SPARE_MAX: usize = 64;
const SAID_MAX: usize = 16 << 10;

/// Where a reply is, or will be. Small, because there is one for each key.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The next one that is ready.
    Ready,
    Order(usize),
    /// The order's reply does not matter: the next one that is ready is told when it has one.
    After(usize),
    /// So many further bytes of what is said already.
    Said(usize),
}

/// What a client is told next.
#[derive(Clone, Copy)]
pub enum Told<'a> {
    Reply(&'a Reply),
    /// As it is.
    Said(&'a [u8]),
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
        form: ascii::Form,
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
        self.copy().clone()
    }

    fn copy(&self) -> &Bytes {
        self.kept.get_or_init(|| chunk::cut(self.bytes))
    }

    /// `part`: of the line, or else copied.
    pub fn part(&self, part: &[u8]) -> Bytes {
        let start = part.as_ptr().addr().checked_sub(self.bytes.as_ptr().addr());
        let place = start.map(|start| start..start + part.len());
        match place.filter(|place| self.bytes.get(place.clone()).is_some()) {
            Some(place) => self.copy().slice(place),
            None => Bytes::copy_from_slice(part),
        }
    }
}

#[derive(Debug, Default)]
pub struct Late {
    entries: VecDeque<Entry>,
    answers: VecDeque<Answer>,
    ready: VecDeque<Reply>,
    /// Replies that are written already, and how much of it was told.
    said: Vec<u8>,
    told: usize,
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
            ready,
            said,
            told,
            orders,
            shards,
            is_barred,
            bytes,
        } = &mut *self;
        entries.clear();
        answers.clear();
        ready.clear();
        said.clear();
        orders.clear();
        (*told, *shards, *is_barred, *bytes) = (0, ShardSet::EMPTY, false, 0);
        let places = [
            entries.capacity(),
            answers.capacity(),
            ready.capacity(),
            orders.capacity(),
        ];
        if places.iter().all(|places| *places <= SPARE_MAX) && said.capacity() <= SAID_MAX {
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

    /// Answers of the request that is pushed next come from here on. This one: what an order is replied.
    pub fn order(&mut self, space: Space, work: Work) {
        let place = self.add(space, work);
        self.answers.push_back(Answer::Order(place));
    }

    /// A reply that is there already.
    pub fn ready(&mut self, reply: Reply) {
        self.bytes += reply.size();
        self.ready.push_back(reply);
        self.answers.push_back(Answer::Ready);
    }

    /// That reply, once an order has whichever.
    pub fn after(&mut self, space: Space, work: Work, reply: Reply) {
        let place = self.add(space, work);
        self.ready.push_back(reply);
        self.answers.push_back(Answer::After(place));
    }

    /// What `write` appends.
    pub fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.said.len();
        write(&mut self.said);
        let count = self.said.len() - before;
        self.bytes += count;
        self.answers.push_back(Answer::Said(count));
    }

    fn add(&mut self, space: Space, work: Work) -> usize {
        match &work {
            Work::Key(on_key) => self.shards.insert(on_key.shard),
            Work::Flush { .. } | Work::Stats | Work::Sums(_) | Work::Dump { .. } => self.is_barred = true,
        }
        self.orders.push(Order::new(space, work));
        self.bytes += self.orders.last().map_or(0, Order::size);
        self.orders.len() - 1
    }

    /// `line`: of the request, which its orders hold. Its answers have been added.
    pub fn push(&mut self, entry: Entry, line: &Line<'_>) {
        self.bytes += 64 + line.bytes().len();
        self.entries.push_back(entry);
    }

    /// The first request, once all of it is answered.
    pub fn pop(&mut self) -> Option<Entry> {
        let is_there = |answer: &Answer| match answer {
            Answer::Ready | Answer::Said(_) => true,
            Answer::Order(place) | Answer::After(place) => {
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

    /// Tells the first answer of the popped request that was not told yet.
    pub fn tell(&mut self, tell: impl FnOnce(Told<'_>)) {
        match self.answers.pop_front() {
            Some(Answer::Ready | Answer::After(_)) => {
                let reply = self.ready.pop_front();
                tell(Told::Reply(reply.as_ref().unwrap_or(&Reply::Unavailable)));
            }
            Some(Answer::Order(place)) => {
                let mut reply = self.orders.get_mut(place).and_then(|order| order.reply.as_mut());
                tell(Told::Reply(reply.as_deref().unwrap_or(&Reply::Unavailable)));
                // The order stays answered, but holds its value no more.
                if let Some(reply) = &mut reply {
                    **reply = Reply::Done;
                }
            }
            Some(Answer::Said(count)) => {
                let said = self.told..self.told + count;
                self.told = said.end;
                tell(Told::Said(self.said.get(said).unwrap_or_default()));
            }
            None => tell(Told::Reply(&Reply::Unavailable)),
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

    #[test]
    fn answers_come_out_in_the_order_of_their_requests() {
        let shown = |late: &mut Late| {
            let mut shown = String::new();
            late.tell(|told| {
                shown = match told {
                    Told::Reply(reply) => format!("{reply:?}"),
                    Told::Said(said) => String::from_utf8_lossy(said).into_owned(),
                }
            });
            shown
        };
        // The second one is the first one, used again.
        for _ in 0..2 {
            let (mut late, line) = (Late::new(), Line::new(b"line"));
            assert!(late.is_empty() && late.orders.is_empty());
            late.say(|said| said.extend_from_slice(b"one"));
            late.ready(Reply::Stored { cas: 1, size: 1 });
            late.order(Space::Portal, Work::Stats);
            late.say(|said| said.extend_from_slice(b"two"));
            let many = Entry::Many {
                form: ascii::Form::default(),
                count: 4,
                is_last: true,
            };
            late.push(many, &line);
            late.after(Space::Portal, Work::Stats, Reply::TooLarge);
            late.push(Entry::One { line: line.whole() }, &line);
            assert!(late.pop().is_none());
            late.orders[0].reply = Some(Reply::Deleted);
            assert!(matches!(late.pop(), Some(Entry::Many { count: 4, .. })));
            let told = [0; 4].map(|_| shown(&mut late));
            assert_eq!(told, ["one", "Stored { cas: 1, size: 1 }", "Deleted", "two"]);
            assert!(late.pop().is_none());
            late.orders[1].reply = Some(Reply::Miss);
            assert!(matches!(late.pop(), Some(Entry::One { .. })));
            assert_eq!(shown(&mut late), "TooLarge");
            late.give_back();
        }
    }
}
