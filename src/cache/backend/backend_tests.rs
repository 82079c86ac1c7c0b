//! Against a real memcached: answers are those of the embedded store and of memcached itself. What comes of a loss is in `loss_tests`.

use std::hash::RandomState;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::memcached_tests::{Memcached, own_address, until};
use super::*;
use crate::base::{Health, Service};
use crate::cache::class::Class;
use crate::cache::client_tests::{PATIENCE, Running};
use crate::cache::command::{Arithmetic, Command, Delete, Get, Mode, Reply, Set, Terms};
use crate::cache::peer::Space;
use crate::cache::router::{OnKey, Order, Work};
use crate::cache::store::{Copy, Expiry, Record, State};
use crate::host::command::Program;

/// One that the binary protocol may have, one that needs a digest, and one that only looks as if it did.
const KEYS: [&[u8]; 4] = [b"plain", b"with space\r\n\xff", &[b'l'; 250], &[0; 33]];

/// With a server that is slow because the machine is busy.
const SERVER_PATIENCE: Duration = Duration::from_secs(4);

pub struct Far {
    pub backend: Arc<Backend>,
    bench: Arc<Store>,
    clock: Clock,
    scope: Scope,
}

impl Far {
    pub async fn new(address: SocketAddr, hasher: RandomState) -> Self {
        let (scope, clock) = (Scope::new(), Clock::default());
        let bench = Arc::new(Store::with_hasher(16 << 20, 1 << 20, hasher));
        let parts = Parts {
            address,
            patience: SERVER_PATIENCE,
            bench: bench.clone(),
            rules: Rules::new(&["s."]),
            clock,
        };
        let backend = Backend::new(parts, &scope);
        let far = Far {
            backend,
            bench,
            clock,
            scope,
        };
        far.until_up(true).await;
        far
    }

    pub async fn until_up(&self, is_up: bool) {
        let mut seen = self.backend.seen();
        let changed = seen.wait_for(|seen| seen.is_up == is_up);
        tokio::time::timeout(PATIENCE, changed)
            .await
            .expect("in time")
            .expect("it lives");
    }

    pub async fn run(&self, work: Work) -> Reply {
        let mut orders = [Order::new(Space::Portal, work)];
        self.backend.perform(&mut orders, usize::MAX).await;
        let [order] = orders;
        order.reply.expect("answered")
    }

    pub async fn execute(&self, command: &Command<'_>) -> Reply {
        self.run(self.work(command)).await
    }

    fn work(&self, command: &Command<'_>) -> Work {
        let shard = self.backend.rules().shard(command.key().expect("it has a key"));
        let on_key = OnKey::new(0, shard, command, bytes::Bytes::copy_from_slice);
        Work::Key(on_key.expect("it has a key"))
    }

    pub async fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.execute(&Command::Get(Get::plain(key))).await {
            Reply::Hit(hit) => Some(hit.record.value().to_vec()),
            Reply::Miss => None,
            other => panic!("a read is a hit or a miss: {other:?}"),
        }
    }

    pub async fn stop(self) {
        assert!(self.scope.stop(PATIENCE).await);
    }
}

fn present(record: Record) -> State {
    State::Present(Copy {
        record,
        flags: 0,
        cas: 1,
        left: None,
        is_stale: false,
        has_winner: false,
    })
}

pub fn set(key: &[u8], value: &[u8], expiry: Expiry) -> Command<'static> {
    Command::Set(Set {
        terms: Terms {
            mode: Mode::Set,
            flags: 7,
            expiry,
            compare: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
        },
        record: Record::new(key, value, b""),
    })
}

#[derive(Clone, Debug)]
enum Step {
    Get(usize, Option<u64>, Option<u64>, bool),
    Touch(usize, u64),
    Set(usize, usize, Vec<u8>, u32, Option<u64>, bool),
    Delete(usize, Option<u64>, bool, bool),
    Count(usize, bool, u64, Option<u64>, Option<u64>),
    Flush,
}

/// Uniques are counted from here.
const FIRST_UNIQUE: u64 = 5_000;

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let unique = proptest::option::of(FIRST_UNIQUE..FIRST_UNIQUE + 60);
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (0..200u64).prop_map(|number| number.to_string().into_bytes()),
        Just(vec![b'x'; 70_000]),
    ];
    let seconds = || proptest::option::of(40..100u64);
    prop_oneof![
        6 => (key.clone(), seconds(), seconds(), any::<bool>())
            .prop_map(|(key, touch, vivify, is_peek)| Step::Get(key, touch, vivify, is_peek)),
        1 => (key.clone(), 40..100u64).prop_map(|(key, seconds)| Step::Touch(key, seconds)),
        6 => (key.clone(), 0..5usize, value, any::<u32>(), unique.clone(), any::<bool>())
            .prop_map(|(key, mode, value, flags, unique, late)| Step::Set(key, mode, value, flags, unique, late)),
        2 => (key.clone(), unique.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(key, unique, stale, keeps)| Step::Delete(key, unique, stale, keeps)),
        3 => (key, any::<bool>(), 0..50u64, proptest::option::of(0..50u64), unique)
            .prop_map(|(key, down, delta, initial, unique)| Step::Count(key, down, delta, initial, unique)),
        1 => Just(Step::Flush),
    ]
}

