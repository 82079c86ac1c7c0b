//! What was answered lately, by request: a node that asks again, because the answer was lost or because the owner is another one
//! now, gets the first answer and nothing happens twice. A node that is given an item must be given what was answered about it, too.
//!
//! An answer is true as long as the state that was made with it is. Whoever is the owner next may never have had that state, and makes
//! another one: so all other nodes doubt what they remember of its keys, until it tells them what it knows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use super::order::give_up;
use crate::cache::class::Rules;
use crate::cache::command::{Command, Reply};
use crate::cache::peer::reply::encoded;
use crate::cache::peer::{RequestId, Space};
use crate::cache::store::State;

/// A request is given up after 900 ms; nobody asks again after twice that.
const KEPT_MS: u64 = 2000;
/// Who asked longer ago has given up.
const ASKED_MS: u64 = 1000;
/// Locks, so that writes to different keys seldom meet.
const STRIPES: usize = 64;
/// Answers of one stripe; beyond, the oldest go. Together 65 000: as many writes as a node takes in two seconds, about 10 MB.
const STRIPE_MAX: usize = 1024;

/// Replies with values up to here are remembered, and go with copies: a copy has the same value once more, and both must go into one message.
const VALUE_MAX: usize = 64 << 10;

/// Whether who asks again must be told the same. Who was told no more than what an item is, and finds it there, can be told what
/// it is by then. Of a large one he is told that, too, though he was the one to renew it.
pub fn is_to_be_kept(reply: &Reply, state: &State) -> bool {
    match (reply, state) {
        (Reply::Hit(hit), State::Present(_)) => hit.is_winner && hit.record.value().len() <= VALUE_MAX,
        _ => true,
    }
}

/// What was answered about a key. The reply is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub space: Space,
    pub key: &'a [u8],
    pub reply: &'a [u8],
}

/// The same for a node that is given the item.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    pub id: RequestId,
    pub key: Box<[u8]>,
    pub reply: Box<[u8]>,
}

/// What is remembered of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Its reply, encoded.
    Reply(&'a [u8]),
    /// Nobody can say whether it has happened.
    Doubtful,
}

impl Found<'_> {
    /// The reply to the same request, made again; encoded.
    pub fn told(self, rules: &Rules, command: &Command<'_>) -> Vec<u8> {
        match self {
            Found::Reply(reply) => reply.into(),
            Found::Doubtful => encoded(&give_up(rules, command)),
        }
    }
}

/// An answer in one piece: the key, then the reply.
#[derive(Debug)]
struct Kept {
    space: Space,
    key_len: usize,
    bytes: Box<[u8]>,
    is_doubtful: bool,
}

#[derive(Debug)]
pub struct Memory {
    stripes: Vec<Mutex<Stripe>>,
}

#[derive(Debug, Default)]
pub struct Stripe {
    answers: HashMap<RequestId, Kept>,
    /// When which one was put in; oldest first.
    order: VecDeque<(u64, RequestId)>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Memory {
    /// The part that knows of this request. It is held while the request is executed: two that are the same wait for one another.
    pub fn lock(&self, id: RequestId) -> MutexGuard<'_, Stripe> {
        let stripe = &self.stripes[id as usize % STRIPES];
        stripe.lock().expect("nothing panics under this lock")
    }

    pub fn clear(&self) {
        for stripe in &self.stripes {
            *stripe.lock().expect("nothing panics under this lock") = Stripe::default();
        }
    }

    /// Of keys that please nothing is certain any more but what is put in from now on.
    pub fn doubt(&self, pleases: impl Fn(&[u8]) -> bool) {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock().expect("nothing panics under this lock");
            for kept in stripe.answers.values_mut() {
                kept.is_doubtful |= pleases(kept.answer().key);
            }
        }
    }

    /// What somebody may still ask again, of keys that please; in no order.
    pub fn known(&self, space: Space, now: u64, pleases: impl Fn(&[u8]) -> bool) -> Vec<Known> {
        let mut known = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.lock().expect("nothing panics under this lock");
            let recent = stripe.order.iter().rev().take_while(|(at, _)| at + ASKED_MS > now);
            let answers = recent.filter_map(|(_, id)| Some((*id, stripe.answers.get(id)?)));
            let wanted = answers.filter(|(_, kept)| kept.space == space && pleases(kept.answer().key));
            known.extend(wanted.map(|(id, kept)| Known {
                id,
                key: kept.answer().key.into(),
                reply: match kept.is_doubtful {
                    true => encoded(&Reply::Unavailable).into(),
                    false => kept.answer().reply.into(),
                },
            }));
        }
        known
    }
}

