//! What is known of short texts from earlier requests: browsers send the same names, headers and cookies again and again, and what no
//! operator held for once, none will hold for. One table for all workers, in parts of their own locks; texts are compared, not only hashed.
//!
//! Bounded: each part has a young and an old table; a full young one becomes the old one, and what is asked for again is young again.

use std::hash::RandomState;
use std::sync::Mutex;

use hashbrown::HashTable;

use crate::proxy::waf::variable::Variable;

/// Longer texts seldom come twice.
pub const LONGEST: usize = 256;
/// Of values of arguments: longer ones are of one request alone.
const LONGEST_ARGUMENT: usize = 8;
const PARTS: usize = 16;
/// Of a table: with both tables of all parts at most some 4 MiB.
const MOST: usize = 512;

#[derive(Debug, Default)]
pub struct Known {
    pub hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug, Default)]
struct Part {
    young: HashTable<Entry>,
    old: HashTable<Entry>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    text: Box<[u8]>,
    /// Variables that it was sifted for, as bits.
    ready: u64,
    may_hold: Box<[u64]>,
}

impl Known {
    /// Whether something is known of a text: what it was sifted for, and into `may_hold` which operators may hold.
    pub fn look(&self, hash: u64, text: &[u8], may_hold: &mut [u64]) -> Option<u64> {
        let mut part = self.part(hash);
        if part.young.find(hash, |entry| *entry.text == *text).is_none() {
            let old = part.old.find_entry(hash, |entry| *entry.text == *text).ok()?;
            let (entry, _) = old.remove();
            part.add(entry);
        }
        let entry = part.young.find(hash, |entry| *entry.text == *text)?;
        may_hold.copy_from_slice(&entry.may_hold);
        Some(entry.ready)
    }

    pub fn learn(&self, hash: u64, text: &[u8], ready: u64, may_hold: &[u64]) {
        let mut part = self.part(hash);
        if let Some(entry) = part.young.find_mut(hash, |entry| *entry.text == *text) {
            // Others may have learned of other variables: only what is as far is better.
            if ready & entry.ready == entry.ready {
                entry.ready = ready;
                entry.may_hold.copy_from_slice(may_hold);
            }
            return;
        }
        part.add(Entry {
            hash,
            text: text.into(),
            ready,
            may_hold: may_hold.into(),
        });
    }

    fn part(&self, hash: u64) -> std::sync::MutexGuard<'_, Part> {
        // The table uses the other bits.
        let place = (hash >> 32) as usize % PARTS;
        self.parts[place].lock().expect("nothing panics under this lock")
    }
}

impl Part {
    fn add(&mut self, entry: Entry) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert_unique(entry.hash, entry, |entry| entry.hash);
    }
}

/// Whether a text that was sifted for these variables may come again.
pub fn is_worth(ready: u64, len: usize) -> bool {
    const ARGUMENTS: [Variable; 4] = [
        Variable::ArgsGet,
        Variable::ArgsPost,
        Variable::RequestBody,
        Variable::Xml,
    ];
    let arguments = ARGUMENTS.iter().fold(0, |bits, variable| bits | 1 << *variable as u64);
    len <= LONGEST_ARGUMENT || (ready & arguments == 0 && len <= LONGEST)
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let known = Known::default();
        let hash = |text: &[u8]| known.hasher.hash_one(text);
        let look = |text: &[u8]| {
            let mut found = [0];
            known.look(hash(text), text, &mut found).map(|ready| (ready, found[0]))
        };
        known.learn(hash(b"kept"), b"kept", 1, &[7]);
        known.learn(hash(b"kept"), b"kept", 3, &[5]);
        known.learn(hash(b"kept"), b"kept", 4, &[1]);
        known.learn(hash(b"gone"), b"gone", 1, &[7]);
        for number in 0..3 * PARTS * MOST {
            let text = number.to_string().into_bytes();
            known.learn(hash(&text), &text, 1, &[0]);
            assert_eq!(look(b"kept"), Some((3, 5)));
        }
        assert_eq!(look(b"gone"), None);
        let all = known.parts.iter().map(|part| part.lock().unwrap());
        assert!(all.map(|part| part.young.len() + part.old.len()).max() <= Some(2 * MOST));
    }

    #[test]
    fn values_of_arguments_are_of_one_request() {
        let arguments = 1 << Variable::ArgsPost as u64 | 1 << Variable::RequestHeaders as u64;
        assert!(!is_worth(arguments, 20) && is_worth(arguments, 3));
        assert!(is_worth(1 << Variable::RequestHeaders as u64, 200));
    }
}
