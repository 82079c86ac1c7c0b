//! The store against a plain map: random commands, random time, same answers.

use std::collections::HashMap;

use proptest::prelude::*;

use super::sharded::SWEEP_ROUND;
use super::{Expiry, Record, SHARDS, Store};
use crate::cache::command::{Arithmetic, Command, Delete, Get, Mode, Reply, Set, Terms};

#[derive(Clone, Debug)]
enum Step {
    Get,
    Gat(Expiry),
    Store(Mode, Vec<u8>, u32, Expiry),
    /// Stores if the unique is the current one (`true`) or a wrong one.
    Cas(bool, Vec<u8>),
    Delete,
    Count(bool, u64, Option<u64>),
    Touch(Expiry),
    Wait(u64),
    Flush(Option<u64>),
    Sweep,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Vec<u8>,
    flags: u32,
    deadline: u64,
    cas: u64,
}

/// What the answer looked like, without uniques.
#[derive(Debug, PartialEq)]
enum Seen {
    Value(Vec<u8>, u32),
    Number(u64),
    Word(&'static str),
}

#[derive(Default)]
struct Model {
    entries: HashMap<u8, Entry>,
    flush_at: Option<u64>,
}

impl Model {
    fn settle(&mut self, now: u64) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.entries.clear();
        }
        self.entries.retain(|_, entry| entry.deadline > now);
    }

    fn store(&mut self, key: u8, mode: Mode, value: &[u8], flags: u32, deadline: u64, now: u64) -> Seen {
        let old = self.entries.get(&key).cloned();
        let (value, flags, deadline) = match (mode, old) {
            (Mode::Add, Some(_)) | (Mode::Replace | Mode::Append | Mode::Prepend, None) => {
                return Seen::Word("NotStored");
            }
            (Mode::Set | Mode::Replace | Mode::Add, _) => (value.to_vec(), flags, deadline),
            (Mode::Append, Some(old)) => ([&old.value, value].concat(), old.flags, old.deadline),
            (Mode::Prepend, Some(old)) => ([value, &old.value].concat(), old.flags, old.deadline),
        };
        let entry = Entry {
            value,
            flags,
            deadline,
            cas: 0,
        };
        self.entries.insert(key, entry);
        self.settle(now);
        Seen::Word("Stored")
    }

    fn count(&mut self, key: u8, down: bool, delta: u64, initial: Option<u64>) -> Seen {
        match (self.entries.get_mut(&key), initial) {
            (None, None) => Seen::Word("Miss"),
            (None, Some(value)) => {
                let entry = Entry {
                    value: value.to_string().into_bytes(),
                    flags: 0,
                    deadline: u64::MAX,
                    cas: 0,
                };
                self.entries.insert(key, entry);
                Seen::Number(value)
            }
            (Some(entry), _) => {
                let text = String::from_utf8_lossy(entry.value.trim_ascii_end()).to_string();
                let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let Some(value) = text.parse::<u64>().ok().filter(|_| is_number) else {
                    return Seen::Word("NotNumeric");
                };
                let value = if down {
                    value.saturating_sub(delta)
                } else {
                    value.wrapping_add(delta)
                };
                let width = entry.value.len();
                entry.value = format!("{value:<width$}").into_bytes();
                Seen::Number(value)
            }
        }
    }

    fn apply(&mut self, key: u8, step: &Step, now: u64) -> Seen {
        self.settle(now);
        let word = |found: bool, word| Seen::Word(if found { word } else { "Miss" });
        match step {
            Step::Get | Step::Gat(_) => {
                let Some(entry) = self.entries.get_mut(&key) else {
                    return Seen::Word("Miss");
                };
                if let Step::Gat(expiry) = step {
                    entry.deadline = expiry.deadline(now);
                }
                Seen::Value(entry.value.clone(), entry.flags)
            }
            Step::Store(mode, value, flags, expiry) => self.store(key, *mode, value, *flags, expiry.deadline(now), now),
            Step::Cas(is_right, value) => match self.entries.get_mut(&key) {
                None => Seen::Word("NotFound"),
                Some(entry) if *is_right => {
                    entry.value = value.clone();
                    entry.flags = 0;
                    entry.deadline = u64::MAX;
                    Seen::Word("Stored")
                }
                Some(_) => Seen::Word("Exists"),
            },
            Step::Delete => word(self.entries.remove(&key).is_some(), "Deleted"),
            Step::Count(down, delta, initial) => self.count(key, *down, *delta, *initial),
            Step::Touch(expiry) => match self.entries.get_mut(&key) {
                None => Seen::Word("Miss"),
                Some(entry) => {
                    entry.deadline = expiry.deadline(now);
                    Seen::Word("Touched")
                }
            },
            Step::Flush(after) => {
                self.flush_at = Some(now + after.unwrap_or(0));
                self.settle(now);
                Seen::Word("Done")
            }
            Step::Wait(_) | Step::Sweep => Seen::Word("Done"),
        }
    }
}

