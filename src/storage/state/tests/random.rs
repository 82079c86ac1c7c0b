//! Random sequences of operations: every answer and the whole state are the model's.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::model::{CELLS, Model};
use super::world::{ROOT, World, assert_same_files, assert_same_state, begin, plain, user};
use crate::storage::call::{Caller, Change, Creation, Inode, Kind, Lock, LockFamily, Mutation, SetTime, Time};
use crate::storage::operation::{Operation, Session};

/// Dice for one operation; what they mean depends on the state that the model has then, so that most calls hit something.
pub type Roll = (u8, u8, u8, u8, u16, u8);

pub const FIRST_FRESH: u64 = 10;

pub fn rolls(count: usize) -> impl Strategy<Value = Vec<Roll>> {
    proptest::collection::vec(any::<Roll>(), 1..count)
}

/// Turns rolls into entries of a log while the model follows, and keeps the model's answers.
#[derive(Default)]
pub struct Script {
    pub entries: Vec<Vec<Operation>>,
    pub answers: Vec<Vec<Result<crate::storage::call::Reply, crate::storage::call::Error>>>,
    pub models: Vec<Model>,
    pub highest: u64,
}

impl Script {
    pub fn of(rolls: &[Roll]) -> Script {
        let mut script = Script::default();
        let mut writer = Writer {
            model: Model::new(),
            sequences: [0; 3],
            fresh: FIRST_FRESH,
            clock: 0,
            last: None,
        };
        // In every second script, one whose owner outlives its process.
        let adopts = rolls.first().is_some_and(|roll| roll.1 % 2 == 0);
        let begin = vec![begin(Session(1), false), begin(Session(2), adopts)];
        script.push(&mut writer.model, begin);
        let mut entry = Vec::new();
        for roll in rolls {
            // The model must have seen what lies before, so that names are known; it is rolled back for the entry.
            entry.push(writer.operation(*roll));
            if roll.4 % 3 == 0 {
                script.push_seen(&writer, std::mem::take(&mut entry));
            }
        }
        script.push_seen(&writer, entry);
        script.highest = writer.fresh;
        script
    }

    fn push(&mut self, model: &mut Model, operations: Vec<Operation>) {
        let answers = operations.iter().map(|operation| model.apply(operation)).collect();
        self.entries.push(operations);
        self.answers.push(answers);
        self.models.push(model.clone());
    }

    fn push_seen(&mut self, writer: &Writer, operations: Vec<Operation>) {
        let mut model = self.models.last().cloned().unwrap_or_else(Model::new);
        self.push(&mut model, operations);
        assert_eq!(model.nodes.len(), writer.model.nodes.len());
    }

    pub fn model(&self) -> Model {
        self.models.last().unwrap().clone()
    }
}

struct Writer {
    model: Model,
    sequences: [u64; 3],
    fresh: u64,
    clock: i64,
    last: Option<Operation>,
}

fn callers(which: u8) -> Caller {
    match which % 12 {
        0 => user(1000),
        1 => user(1001),
        2 => Caller {
            groups: vec![1000],
            ..user(1002)
        },
        _ => ROOT,
    }
}

fn name(which: u8) -> Vec<u8> {
    match which % 64 {
        0 => b"..".to_vec(),
        1 => b"x/y".to_vec(),
        2 => vec![b'n'; 256],
        3 => vec![b'n'; 255],
        4 => b"\xff\xfe".to_vec(),
        other => vec![b'a' + other % 4],
    }
}

impl Writer {
    fn operation(&mut self, roll: Roll) -> Operation {
        let operation = self.choose(roll);
        let _ = self.model.apply(&operation);
        self.last = Some(operation.clone());
        operation
    }

