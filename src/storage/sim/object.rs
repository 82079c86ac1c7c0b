//! Objects with numbers, as files have them: what operations do to them, and what their makers may rely on.
//!
//! I4: a number is given once, and names its object until that is removed, whoever leads; then it names nothing for ever.
//! I5: every write is answered as stable, so what a write has left must never be gone, whatever crashed and whatever
//! verifier the doors show. That is more than I5 asks: data may go only where it was not answered as stable and
//! the verifier changes with it.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Operation;

/// What an operation does. Only the session that made an object touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Make,
    Write(u64),
    Remove(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    pub maker: Operation,
    /// The operation of its session whose data it has.
    pub written: u64,
}

/// By number.
pub type Objects = BTreeMap<u64, Object>;

/// What the clients know of the objects.
#[derive(Clone, Default)]
pub struct Known {
    objects: Objects,
    gone: BTreeSet<u64>,
}

impl Known {
    /// An operation is acknowledged, with the number of its object.
    pub fn acknowledged(&mut self, operation: Operation, act: Act, number: u64) {
        let written = operation.1;
        match act {
            Act::Make => {
                let maker = operation;
                self.objects.insert(number, Object { maker, written });
            }
            Act::Write(_) => {
                self.objects.entry(number).and_modify(|object| object.written = written);
            }
            Act::Remove(_) => {
                self.objects.remove(&number);
                self.gone.insert(number);
            }
        }
    }

    /// What is wrong with the objects that a replica has. Those in `leaving` may be there or not: their removal has begun.
    pub fn judge(&self, found: &Objects, leaving: &BTreeSet<u64>) -> Option<String> {
        let back = self.gone.iter().find(|number| found.contains_key(number));
        if let Some(number) = back {
            return Some(format!("object {number} was removed and is back: {:?}", found[number]));
        }
        let kept = self.objects.iter().filter(|(number, _)| !leaving.contains(number));
        for (number, known) in kept {
            match found.get(number) {
                None => return Some(format!("object {number} of {:?} is gone", known.maker)),
                Some(found) if found.maker != known.maker => {
                    return Some(format!(
                        "object {number} of {:?} is now one of {:?}",
                        known.maker, found.maker
                    ));
                }
                Some(found) if found.written < known.written => {
                    return Some(format!(
                        "object {number} has the data of operation {}, {} was acknowledged",
                        found.written, known.written
                    ));
                }
                Some(_) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKER: Operation = (7, 1);

    fn object(maker: Operation, written: u64) -> Objects {
        [(10, Object { maker, written })].into()
    }

    #[test]
    fn a_loss_a_second_life_and_older_data_are_seen() {
        let (mut known, none, leaving) = (Known::default(), Objects::new(), BTreeSet::from([10]));
        known.acknowledged(MAKER, Act::Make, 10);
        known.acknowledged((7, 2), Act::Write(10), 10);
        for good in [object(MAKER, 2), object(MAKER, 3)] {
            assert_eq!(
                known.judge(&good, &BTreeSet::new()),
                None,
                "it may be ahead of its acknowledgement"
            );
        }
        for bad in [none.clone(), object(MAKER, 1), object((8, 1), 2)] {
            assert!(known.judge(&bad, &BTreeSet::new()).is_some(), "{bad:?}");
        }
        assert_eq!(known.judge(&none, &leaving), None, "its removal is under way");
        known.acknowledged((7, 3), Act::Remove(10), 10);
        assert_eq!(known.judge(&none, &leaving), None);
        assert!(known.judge(&object((8, 1), 4), &leaving).is_some());
    }
}
