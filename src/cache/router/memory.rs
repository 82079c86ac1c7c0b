//! What was answered lately, by request: a node that asks again, because the answer was lost or because the owner is another one
//! now, gets the first answer and nothing happens twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use crate::cache::peer::RequestId;

/// A request is given up after 900 ms; nobody asks again after twice that.
const KEPT_MS: u64 = 2000;
/// Locks, so that writes to different keys seldom meet.
const STRIPES: usize = 64;
/// Answers of one stripe; beyond, the oldest go. Together 65 000: as many writes as a node takes in two seconds, about 8 MB.
const STRIPE_MAX: usize = 1024;

/// The encoded reply.
pub type Answer = Box<[u8]>;

#[derive(Debug)]
pub struct Memory {
    stripes: Vec<Mutex<Stripe>>,
}

#[derive(Debug, Default)]
pub struct Stripe {
    answers: HashMap<RequestId, Answer>,
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
}

impl Stripe {
    pub fn find(&self, id: RequestId) -> Option<&Answer> {
        self.answers.get(&id)
    }

    pub fn keep(&mut self, id: RequestId, answer: Answer, now: u64) {
        while let Some((at, oldest)) = self.order.front() {
            if at + KEPT_MS > now && self.order.len() < STRIPE_MAX {
                break;
            }
            self.answers.remove(oldest);
            self.order.pop_front();
        }
        if self.answers.insert(id, answer).is_none() {
            self.order.push_back((now, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_a_while_and_in_bounds() {
        let memory = Memory::default();
        memory.lock(7).keep(7, b"first"[..].into(), 0);
        assert_eq!(memory.lock(7).find(7).map(|answer| &answer[..]), Some(&b"first"[..]));
        assert_eq!(memory.lock(8).find(8), None);
        // The next one in the same stripe, after its time.
        memory.lock(71).keep(71, b"other"[..].into(), KEPT_MS);
        assert_eq!(memory.lock(7).find(7), None);
        for number in 0..3 * STRIPE_MAX as u64 {
            let id = 7 + number * STRIPES as u64;
            memory.lock(id).keep(id, b""[..].into(), KEPT_MS + 1);
        }
        assert_eq!(memory.lock(7).answers.len(), STRIPE_MAX);
        memory.clear();
        assert_eq!(memory.lock(7).order.len(), 0);
    }
}
