//! What an external server answers is what the embedded store answers; and what becomes of items when a server goes and comes back.

use std::hash::RandomState;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::External;
use super::wire::{self, Decoded};
use crate::base::Scope;
use crate::base::service::Socket;
use crate::cache::client_tests::{PATIENCE, Running};
use crate::cache::command::{Arithmetic, Command, Delete, Get, Mode, Reply, Set, Terms};
use crate::cache::engine::{Engine, Limits};
use crate::cache::session::Session;
use crate::cache::store::{Expiry, Moment, Record, Store};
use crate::net::listen;

const LIMITS: Limits = Limits {
    max_connections: 1,
    workers: 1,
    tcp_port: 0,
};
/// Keys of the binary protocol may hold anything.
const KEYS: [&[u8]; 3] = [b"plain", b"with space\r\n", b"\x00\xff"];

#[derive(Clone, Debug)]
enum Step {
    Get(usize, Option<u64>, Option<u64>, bool),
    Touch(usize, u64),
    Set(usize, u8, Vec<u8>, u32, Option<u64>, bool),
    Delete(usize, Option<u64>, bool),
    Count(usize, bool, u64, Option<u64>),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let unique = proptest::option::of(0..12u64);
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (0..200u64).prop_map(|number| number.to_string().into_bytes()),
        Just(vec![b'x'; 5000]),
    ];
    prop_oneof![
        4 => (key.clone(), proptest::option::of(1..100u64), proptest::option::of(1..100u64), any::<bool>())
            .prop_map(|(key, touch, vivify, is_peek)| Step::Get(key, touch, vivify, is_peek)),
        1 => (key.clone(), 0..100u64).prop_map(|(key, seconds)| Step::Touch(key, seconds)),
        4 => (key.clone(), 0..5u8, value, any::<u32>(), unique.clone(), any::<bool>())
            .prop_map(|(key, mode, value, flags, unique, late)| Step::Set(key, mode, value, flags, unique, late)),
        1 => (key.clone(), unique, any::<bool>()).prop_map(|(key, unique, stale)| Step::Delete(key, unique, stale)),
        2 => (key, any::<bool>(), 0..50u64, proptest::option::of(0..50u64))
            .prop_map(|(key, down, delta, initial)| Step::Count(key, down, delta, initial)),
        1 => Just(Step::Flush),
    ]
}

fn expiry(seconds: u64) -> Expiry {
    match seconds {
        0 => Expiry::Never,
        // Over 30 days these travel as unix time.
        90.. => Expiry::In(seconds * 1_000_000_000),
        seconds => Expiry::In(seconds * 1000),
    }
}

impl Step {
    fn command(&self) -> Command<'static> {
        match self {
            Step::Get(key, touch, vivify, is_peek) => Command::Get(Get {
                touch: touch.map(expiry),
                vivify: vivify.map(expiry),
                recache: touch.map(|seconds| seconds * 1000),
                is_peek: *is_peek,
                ..Get::plain(KEYS[*key])
            }),
            Step::Touch(key, seconds) => Command::Touch {
                key: KEYS[*key],
                expiry: expiry(*seconds),
            },
            Step::Set(key, mode, value, flags, compare, invalidate) => Command::Set(Set {
                terms: Terms {
                    mode: [Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend][usize::from(*mode)],
                    flags: *flags,
                    expiry: expiry(u64::from(*flags % 100)),
                    compare: *compare,
                    new_cas: None,
                    invalidate: *invalidate,
                    vivify: invalidate.then_some(Expiry::Never),
                },
                record: Record::new(KEYS[*key], value, b""),
            }),
            Step::Delete(key, compare, is_stale) => Command::Delete(Delete {
                key: KEYS[*key],
                compare: *compare,
                new_cas: None,
                invalidate: is_stale.then_some(Some(Expiry::In(50_000))),
                keep_item: false,
            }),
            Step::Count(key, is_decrement, delta, initial) => Command::Arithmetic(Arithmetic {
                key: KEYS[*key],
                delta: *delta,
                is_decrement: *is_decrement,
                compare: None,
                new_cas: None,
                initial: initial.map(|value| (value, Expiry::In(20_000))),
                touch: None,
            }),
            Step::Flush => Command::Flush { after: None },
        }
    }
}

/// Sends a command through the wire to an engine; every cut of the reply must be no reply yet.
fn over_the_wire(engine: &Engine, command: &Command<'_>, moment: Moment) -> Reply {
    let mut bytes = Vec::new();
    let expected = wire::encode(command, moment, &mut bytes).expect("a server's command");
    let mut session = Session::default();
    session.receive(&bytes, engine, moment);
    let answer = session.output.take();
    for cut in (0..answer.len()).step_by(1 + answer.len() / 50) {
        assert!(
            matches!(wire::decode(&expected, &answer[..cut]), Decoded::Partial),
            "cut at {cut}"
        );
    }
    match wire::decode(&expected, &answer) {
        Decoded::Whole { size, reply } if size == answer.len() => reply,
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(&answer)),
    }
}