fn terms(mode: Mode, flags: u32, expiry: Expiry, compare: Option<u64>) -> Terms {
    Terms {
        mode,
        flags,
        expiry,
        compare,
        new_cas: None,
        invalidate: false,
        vivify: None,
    }
}

/// The same step on the store. `model` tells the current unique.
fn apply(store: &Store, model: &Model, key: u8, step: &Step, now: u64) -> Reply {
    let name = [b'k', key];
    let set = |terms, value: &[u8]| {
        Command::Set(Set {
            terms,
            record: Record::new(&name, value, b""),
        })
    };
    let command = match step {
        Step::Get => Command::Get(Get::plain(&name)),
        Step::Gat(expiry) => Command::Get(Get {
            touch: Some(*expiry),
            ..Get::plain(&name)
        }),
        Step::Store(mode, value, flags, expiry) => set(terms(*mode, *flags, *expiry, None), value),
        Step::Cas(is_right, value) => {
            let current = model.entries.get(&key).map_or(1, |entry| entry.cas);
            let compare = if *is_right { current } else { current + 1000 };
            set(terms(Mode::Set, 0, Expiry::Never, Some(compare)), value)
        }
        Step::Delete => Command::Delete(Delete {
            key: &name,
            compare: None,
            new_cas: None,
            invalidate: None,
            keep_item: false,
        }),
        Step::Count(is_decrement, delta, initial) => Command::Arithmetic(Arithmetic {
            key: &name,
            delta: *delta,
            is_decrement: *is_decrement,
            compare: None,
            new_cas: None,
            initial: initial.map(|value| (value, Expiry::Never)),
            touch: None,
        }),
        Step::Touch(expiry) => Command::Touch {
            key: &name,
            expiry: *expiry,
        },
        Step::Flush(after) => Command::Flush { after: *after },
        Step::Wait(_) => return Reply::Done,
        Step::Sweep => {
            store.sweep(now);
            return Reply::Done;
        }
    };
    store.execute(command, now).expect("all of these are the store's")
}

fn seen(reply: &Reply) -> Seen {
    match reply {
        Reply::Hit(hit) => Seen::Value(hit.record.value().to_vec(), hit.flags),
        Reply::Number(number) => Seen::Number(number.value),
        Reply::Miss => Seen::Word("Miss"),
        Reply::Stored { .. } => Seen::Word("Stored"),
        Reply::NotStored => Seen::Word("NotStored"),
        Reply::Exists => Seen::Word("Exists"),
        Reply::NotFound => Seen::Word("NotFound"),
        Reply::Deleted => Seen::Word("Deleted"),
        Reply::Touched(_) => Seen::Word("Touched"),
        Reply::NotNumeric => Seen::Word("NotNumeric"),
        Reply::Done => Seen::Word("Done"),
        other => panic!("unexpected {other:?}"),
    }
}

