//! Whatever is written is read as it was; whatever else comes is refused and harms nothing.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::bytes::Reader;
use super::message::{self, Ask, Change, Control, Note, Receipt, States};
use super::{Epoch, NAMELESS, Space, command, reply, state};
use crate::cache::command::{Arithmetic, Command, Delete, Get, Hit, Mode, Number, Reply, Set, Terms};
use crate::cache::council::Term;
use crate::cache::store::{Copy, Expiry, KEY_MAX, Record, State};

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Never),
        Just(Expiry::Past),
        any::<u64>().prop_map(Expiry::In)
    ]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=KEY_MAX)
}

fn terms() -> impl Strategy<Value = Terms> {
    let mode = prop_oneof![
        Just(Mode::Set),
        Just(Mode::Add),
        Just(Mode::Replace),
        Just(Mode::Append),
        Just(Mode::Prepend)
    ];
    let some = of(any::<u64>());
    (
        mode,
        any::<u32>(),
        expiry(),
        some.clone(),
        some,
        any::<bool>(),
        of(expiry()),
    )
        .prop_map(|(mode, flags, expiry, compare, new_cas, invalidate, vivify)| Terms {
            mode,
            flags,
            expiry,
            compare,
            new_cas,
            invalidate,
            vivify,
        })
}

/// A command on a key that is leaked: a few hundred bytes a case.
fn any_command() -> impl Strategy<Value = Command<'static>> {
    let key = || key().prop_map(|key| -> &'static [u8] { key.leak() });
    let some = || of(any::<u64>());
    prop_oneof![
        (key(), of(expiry()), of(expiry()), some(), any::<bool>(), some()).prop_map(
            |(key, touch, vivify, recache, is_peek, new_cas)| Command::Get(Get {
                key,
                touch,
                vivify,
                recache,
                is_peek,
                new_cas
            })
        ),
        (key(), terms(), vec(any::<u8>(), 0..2000)).prop_map(|(key, terms, value)| Command::Set(Set {
            terms,
            record: Record::new(key, &value, b"")
        })),
        (key(), some(), some(), of(of(expiry())), any::<bool>()).prop_map(
            |(key, compare, new_cas, invalidate, keep_item)| Command::Delete(Delete {
                key,
                compare,
                new_cas,
                invalidate,
                keep_item
            })
        ),
        (
            key(),
            any::<u64>(),
            any::<bool>(),
            some(),
            some(),
            of((any::<u64>(), expiry())),
            of(expiry())
        )
            .prop_map(
                |(key, delta, is_decrement, compare, new_cas, initial, touch)| Command::Arithmetic(Arithmetic {
                    key,
                    delta,
                    is_decrement,
                    compare,
                    new_cas,
                    initial,
                    touch
                })
            ),
        (key(), expiry()).prop_map(|(key, expiry)| Command::Touch { key, expiry }),
    ]
}

fn any_state() -> impl Strategy<Value = State> {
    let present = (
        key(),
        vec(any::<u8>(), 0..2000),
        any::<u32>(),
        any::<u64>(),
        of(any::<u64>()),
        any::<(bool, bool)>(),
    );
    prop_oneof![
        key().prop_map(|key| State::Absent(key.into())),
        present.prop_map(
            |(key, value, flags, cas, left, (is_stale, has_winner))| State::Present(Copy {
                record: Record::new(&key, &value, b""),
                flags,
                cas,
                left,
                is_stale,
                has_winner
            })
        ),
    ]
}

fn any_reply(key: &'static [u8]) -> impl Strategy<Value = Reply> {
    let hit = (
        vec(any::<u8>(), 0..2000),
        any::<(u32, u64, u32)>(),
        of(any::<u64>()),
        any::<[bool; 4]>(),
    );
    let hit = hit.prop_map(move |(value, (flags, cas, idle), left, marks)| Hit {
        record: Record::new(key, &value, b"").into(),
        flags,
        cas,
        left,
        idle,
        was_fetched: marks[0],
        is_stale: marks[1],
        is_winner: marks[2],
        had_winner: marks[3],
    });
    let number = (any::<(u64, u64)>(), of(any::<u64>()));
    prop_oneof![
        hit.prop_map(Reply::Hit),
        Just(Reply::Miss),
        any::<(u64, u32)>().prop_map(|(cas, size)| Reply::Stored {
            cas,
            size: size as usize
        }),
        Just(Reply::NotStored),
        Just(Reply::Exists),
        Just(Reply::NotFound),
        Just(Reply::Deleted),
        number.prop_map(|((value, cas), left)| Reply::Number(Number { value, cas, left })),
        Just(Reply::NotNumeric),
        Just(Reply::TooLarge),
        Just(Reply::Unavailable),
    ]
}

const EPOCH: Epoch = Epoch {
    term: Term {
        number: 3,
        mark: u64::MAX,
    },
    number: 300,
};