fn seconds(count: u64) -> Expiry {
    match count {
        99 => Expiry::Never,
        98 => Expiry::Past,
        count => Expiry::In(count * 1000),
    }
}

impl Step {
    fn command(&self) -> Command<'static> {
        match self {
            Step::Get(key, touch, vivify, is_peek) => Command::Get(Get {
                touch: touch.map(seconds),
                vivify: vivify.map(seconds),
                recache: touch.map(|seconds| seconds * 700),
                is_peek: *is_peek,
                ..Get::plain(KEYS[*key])
            }),
            Step::Touch(key, count) => Command::Touch {
                key: KEYS[*key],
                expiry: seconds(*count),
            },
            Step::Set(key, mode, value, flags, compare, invalidate) => Command::Set(Set {
                terms: Terms {
                    mode: [Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend][*mode],
                    flags: *flags,
                    expiry: seconds(40 + u64::from(*flags % 60)),
                    compare: *compare,
                    new_cas: None,
                    invalidate: *invalidate,
                    vivify: invalidate.then_some(Expiry::Never),
                },
                record: Record::new(KEYS[*key], value, b""),
            }),
            Step::Delete(key, compare, is_stale, keep_item) => Command::Delete(Delete {
                key: KEYS[*key],
                compare: *compare,
                new_cas: None,
                invalidate: is_stale.then_some(Some(Expiry::In(50_000))),
                keep_item: *keep_item,
            }),
            Step::Count(key, is_decrement, delta, initial, compare) => Command::Arithmetic(Arithmetic {
                key: KEYS[*key],
                delta: *delta,
                is_decrement: *is_decrement,
                compare: *compare,
                new_cas: None,
                initial: initial.map(|value| (value, Expiry::In(60_000))),
                touch: None,
            }),
            Step::Flush => Command::Flush { after: None },
        }
    }
}