proptest! {
    #[test]
    fn external_server_answers_like_the_store(steps in proptest::collection::vec(step(), 1..60)) {
        let hasher = RandomState::new();
        let store = || Store::with_hasher(16 << 20, 1 << 20, hasher.clone());
        let (near, far) = (Engine::new(store(), LIMITS), Engine::new(store(), LIMITS));
        for (number, step) in (1..).zip(&steps) {
            let moment = Moment { now: number * 500, unix: 1_700_000_000_000 + number * 500 };
            let wanted = near.execute(step.command(), moment);
            let seen = over_the_wire(&far, &step.command(), moment);
            prop_assert_eq!(format!("{:?}", seen), format!("{:?}", shown(wanted, step)), "{:?}", step);
        }
    }

    #[test]
    fn no_reply_panics(answer in proptest::collection::vec(prop_oneof![Just(b' '), Just(b'\r'), Just(b'\n'), Just(b'V'), Just(b'A'), any::<u8>()], 0..60), step in step()) {
        let expected = wire::encode(&step.command(), MOMENT, &mut Vec::new()).expect("a server's command");
        if let Decoded::Whole { size, .. } = wire::decode(&expected, &answer) {
            prop_assert!(size <= answer.len());
        }
    }
}

const MOMENT: Moment = Moment { now: 0, unix: 0 };

/// The near reply without what the wire does not carry.
fn shown(reply: Reply, step: &Step) -> Reply {
    match (reply, step) {
        // A touch asks for no value, and only `mg` tells how long nobody has asked.
        (Reply::Touched(hit), Step::Touch(key, _)) => Reply::Touched(crate::cache::command::Hit {
            record: Record::new(KEYS[*key], b"", b""),
            idle: 0,
            was_fetched: false,
            ..hit
        }),
        (other, _) => other,
    }
}

fn get(key: &'static [u8]) -> Command<'static> {
    Command::Get(Get::plain(key))
}

fn set(key: &[u8], value: &[u8]) -> Command<'static> {
    Command::Set(Set {
        terms: Terms {
            mode: Mode::Set,
            flags: 7,
            expiry: Expiry::Never,
            compare: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
        },
        record: Record::new(key, value, b""),
    })
}

fn cache_at(address: SocketAddr) -> Running {
    let listener = listen::tcp(address).expect("the port is free again");
    Running::on("", Socket::Tcp(listener))
}

async fn value(external: &External, key: &'static [u8]) -> Option<Vec<u8>> {
    match external.execute(get(key), MOMENT).await {
        Reply::Hit(hit) => Some(hit.record.value().to_vec()),
        Reply::Miss => None,
        other => panic!("a read is a hit or a miss: {other:?}"),
    }
}

#[tokio::test]
async fn many_commands_under_way_are_answered_in_order() {
    let running = Running::start("");
    let scope = Scope::new();
    let external = External::new([running.address], &scope);
    let large = vec![b'x'; 700_000];
    assert!(matches!(
        external.execute(set(b"large", &large), MOMENT).await,
        Reply::Stored { .. }
    ));
    let keys: Vec<&'static [u8]> = (0..300)
        .map(|number| &*format!("key {number}").leak())
        .map(str::as_bytes)
        .collect();
    let writes = keys.iter().map(|key| external.execute(set(key, key), MOMENT));
    for reply in futures_util::future::join_all(writes).await {
        assert!(matches!(reply, Reply::Stored { .. }), "{reply:?}");
    }
    let reads = keys.iter().map(|key| async {
        (
            value(&external, b"large").await.map(|value| value.len()),
            value(&external, key).await,
        )
    });
    for (key, (length, value)) in keys.iter().zip(futures_util::future::join_all(reads).await) {
        assert_eq!((length, value.as_deref()), (Some(large.len()), Some(*key)));
    }
    assert!(matches!(
        external.execute(Command::Flush { after: None }, MOMENT).await,
        Reply::Done
    ));
    assert_eq!(value(&external, b"large").await, None);
    scope.stop(PATIENCE).await;
    running.stop().await;
}

#[tokio::test]
async fn server_that_was_lost_is_emptied_before_it_is_asked_again() {
    let first = Running::start("");
    let address = first.address;
    let scope = Scope::new();
    let external = External::new([address], &scope);
    assert!(matches!(
        external.execute(set(b"k", b"old"), MOMENT).await,
        Reply::Stored { .. }
    ));
    assert_eq!(value(&external, b"k").await.as_deref(), Some(&b"old"[..]));
    // Its own client, which is not told that the server goes.
    first.scope.stop(Duration::ZERO).await;
    let refused = external.execute(set(b"k", b"new"), MOMENT).await;
    assert!(
        matches!(refused, Reply::Refused(text) if text.starts_with("SERVER_ERROR")),
        "{refused:?}"
    );
    assert_eq!(value(&external, b"k").await, None, "a failed read is a miss");
    let second = cache_at(address);
    let other = Scope::new();
    let another = External::new([address], &other);
    assert!(matches!(
        another.execute(set(b"k", b"from before"), MOMENT).await,
        Reply::Stored { .. }
    ));
    let back = async {
        while !external.is_up() {
            assert_eq!(value(&external, b"k").await, None, "nothing from before is shown");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back)
        .await
        .expect("the server comes back");
    assert_eq!(value(&external, b"k").await, None);
    for scope in [scope, other] {
        scope.stop(PATIENCE).await;
    }
    second.scope.stop(Duration::ZERO).await;
}