    fn choose(&mut self, roll: Roll) -> Operation {
        let (verb, a, b, _, _, who) = roll;
        match (verb, &self.last) {
            (0..=3, Some(last)) => return last.clone(),
            (4, _) if a % 4 == 0 => {
                let session = Session(u64::from(a % 2) + 1);
                self.sequences[session.0 as usize] = 0;
                return Operation::End { session };
            }
            (5..=9, _) => {
                return begin(Session(u64::from(a % 2) + 1), b % 2 == 0);
            }
            (10, _) if a % 2 == 0 => return Operation::Reap,
            _ => {}
        }
        let session = Session(u64::from(who % 2) + 1);
        let sequence = &mut self.sequences[session.0 as usize];
        *sequence += 1;
        self.fresh += 1;
        self.clock += 1;
        Operation::Mutate {
            session,
            sequence: *sequence,
            acknowledged: sequence.saturating_sub(u64::from(b % 4)),
            key: None,
            caller: callers(who / 2),
            time: self.time(),
            fresh: Inode(self.fresh),
            mutation: self.mutation(roll),
        }
    }

    fn time(&self) -> Time {
        Time {
            seconds: self.clock,
            nanoseconds: self.clock as u32 * 7,
        }
    }

    /// A node of the wanted kind, if there is one; sometimes any, sometimes one that is gone.
    fn pick(&self, which: u8, kind: Option<Kind>) -> Inode {
        if which == 255 {
            return Inode(self.fresh);
        }
        let wanted: Vec<u64> = self
            .model
            .nodes
            .values()
            .filter(|node| which > 240 || kind.is_none_or(|kind| node.of.kind == kind))
            .map(|node| node.of.inode.0)
            .collect();
        Inode(
            wanted
                .get(usize::from(which) % wanted.len().max(1))
                .copied()
                .unwrap_or(1),
        )
    }

    fn change(&self, roll: Roll) -> Change {
        let (_, _, b, c, d, _) = roll;
        let owner = |which: u16| [None, None, None, Some(0), Some(1000), Some(1001)][usize::from(which % 6)];
        let time = |which: u16| match which % 5 {
            0 => Some(SetTime::Now),
            1 => Some(SetTime::At(Time {
                seconds: i64::from(which),
                nanoseconds: 3,
            })),
            _ => None,
        };
        Change {
            mode: (b % 3 != 0)
                .then_some([0o777, 0o755, 0o700, 0o6755, 0o1777, 0o2775, 0o640, 0o4711][usize::from(c % 8)]),
            uid: owner(d / 4),
            gid: owner(d / 32),
            size: (b % 5 == 0).then_some(u64::from(d % 5000)),
            accessed: time(d / 64),
            modified: time(d / 256),
        }
    }

    fn new_change(&self, roll: Roll) -> Change {
        Change {
            uid: None,
            gid: None,
            size: None,
            ..self.change(roll)
        }
    }

    fn mutation(&self, roll: Roll) -> Mutation {
        let (verb, a, b, c, d, _) = roll;
        let folder = self.pick(a, Some(Kind::Folder));
        let file = self.pick(a, Some(Kind::File));
        let change = self.new_change(roll);
        match verb % 24 {
            0 | 1 => Mutation::Set {
                inode: self.pick(a, None),
                change: self.change(roll),
                guard: (d % 16 == 0).then(|| self.time()),
            },
            2 | 3 => Mutation::Write {
                inode: file,
                offset: u64::from(d % 9000),
                data: Bytes::from(vec![b; usize::from(c) * 20]),
            },
            4 => Mutation::Append {
                inode: file,
                data: Bytes::from(vec![b; usize::from(c)]),
            },
            5..=8 => Mutation::Create {
                folder,
                name: name(b),
                how: [
                    Creation::Unchecked,
                    Creation::Guarded,
                    Creation::Exclusive(u64::from(c % 2)),
                ][usize::from(d % 3)],
                change: Change {
                    size: (d % 4 == 0).then_some(u64::from(c)),
                    ..change
                },
            },
            9 | 10 => Mutation::MakeFolder {
                folder,
                name: name(b),
                change,
            },
            11 => Mutation::MakeLink {
                folder,
                name: name(b),
                target: vec![b't'; usize::from(c % 4)],
                change,
            },
            12 => Mutation::MakeNode {
                folder,
                name: name(b),
                kind: [Kind::Fifo, Kind::Socket, Kind::Character, Kind::File][usize::from(c % 4)],
                device: (3, 4),
                change,
            },
            13 => Mutation::Remove { folder, name: name(b) },
            14 => Mutation::RemoveFolder { folder, name: name(b) },
            15..=18 => Mutation::Rename {
                from: folder,
                name: name(b),
                to: self.pick(c, Some(Kind::Folder)),
                new_name: name(d as u8),
            },
            19 => Mutation::Link {
                inode: self.pick(a, (c % 8 != 0).then_some(Kind::File)),
                folder: self.pick(c, Some(Kind::Folder)),
                name: name(b),
            },
            20 => Mutation::Open {
                inode: self.pick(a, None),
            },
            21 => Mutation::Close {
                inode: self.pick(a, None),
            },
            22 => Mutation::Lock {
                inode: file,
                lock: lock(roll),
            },
            _ => Mutation::Unlock {
                inode: file,
                lock: lock(roll),
            },
        }
    }
}