/// Keeps the model's unique equal to the store's.
fn learn_cas(store: &Store, model: &mut Model, key: u8, now: u64) {
    let name = [b'k', key];
    let probe = Get {
        is_peek: true,
        ..Get::plain(&name)
    };
    if let (Some(Reply::Hit(hit)), Some(entry)) = (store.execute(Command::Get(probe), now), model.entries.get_mut(&key))
    {
        entry.cas = hit.cas;
    }
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        3 => Just(Expiry::Never),
        1 => Just(Expiry::Past),
        3 => (1..5000u64).prop_map(Expiry::In),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (any::<u64>(), 0..3usize).prop_map(|(number, pad)| format!("{number}{}", " ".repeat(pad)).into_bytes()),
        (0..20u64).prop_map(|number| number.to_string().into_bytes()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![
        3 => Just(Mode::Set),
        1 => Just(Mode::Add),
        1 => Just(Mode::Replace),
        1 => Just(Mode::Append),
        1 => Just(Mode::Prepend),
    ];
    prop_oneof![
        4 => Just(Step::Get),
        1 => expiry().prop_map(Step::Gat),
        6 => (mode, value(), any::<u32>(), expiry()).prop_map(|(m, v, f, e)| Step::Store(m, v, f, e)),
        2 => (any::<bool>(), value()).prop_map(|(right, value)| Step::Cas(right, value)),
        1 => Just(Step::Delete),
        3 => (any::<bool>(), 0..100u64, proptest::option::of(0..50u64)).prop_map(|(d, n, i)| Step::Count(d, n, i)),
        1 => expiry().prop_map(Step::Touch),
        2 => (0..2000u64).prop_map(Step::Wait),
        1 => proptest::option::of(1..3000u64).prop_map(Step::Flush),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #[test]
    fn store_answers_like_a_map(steps in proptest::collection::vec((0..4u8, step()), 1..200)) {
        let store = Store::new(64 << 20, 1 << 20);
        let (mut model, mut now) = (Model::default(), 10_000);
        for (key, step) in steps {
            if let Step::Wait(millis) = step {
                now += millis;
            }
            model.settle(now);
            let reply = apply(&store, &model, key, &step, now);
            prop_assert_eq!(seen(&reply), model.apply(key, &step, now), "{:?} of {} at {}", step, key, now);
            model.settle(now);
            learn_cas(&store, &mut model, key, now);
        }
        for _ in 0..SWEEP_ROUND + 2 {
            store.sweep(now);
        }
        let items: usize = store.shards().map(|(items, _)| items).sum();
        prop_assert_eq!(items, model.entries.len());
    }

    #[test]
    fn budget_holds_and_is_returned(sizes in proptest::collection::vec((any::<u16>(), 0..60_000usize), 1..300)) {
        let store = Store::new(2 << 20, 1 << 20);
        let empty = store.used();
        for (key, size) in sizes {
            let set = Set {
                terms: terms(Mode::Set, 0, Expiry::Never, None),
                record: Record::new(&key.to_le_bytes(), &vec![1; size], b""),
            };
            store.execute(Command::Set(set), 0);
            prop_assert!(store.used() <= store.budget());
            let counted: usize = (0..SHARDS).map(|index| store.shard_bytes(index)).sum();
            prop_assert_eq!(store.used(), counted);
        }
        store.execute(Command::Flush { after: None }, 0);
        prop_assert_eq!(store.used(), empty);
    }
}

#[test]
fn ends_of_life_are_exact() {
    let store = Store::new(1 << 20, 1 << 18);
    let set = Set {
        terms: terms(Mode::Set, 0, Expiry::In(1000), None),
        record: Record::new(b"k", b"v", b""),
    };
    store.execute(Command::Set(set), 500);
    let get = |now| seen(&store.execute(Command::Get(Get::plain(b"k")), now).expect("the store's"));
    assert_eq!(get(1499), Seen::Value(b"v".to_vec(), 0));
    assert_eq!(get(1500), Seen::Word("Miss"));
}

#[test]
fn unique_is_never_given_twice() {
    let store = Store::new(1 << 20, 1 << 18);
    let mut seen = std::collections::HashSet::new();
    for round in 0..100 {
        let set = Set {
            terms: terms(Mode::Set, 0, Expiry::Never, None),
            record: Record::new(b"k", b"v", b""),
        };
        let Some(Reply::Stored { cas, .. }) = store.execute(Command::Set(set), 0) else {
            panic!("a set stores");
        };
        assert!(seen.insert(cas), "{cas} again in round {round}");
        if round % 3 == 0 {
            store.execute(Command::Flush { after: None }, 0);
        }
    }
}

#[test]
fn threads_count_and_lock_exactly() {
    let store = Store::new(1 << 20, 1 << 18);
    let count = |initial| Arithmetic {
        key: b"n",
        delta: 1,
        is_decrement: false,
        compare: None,
        new_cas: None,
        initial,
        touch: None,
    };
    let locks = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for round in 0..1000u32 {
                    store.execute(Command::Arithmetic(count(Some((1, Expiry::Never)))), 0);
                    let lock = Set {
                        terms: terms(Mode::Add, 0, Expiry::Never, None),
                        record: Record::new(&round.to_le_bytes(), b"", b""),
                    };
                    if let Some(Reply::Stored { .. }) = store.execute(Command::Set(lock), 0) {
                        locks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let last = store.execute(Command::Arithmetic(count(None)), 0).expect("the store's");
    assert_eq!(seen(&last), Seen::Number(4001));
    assert_eq!(locks.into_inner(), 1000, "each lock was granted once");
}