/// All decoders; what they make of it is not looked at, only that they return.
fn decode_all(bytes: &[u8]) {
    let _ = command::decode(&mut Reader(bytes)).map(drop);
    let (key, message) = (Bytes::from_static(b"k"), Bytes::copy_from_slice(bytes));
    let _ = reply::decode(&mut Reader(&message), || key.clone(), &message).map(drop);
    let _ = state::decode(&mut Reader(bytes)).map(drop);
    let _ = Receipt::decode(bytes);
    if let Ok((_, mut rest)) = message::open(&message) {
        let _ = Control::decode(&mut { rest });
        let _ = message::answer(&mut { rest }, || key.clone(), &message).map(drop);
        while !rest.is_empty() && message::asked(&mut rest).is_ok() {}
    }
    let mut rest = Reader(bytes);
    while !rest.is_empty() && message::note(&mut rest).is_ok() {}
}

proptest! {
    #[test]
    fn commands_cross(sent in vec((any::<u64>(), any_command()), 0..5)) {
        let mut ask = Ask::new(EPOCH);
        for (id, command) in &sent {
            ask.push(*id, Space::Composite, command);
        }
        let bytes = ask.finish();
        let (epoch, mut rest) = message::open(&bytes).unwrap();
        prop_assert_eq!(epoch, EPOCH);
        for (id, command) in &sent {
            let asked = message::asked(&mut rest).unwrap();
            prop_assert_eq!((asked.id, asked.space), (*id, Space::Composite));
            prop_assert_eq!(format!("{:?}", asked.command), format!("{command:?}"));
        }
        prop_assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            decode_all(&bytes[..cut]);
        }
    }

    #[test]
    fn a_plain_get_is_a_get(key in key()) {
        let [mut short, mut long] = [Ask::new(EPOCH), Ask::new(EPOCH)];
        short.push_get(Space::Portal, &key);
        long.push(NAMELESS, Space::Portal, &Command::Get(Get::plain(&key)));
        prop_assert_eq!(short.finish(), long.finish());
    }

    #[test]
    fn replies_cross(sent in vec(of(any_reply(b"key")), 0..5)) {
        let mut bytes = Vec::new();
        for answer in &sent {
            let encoded = answer.as_ref().map(|answer| {
                let mut out = Vec::new();
                reply::encode(answer, &mut out);
                out
            });
            message::put_answer(encoded.as_deref(), &mut bytes);
        }
        let (key, message) = (Bytes::from_static(b"key"), Bytes::from(bytes.clone()));
        let mut rest = Reader(&message);
        for answer in &sent {
            let got = message::answer(&mut rest, || key.clone(), &message).unwrap();
            prop_assert_eq!(format!("{got:?}"), format!("{answer:?}"));
        }
        prop_assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            decode_all(&bytes[..cut]);
        }
    }

    #[test]
    fn streams_cross(sent in vec(of((of(any_state()), of((any::<u64>(), vec(any::<u8>(), 0..50))))), 0..5), first: u64) {
        let notes: Vec<Option<Note>> = sent
            .into_iter()
            .map(|place| {
                place.map(|(state, request)| Note {
                    space: Space::Portal,
                    request: request.map(|(id, reply)| (id, reply.into())),
                    change: state.map_or(Change::Flush, Change::State),
                })
            })
            .collect();
        let mut states = States::new(EPOCH, first);
        for note in &notes {
            states.push(note.as_ref());
        }
        let bytes = states.finish();
        let (epoch, mut rest) = message::open(&bytes).unwrap();
        prop_assert_eq!((epoch, rest.number()), (EPOCH, Ok(first)));
        for note in &notes {
            prop_assert_eq!(&message::note(&mut rest).unwrap(), note);
        }
        prop_assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            decode_all(&bytes[..cut]);
        }
    }

    #[test]
    fn anything_may_come(bytes in vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
        for kind in 0..6 {
            decode_all(&[&[1, 0, 0, 0, kind][..], &bytes].concat());
            decode_all(&[&[kind][..], &bytes].concat());
        }
    }

    #[test]
    fn controls_and_receipts_cross(number: u64) {
        for control in [
            Control::Flush { space: Space::Composite, after: Some(number) },
            Control::Flush { space: Space::Portal, after: None },
            Control::Stats { space: Space::Portal },
        ] {
            let bytes = control.encode(EPOCH);
            let (_, mut rest) = message::open(&bytes).unwrap();
            prop_assert_eq!(Control::decode(&mut rest), Ok(control));
        }
        for receipt in [Receipt::Kept(number), Receipt::OtherEpoch] {
            prop_assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));
        }
    }
}

#[test]
fn another_version_is_refused() {
    let mut bytes = message::head(EPOCH);
    bytes[0] += 1;
    assert!(message::open(&bytes).is_err());
}