pub fn lock((verb, a, b, c, d, _): Roll) -> Lock {
    let start = u64::from(b) % CELLS;
    Lock {
        family: if verb & 64 == 0 {
            LockFamily::Flock
        } else {
            LockFamily::Fcntl
        },
        owner: u64::from(a % 2),
        is_exclusive: d % 2 == 0,
        start,
        end: if d % 7 == 0 {
            u64::MAX
        } else {
            (start + u64::from(c % 24)).min(CELLS)
        },
        pid: u32::from(d),
    }
}

/// Rolls that are the same in every run.
pub fn fixed_rolls(seed: u64, count: usize) -> Vec<Roll> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut roll = || {
        let [a, b, c, d, e, f, g, _] = random.next_u64().to_le_bytes();
        (a, b, c, d, u16::from_le_bytes([e, f]), g)
    };
    (0..count).map(|_| roll()).collect()
}

#[test]
fn random_operations_meet_every_verb_and_error() {
    let script = Script::of(&fixed_rolls(1, 6000));
    let mut met = BTreeMap::<String, u32>::new();
    for (operation, answer) in script.entries.iter().flatten().zip(script.answers.iter().flatten()) {
        let first_word = |text: String| {
            text.split(|byte: char| !byte.is_alphabetic())
                .next()
                .unwrap()
                .to_owned()
        };
        let verb = match operation {
            Operation::Mutate { mutation, .. } => first_word(format!("{mutation:?}")),
            _ => continue,
        };
        *met.entry(match answer {
            Ok(_) => verb,
            Err(error) => format!("{error:?}"),
        })
        .or_default() += 1;
    }
    for wanted in [
        "Set",
        "Write",
        "Append",
        "Create",
        "MakeFolder",
        "MakeLink",
        "MakeNode",
        "Remove",
        "RemoveFolder",
        "Rename",
        "Link",
        "Open",
        "Close",
        "Lock",
        "Unlock",
        "NotFound",
        "Access",
        "NotOwner",
        "Exists",
        "NotFolder",
        "IsFolder",
        "Invalid",
        "NameTooLong",
        "NotEmpty",
        "Stale",
        "NotSync",
        "Locked",
    ] {
        assert!(met.get(wanted).is_some_and(|count| *count >= 5), "{wanted}: {met:?}");
    }
}

/// Runs a script entry by entry.
fn check(mut world: World, rolls: &[Roll]) {
    let script = Script::of(rolls);
    world.end(Session(1));
    let mut index = 100;
    for (entry, answers) in script.entries.iter().zip(&script.answers) {
        index += 1;
        let given = world.machine().apply(index, entry).unwrap();
        for ((operation, given), wanted) in entry.iter().zip(given).zip(answers) {
            assert_eq!(given.map(plain), wanted.clone().map(plain), "{operation:?}");
        }
    }
    assert_same_state(world.machine(), &mut script.model(), script.highest);
    assert_same_files(world.disk.as_ref(), world.folder.path(), &script.model());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_give_what_the_model_gives(rolls in rolls(250)) {
        check(World::new(), &rolls);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_on_the_real_disk_give_what_the_model_gives(rolls in rolls(250)) {
        check(World::real(), &rolls);
    }
}
