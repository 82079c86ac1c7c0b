//! Random changes: the image in SQLite and the pure view stay the same, whatever happens.

use proptest::prelude::*;

use super::image;
use super::record::{Cluster, Node, NodeState, Record, Role, Setting, Token};
use super::view::{Stamp, View};
use super::{Change, Error, Guard, Key, Write};

fn name() -> impl Strategy<Value = String> {
    "[a-c]{1,2}"
}

fn record() -> impl Strategy<Value = Record> {
    let text = "[ -~а-я']{0,20}";
    let labels = prop::collection::btree_map(name(), text, 0..3);
    prop_oneof![
        (name(), text).prop_map(|(name, certificate)| Record::Cluster(Cluster { name, certificate })),
        (name(), text, 0..4_usize, labels, text).prop_map(|(name, address, state, labels, version)| {
            let state = NodeState::ALL[state];
            Record::Node(Node {
                name,
                address,
                state,
                labels,
                version,
            })
        }),
        (
            name(),
            prop::sample::select(vec!["", "a"]),
            prop::option::of(name()),
            0..5_u64
        )
            .prop_map(|(role, seat, holder, epoch)| {
                let seat = seat.to_string();
                Record::Role(Role {
                    role,
                    seat,
                    holder,
                    epoch,
                })
            }),
        (name(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(id, hash, expires)| Record::Token(Token {
            id,
            hash,
            expires
        })),
        (name(), text).prop_map(|(key, value)| Record::Setting(Setting { key, value })),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let guard = prop_oneof![
        record().prop_map(Guard::Is),
        record().prop_map(|record| Guard::Absent(record.key())),
        (0..20_u64).prop_map(Guard::Revision),
    ];
    let write = prop_oneof![
        5 => record().prop_map(Write::Put),
        2 => record().prop_map(|record| Write::Remove(record.key())),
        1 => "[a-z]{0,9}".prop_map(Write::Event),
    ];
    // Guards seldom hold: few changes have one.
    let guards = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(guard, 1..2)];
    (guards, prop::collection::vec(write, 0..4)).prop_map(|(guards, writes)| Change { guards, writes })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn image_and_view_agree_over_any_changes(changes in prop::collection::vec(change(), 1..25)) {
        let (mut bytes, mut view) = (None, View::default());
        for (number, change) in changes.iter().enumerate() {
            let stamp = Stamp { author: "n1".into(), time: number as u64, attempt: 1000 + number as u64, kept: 5 };
            match image::next(bytes.as_deref(), &view, change, &stamp) {
                Ok((next, made)) => {
                    prop_assert_eq!(&made, &view.apply(change, &stamp).unwrap());
                    prop_assert_eq!(made.revision, view.revision + 1);
                    (bytes, view) = (Some(next), made);
                }
                Err(error) => {
                    prop_assert!(matches!(error, Error::Stale(_) | Error::Invalid(_)), "{}", error);
                    prop_assert!(view.apply(change, &stamp).is_err());
                }
            }
            if let Some(bytes) = &bytes {
                prop_assert_eq!(&image::view(bytes).unwrap(), &view);
            }
        }
        let held = view.get(&Key::Cluster).is_some();
        prop_assert_eq!(held, view.cluster().is_some());
    }
}