/// Without what the server counts by itself. Time passes between two executions: seconds left may differ by one.
fn shown(mut reply: Reply) -> (String, u64) {
    let left = match &mut reply {
        Reply::Hit(hit) | Reply::Touched(hit) => {
            (hit.was_fetched, hit.idle) = (false, 0);
            hit.left.take()
        }
        Reply::Number(number) => number.left.take(),
        _ => None,
    };
    (format!("{reply:?}"), left.unwrap_or(u64::MAX / 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_embedded_store() {
    let memcached = Memcached::start(own_address());
    let hasher = RandomState::new();
    let far = Far::new(memcached.address, hasher.clone()).await;
    let near = Store::with_hasher(16 << 20, 1 << 20, hasher);
    for store in [&near, &*far.bench] {
        store.count_uniques_from(FIRST_UNIQUE);
    }
    let mut runner = TestRunner::deterministic();
    let strategy = step();
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for number in 0..3000 {
        let step = strategy.new_tree(&mut runner).expect("a step").current();
        let wanted = near
            .execute(step.command(), far.clock.moment().now)
            .expect("the store's");
        let seen = match step {
            Step::Flush => far.run(Work::Flush { after: None }).await,
            _ => far.execute(&step.command()).await,
        };
        let (wanted, seen) = (shown(wanted), shown(seen));
        assert_eq!(seen.0, wanted.0, "{number}: {step:?}");
        assert!(
            seen.1.abs_diff(wanted.1) <= 1,
            "{number}: {step:?}: {seen:?} {wanted:?}"
        );
        let kind = wanted.0.split([' ', '(', '{']).next().unwrap_or_default();
        *kinds.entry(kind.to_string()).or_default() += 1;
    }
    // All that can come of a command came.
    for kind in [
        "Hit",
        "Miss",
        "Stored",
        "NotStored",
        "Exists",
        "NotFound",
        "Deleted",
        "Touched",
        "Number",
        "NotNumeric",
    ] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 5), "{kind}: {kinds:?}");
    }
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lives_end_to_the_millisecond_and_the_server_frees_later() {
    let memcached = Memcached::start(own_address());
    let far = Far::new(memcached.address, RandomState::new()).await;
    far.execute(&set(b"short", b"v", Expiry::In(300))).await;
    far.execute(&set(b"counter", b"1", Expiry::In(60_000))).await;
    assert_eq!(far.value(b"short").await.as_deref(), Some(&b"v"[..]));
    until(|| async { far.value(b"short").await.is_none() }).await;
    // A change leaves the end where it was.
    let sum = Arithmetic {
        key: b"counter",
        delta: 1,
        is_decrement: false,
        compare: None,
        new_cas: None,
        initial: None,
        touch: None,
    };
    let mut lefts = Vec::new();
    for _ in 0..200 {
        match far.execute(&Command::Arithmetic(sum)).await {
            Reply::Number(number) => lefts.push(number.left.expect("it ends")),
            other => panic!("{other:?}"),
        }
    }
    assert!(lefts.is_sorted_by(|one, other| one >= other), "{lefts:?}");
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_under_way_are_answered_in_order() {
    let memcached = Memcached::start(own_address());
    let far = Far::new(memcached.address, RandomState::new()).await;
    let order = |command: &Command<'_>| Order::new(Space::Portal, far.work(command));
    let large = vec![b'x'; 700_000];
    let mut orders = vec![order(&set(b"large", &large, Expiry::Never))];
    for number in 0..300 {
        let key = format!("key {number}").into_bytes();
        for value in [&b"first"[..], &key] {
            orders.push(order(&set(&key, value, Expiry::Never)));
        }
        orders.push(order(&Command::Get(Get::plain(&key))));
        orders.push(order(&Command::Get(Get::plain(b"large"))));
    }
    let mut rounds = 0;
    while orders.iter().any(|order| order.reply.is_none()) {
        far.backend.perform(&mut orders, 256 << 10).await;
        rounds += 1;
    }
    assert!(rounds > 50, "large replies are told in between: {rounds}");
    for (number, chunk) in orders[1..].chunks(4).enumerate() {
        let key = format!("key {number}").into_bytes();
        match chunk.iter().map(|order| order.reply.as_ref()).collect::<Vec<_>>()[..] {
            [
                Some(Reply::Stored { .. }),
                Some(Reply::Stored { .. }),
                Some(Reply::Hit(own)),
                Some(Reply::Hit(big)),
            ] => {
                assert_eq!((own.record.value(), big.record.value().len()), (&key[..], large.len()));
            }
            ref other => panic!("{other:?}"),
        }
    }
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_finds_all_that_lasts_while_others_write() {
    let memcached = Memcached::start(own_address());
    let far = Far::new(memcached.address, RandomState::new()).await;
    let keys: Vec<Vec<u8>> = (0..5000).map(|number| format!("k {number}").into_bytes()).collect();
    let put = |prefix: &'static str| {
        let mut puts = Puts::default();
        for key in &keys {
            let record = Record::new(&[prefix.as_bytes(), key].concat(), b"value", b"");
            far.backend.gather(present(record), &mut puts);
        }
        far.backend.put(puts)
    };
    assert_eq!(put("s.").await, Ok(()));
    assert_eq!(put("dropped").await, Ok(()));
    far.backend.void(|_, class| class == Class::Bulk);
    let walk = async {
        let mut found = 0;
        for name in far.backend.names(|_| true).await.expect("it walks") {
            let looked = far.backend.look(&name).await.expect("it answers");
            found += usize::from(looked.is_some_and(|state| state.key().starts_with(b"s.k")));
        }
        found
    };
    let (found, _) = tokio::join!(walk, put("other"));
    assert_eq!(found, keys.len());
    far.stop().await;
}

/// A cache that keeps its items in that memcached.
async fn cache_over(memcached: &Memcached, more: &str) -> Running {
    let running = Running::start(&format!("[cache]\nbackend = \"{}\"\n{more}", memcached.address));
    until(|| async { running.cache.status().health == Health::Good }).await;
    running
}

struct Client(TcpStream);

impl Client {
    async fn new(address: SocketAddr) -> Self {
        Client(TcpStream::connect(address).await.expect("it listens"))
    }

    /// What is answered before the answer to `mn`.
    async fn ask(&mut self, request: &[u8]) -> String {
        let whole = [request, b"mn\r\n"].concat();
        self.0.write_all(&whole).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"MN\r\n") {
            let read = tokio::time::timeout(PATIENCE, self.0.read_buf(&mut answer)).await;
            assert!(read.expect("in time").expect("read") > 0, "closed");
        }
        answer.truncate(answer.len() - b"MN\r\n".len());
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Lines of the classic protocol on a few keys.
fn lines() -> impl Strategy<Value = String> {
    let key = || prop_oneof![Just("a"), Just("bb"), Just("s.1")];
    let verb = prop_oneof![Just("set"), Just("add"), Just("replace")];
    // Not of keys that are counted: memcached counts what begins with a number and a space, the embedded store does not.
    let join = prop_oneof![Just("append"), Just("prepend"), Just("set"), Just("get")];
    let value = prop_oneof!["[a-z]{0,20}", (0..3000u32).prop_map(|number| number.to_string())];
    prop_oneof![
        4 => (verb, key(), 0..9u32, prop_oneof![Just(0i64), Just(100), Just(-1)], value).prop_map(
            |(verb, key, flags, time, value)| format!("{verb} {key} {flags} {time} {}\r\n{value}\r\n", value.len())),
        3 => (join, "[a-z]{0,20}").prop_map(|(verb, value)| match verb {
            "get" => "get joined\r\n".to_string(),
            verb => format!("{verb} joined 3 0 {}\r\n{value}\r\n", value.len()),
        }),
        4 => (key(), key()).prop_map(|(one, other)| format!("get {one} {other}\r\n")),
        1 => key().prop_map(|key| format!("gat 200 {key}\r\n")),
        1 => key().prop_map(|key| format!("touch {key} 100\r\n")),
        1 => key().prop_map(|key| format!("delete {key}\r\n")),
        2 => (key(), 0..90u32).prop_map(|(key, delta)| format!("incr {key} {delta}\r\n")),
        2 => (key(), 0..90u32).prop_map(|(key, delta)| format!("decr {key} {delta}\r\n")),
        1 => key().prop_map(|key| format!("mg {key} v f t s k\r\n")),
        1 => key().prop_map(|key| format!("md {key} q\r\n")),
        1 => (key(), 0..90u32).prop_map(|(key, delta)| format!("ma {key} N100 J5 D{delta} v\r\n")),
        1 => Just("flush_all\r\n".to_string()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_memcached() {
    let (behind, beside) = (Memcached::start(own_address()), Memcached::start(own_address()));
    beside.until_open().await;
    let running = cache_over(&behind, "").await;
    let mut ours = Client::new(running.address).await;
    let mut theirs = Client::new(beside.address).await;
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::collection::vec(lines(), 1..12);
    for number in 0..400 {
        let batch = strategy.new_tree(&mut runner).expect("lines").current().concat();
        let (seen, wanted) = tokio::join!(ours.ask(batch.as_bytes()), theirs.ask(batch.as_bytes()));
        assert_eq!(seen, wanted, "{number}: {batch}");
    }
    drop(ours);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memccapable_is_content_over_a_server() {
    let memcached = Memcached::start(own_address());
    let running = cache_over(&memcached, "").await;
    let output = Program::new("/usr/bin/memccapable")
        .args(["-h", "127.0.0.1", "-p", &running.address.port().to_string()])
        .run(PATIENCE)
        .await
        .expect("runs");
    let report = format!("{}{}", output.output, output.errors);
    assert_eq!(report.matches("[pass]").count(), 54, "{report}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_the_servers_and_its_loss_is_seen() {
    let memcached = Memcached::start(own_address());
    let running = cache_over(&memcached, "").await;
    let mut client = Client::new(running.address).await;
    assert_eq!(
        client.ask(b"set k1 0 0 5\r\nvalue\r\nset s.2 0 50 1\r\nv\r\n").await,
        "STORED\r\nSTORED\r\n"
    );
    let too_large = format!("set k1 0 0 2000000\r\n{}\r\n", "x".repeat(2_000_000));
    assert!(
        client
            .ask(too_large.as_bytes())
            .await
            .starts_with("SERVER_ERROR object too large")
    );
    assert_eq!(client.ask(b"get k1\r\n").await, "END\r\n", "the old one is gone");
    client.ask(b"set k1 0 0 5\r\nvalue\r\n").await;
    let mut stats = String::new();
    let budget = format!("STAT limit_maxbytes {}\r\n", Memcached::MEMORY);
    let began = tokio::time::Instant::now();
    while !(stats.contains("STAT curr_items 2\r\n") && stats.contains(&budget)) {
        assert!(began.elapsed() < PATIENCE, "{stats}");
        stats = client.ask(b"stats\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        !stats.contains("STAT bytes 0\r\n") && !stats.contains("STAT uptime 0\r\n"),
        "{stats}"
    );
    let mut dump = client.ask(b"stats cachedump 1 0\r\n").await;
    let mut items: Vec<&str> = dump.trim_end().lines().collect();
    items.sort_unstable();
    assert!(
        matches!(items[..], ["END", one, other]
        if one == "ITEM k1 [5 b; 0 s]" && other.starts_with("ITEM s.2 [1 b; ")),
        "{dump}"
    );
    dump = client.ask(b"stats cachedump 2 0\r\n").await;
    assert_eq!(dump, "END\r\n");
    let address = memcached.address.to_string();
    drop(memcached);
    until(|| async { running.cache.status().health == Health::Degraded }).await;
    assert!(running.cache.status().detail.contains(&address));
    assert_eq!(client.ask(b"get k1\r\n").await, "END\r\n");
    assert!(client.ask(b"set k1 0 0 1\r\nv\r\n").await.starts_with("SERVER_ERROR "));
    drop(client);
    running.stop().await;
}