impl Kept {
    fn new(answer: Answer<'_>) -> Self {
        Kept {
            space: answer.space,
            key_len: answer.key.len(),
            bytes: [answer.key, answer.reply].concat().into(),
            is_doubtful: false,
        }
    }

    fn answer(&self) -> Answer<'_> {
        let (key, reply) = self.bytes.split_at(self.key_len);
        Answer {
            space: self.space,
            key,
            reply,
        }
    }
}

impl Stripe {
    pub fn find(&self, id: RequestId) -> Option<Found<'_>> {
        self.answers.get(&id).map(|kept| match kept.is_doubtful {
            true => Found::Doubtful,
            false => Found::Reply(kept.answer().reply),
        })
    }

    pub fn keep(&mut self, id: RequestId, answer: Answer<'_>, now: u64) {
        while let Some((at, oldest)) = self.order.front() {
            if at + KEPT_MS > now && self.order.len() < STRIPE_MAX {
                break;
            }
            self.answers.remove(oldest);
            self.order.pop_front();
        }
        if self.answers.insert(id, Kept::new(answer)).is_none() {
            self.order.push_back((now, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer<'a>(key: &'a [u8], reply: &'a [u8]) -> Answer<'a> {
        Answer {
            space: Space::Portal,
            key,
            reply,
        }
    }

    #[test]
    fn what_may_be_asked_again_is_told_with_its_key() {
        let memory = Memory::default();
        for (id, key, at) in [(1, b"old", 0), (65, b"new", 900), (3, b"not", 900), (4, b"now", 1000)] {
            memory.lock(id).keep(id, answer(key, b"reply"), at);
        }
        let mut known = memory.known(Space::Portal, 1000, |key| key != b"not");
        known.sort_by_key(|known| known.id);
        let told: Vec<(RequestId, &[u8])> = known.iter().map(|known| (known.id, &*known.key)).collect();
        assert_eq!(told, [(4, &b"now"[..]), (65, b"new")]);
        assert!(known.iter().all(|known| *known.reply == *b"reply"));
        assert_eq!(memory.known(Space::Composite, 1000, |_| true), []);
    }

    #[test]
    fn what_is_doubted_is_unknown_until_it_is_told_again() {
        let memory = Memory::default();
        for (id, key) in [(1, b"moved"), (2, b"other")] {
            memory.lock(id).keep(id, answer(key, b"reply"), 0);
        }
        memory.doubt(|key| key == b"moved");
        assert_eq!(memory.lock(1).find(1), Some(Found::Doubtful));
        assert_eq!(memory.lock(2).find(2), Some(Found::Reply(b"reply")));
        let known = memory.known(Space::Portal, 0, |key| key == b"moved");
        assert_eq!(*known[0].reply, *encoded(&Reply::Unavailable));
        memory.lock(1).keep(1, answer(b"moved", b"again"), 1);
        assert_eq!(memory.lock(1).find(1), Some(Found::Reply(b"again")));
    }

    #[test]
    fn answers_are_kept_for_a_while_and_in_bounds() {
        let memory = Memory::default();
        memory.lock(7).keep(7, answer(b"k", b"first"), 0);
        assert_eq!(memory.lock(7).find(7), Some(Found::Reply(b"first")));
        assert_eq!(memory.lock(8).find(8), None);
        // The next one in the same stripe, after its time.
        memory.lock(71).keep(71, answer(b"k", b"other"), KEPT_MS);
        assert_eq!(memory.lock(7).find(7), None);
        for number in 0..3 * STRIPE_MAX as u64 {
            let id = 7 + number * STRIPES as u64;
            memory.lock(id).keep(id, answer(b"k", b""), KEPT_MS + 1);
        }
        assert_eq!(memory.lock(7).answers.len(), STRIPE_MAX);
        memory.clear();
        assert_eq!(memory.lock(7).order.len(), 0);
    }
}
