//! Conversations, byte for byte, as memcached 1.6.18 has them; whole, cut at every offset, and from clients that mean ill.

use std::hash::RandomState;

use proptest::prelude::*;

use super::conversation_tests::{FLAGS_7, META, TEXT, answer, binary_conversation, packet};
use super::engine::{Engine, Limits};
use super::session::{OUTPUT_HIGH, Session};
use super::store::{Moment, Store};

const MOMENT: Moment = Moment {
    now: 1_000_000,
    unix: 1_700_000_000_000,
};

fn engine(hasher: RandomState) -> Engine {
    let limits = Limits {
        max_connections: 10,
        workers: 2,
        tcp_port: 11211,
    };
    Engine::new(Store::with_hasher(64 << 20, 1 << 20, hasher), limits)
}

fn later(millis: u64) -> Moment {
    Moment {
        now: MOMENT.now + millis,
        unix: MOMENT.unix + millis,
    }
}

/// A client that takes everything at once.
struct Talk {
    engine: Engine,
    session: Session,
}

impl Talk {
    fn new() -> Self {
        Self::with(&RandomState::new())
    }

    /// Talks with the same hasher see the same uniques.
    fn with(hasher: &RandomState) -> Self {
        Talk {
            engine: engine(hasher.clone()),
            session: Session::default(),
        }
    }

    fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.say_at(bytes, MOMENT)
    }

    fn say_at(&mut self, bytes: &[u8], moment: Moment) -> Vec<u8> {
        // Into a value's own room where a connection would read there.
        let direct = self.session.room().map_or(0, |room| {
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            count
        });
        if direct > 0 {
            self.session.filled(direct, &self.engine, moment);
        }
        self.session.receive(&bytes[direct..], &self.engine, moment);
        let mut replies = Vec::new();
        while !self.session.output.is_empty() {
            replies.extend(self.session.output.take());
            self.session.resume(&self.engine, moment);
        }
        replies
    }
}

/// Blanks the uniques of replies that ask for it with `?`, because they depend on the shard.
fn masked(mut bytes: Vec<u8>, wanted: &[u8]) -> Vec<u8> {
    for (byte, wanted) in bytes.iter_mut().zip(wanted) {
        if *wanted == b'?' {
            *byte = b'?';
        }
    }
    bytes
}

#[test]
fn text_conversation_is_memcacheds() {
    for lines in [TEXT, META] {
        let mut talk = Talk::new();
        for (request, reply) in lines {
            let got = talk.say(request.as_bytes());
            assert_eq!(String::from_utf8_lossy(&got), *reply, "{request:?}");
        }
    }
}

#[test]
fn binary_conversation_is_memcacheds() {
    let mut talk = Talk::new();
    for (request, reply) in binary_conversation() {
        let got = masked(talk.say(&request), &reply);
        assert_eq!(
            got.escape_ascii().to_string(),
            reply.escape_ascii().to_string(),
            "{:x?}",
            &request[..2]
        );
    }
    assert!(talk.session.is_closed(), "the last one was quit");
}

#[test]
fn replies_do_not_depend_on_where_the_input_is_cut() {
    let join = |pairs: &[(&str, &str)]| -> Vec<u8> { pairs.iter().flat_map(|pair| pair.0.bytes()).collect() };
    let binary: Vec<u8> = binary_conversation().into_iter().flat_map(|pair| pair.0).collect();
    for all in [join(TEXT), join(META), binary] {
        let hasher = RandomState::new();
        let replies = |cuts: &[usize]| {
            let (mut talk, mut from, mut got) = (Talk::with(&hasher), 0, Vec::new());
            for cut in cuts.iter().chain([&all.len()]) {
                got.extend(talk.say(&all[from..*cut]));
                from = *cut;
            }
            got.escape_ascii().to_string()
        };
        let whole = replies(&[]);
        for cut in 0..all.len() {
            assert_eq!(replies(&[cut]), whole, "cut at {cut}");
        }
        let every: Vec<usize> = (0..all.len()).collect();
        assert_eq!(replies(&every), whole, "byte by byte");
    }
}

#[test]
fn too_large_value_is_dropped_and_takes_the_old_one_with_it() {
    let large = vec![b'x'; 1 << 20];
    let mut talk = Talk::new();
    talk.say(b"set a 0 0 1\r\n1\r\nset b 0 0 1\r\n1\r\n");
    let mut request = format!("set a 0 0 {}\r\n", large.len()).into_bytes();
    request.extend(&large);
    request.extend(b"\r\nget a\r\n");
    assert_eq!(
        talk.say(&request),
        b"SERVER_ERROR object too large for cache\r\nEND\r\n"
    );
    let quiet = String::from_utf8_lossy(&request).replace("\r\nx", " noreply\r\nx");
    assert_eq!(talk.say(quiet.as_bytes()), b"END\r\n");
    let add = String::from_utf8_lossy(&request)
        .replace("set a", "add b")
        .replace("get a", "get b");
    let reply = b"SERVER_ERROR object too large for cache\r\nVALUE b 0 1\r\n1\r\nEND\r\n";
    assert_eq!(talk.say(add.as_bytes()), reply);
    let mut binary = Talk::new();
    let request = [packet(0x01, b"a", &FLAGS_7, &large, 0), packet(0x0a, b"", b"", b"", 0)].concat();
    let reply = [
        answer(0x01, 3, b"", b"", b"Too large.", 0),
        answer(0x0a, 0, b"", b"", b"", 0),
    ]
    .concat();
    assert_eq!(binary.say(&request), reply);
}

#[test]
fn keys_end_at_250_bytes() {
    let (longest, longer) = ("k".repeat(250), "k".repeat(251));
    let mut talk = Talk::new();
    for line in [
        "get {}",
        "get a {}",
        "gat 1 {}",
        "incr {} 1",
        "delete {}",
        "touch {} 1",
        "mg {}",
        "md {}",
        "ma {}",
    ] {
        let reply = talk.say(format!("{}\r\n", line.replace("{}", &longer)).as_bytes());
        assert_eq!(reply, b"CLIENT_ERROR bad command line format\r\n", "{line}");
        let reply = talk.say(format!("{}\r\n", line.replace("{}", &longest)).as_bytes());
        assert!(!reply.starts_with(b"CLIENT_ERROR"), "{line}");
    }
    let mut binary = Talk::new();
    let refusal = answer(0x00, 4, b"", b"", b"Invalid arguments", 0);
    assert_eq!(binary.say(&packet(0x00, longer.as_bytes(), b"", b"", 0)), refusal);
    assert!(binary.session.is_closed());
}

#[test]
fn hopeless_input_ends_the_conversation() {
    let long_get = [b"get ".to_vec(), b"key ".repeat(1 << 18)].concat();
    for input in [
        &b"x".repeat(3000)[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nflush_all\r\n",
        &long_get,
    ] {
        let mut talk = Talk::new();
        assert_eq!(talk.say(input), b"");
        assert!(talk.session.is_closed());
    }
    for broken in [
        [&packet(0x0a, b"", b"", b"", 0)[..], b"get a\r\n"].concat(),
        packet(0x00, b"", b"", b"", 0),
        packet(0x01, b"a", b"", b"v", 0),
        packet(0x05, b"a", b"12345678", b"", 0),
        packet(0x0a, b"x", b"", b"", 0),
    ] {
        let mut talk = Talk::new();
        talk.say(&broken);
        assert!(talk.session.is_closed(), "{broken:x?}");
    }
}

#[test]
fn long_get_of_many_keys_is_answered() {
    let mut talk = Talk::new();
    talk.say(b"set a 0 0 1\r\n1\r\n");
    let line = format!("get {}\r\n", "a ".repeat(3000));
    let reply = talk.say(line.as_bytes());
    assert_eq!(reply.len(), 3000 * "VALUE a 0 1\r\n1\r\n".len() + "END\r\n".len());
}

#[test]
fn client_that_does_not_read_is_not_served_on() {
    let mut talk = Talk::new();
    let value = "v".repeat(100_000);
    talk.say(format!("set a 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
    let gets = format!("get {}\r\n", "a ".repeat(500)) + &"get a\r\n".repeat(500);
    talk.session.receive(gets.as_bytes(), &talk.engine, MOMENT);
    assert!(talk.session.is_full());
    let waiting = talk.session.output.len();
    assert!(waiting < OUTPUT_HIGH + value.len() + 100, "{waiting} bytes wait");
    let reads = talk.engine.store.shards().map(|(_, sum)| sum.get_hits).sum::<u64>();
    assert!(reads < 10, "{reads} reads were served ahead");
    let mut total = 0;
    while !talk.session.output.is_empty() {
        assert!(talk.session.output.len() < OUTPUT_HIGH + value.len() + 100);
        total += talk.session.output.take().len();
        talk.session.resume(&talk.engine, MOMENT);
    }
    let one = "VALUE a 0 100000\r\n".len() + value.len() + 2;
    assert_eq!(total, 1000 * one + 501 * "END\r\n".len());
    assert!(talk.session.is_idle());
}

#[test]
fn items_end_when_they_should() {
    let mut talk = Talk::new();
    talk.say(b"set a 0 2 1\r\n1\r\nset b 0 1700000003 1\r\n1\r\nset c 0 1699999999 1\r\n1\r\n");
    assert_eq!(
        talk.say(b"get a b c\r\n"),
        b"VALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n1\r\nEND\r\n"
    );
    assert_eq!(talk.say_at(b"get a\r\n", later(1999)), b"VALUE a 0 1\r\n1\r\nEND\r\n");
    assert_eq!(talk.say_at(b"get a\r\n", later(2000)), b"END\r\n");
    assert_eq!(talk.say_at(b"get b\r\n", later(2999)), b"VALUE b 0 1\r\n1\r\nEND\r\n");
    assert_eq!(talk.say_at(b"get b\r\n", later(3000)), b"END\r\n");
    talk.say(b"set d 0 0 1\r\n1\r\n");
    assert_eq!(talk.say(b"flush_all 5\r\n"), b"OK\r\n");
    assert_eq!(talk.say_at(b"get d\r\n", later(4999)), b"VALUE d 0 1\r\n1\r\nEND\r\n");
    assert_eq!(talk.say_at(b"get d\r\n", later(5000)), b"END\r\n");
}

#[test]
fn stats_show_what_the_portal_reads() {
    let mut talk = Talk::new();
    talk.say(b"set key 0 0 1\r\n1\r\nget key\r\nget none\r\n");
    let stats = String::from_utf8(talk.say(b"stats \r\n")).expect("text");
    for line in [
        "STAT uptime 1000\r\n",
        "STAT version 1.6.18",
        "STAT cmd_get 2\r\n",
        "STAT cmd_set 1\r\n",
        "STAT get_hits 1\r\n",
        "STAT get_misses 1\r\n",
        "STAT evictions 0\r\n",
        "STAT limit_maxbytes 67108864\r\n",
        "STAT curr_items 1\r\n",
        "STAT listen_disabled_num 0\r\n",
        "STAT bytes ",
    ] {
        assert!(stats.contains(line), "{line:?} in {stats}");
    }
    let items = String::from_utf8(talk.say(b"stats items\r\n")).expect("text");
    let class = items.split(':').nth(1).expect("a class holds the item");
    let dump = talk.say(format!("stats cachedump {class} 0\r\n").as_bytes());
    assert_eq!(dump, b"ITEM key [1 b; 0 s]\r\nEND\r\n");
    let mut binary = Talk::new();
    let rows = binary.say(&packet(0x10, b"settings", b"", b"", 0));
    assert!(rows.ends_with(&answer(0x10, 0, b"", b"", b"", 0)));
    assert!(rows.windows(8).any(|bytes| bytes == b"maxbytes"));
}

#[test]
fn key_with_a_line_end_does_not_break_a_dump() {
    let mut binary = Talk::new();
    binary.say(&packet(0x01, b"a\r\nEND", &FLAGS_7, b"v", 0));
    let mut text = Session::default();
    for class in 1..=63 {
        text.receive(
            format!("stats cachedump {class} 0\r\n").as_bytes(),
            &binary.engine,
            MOMENT,
        );
        assert_eq!(text.output.take(), b"END\r\n");
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        "(get|gets|gat|set|add|cas|append|incr|touch|delete|flush_all|stats|mg|ms|md|ma|me|mn|quit|noreply|b|v|N0|q|k)",
        "[a-c]{1,3}",
        "[NRTCEFJDM][0-9]{0,20}",
        "-?[0-9]{1,20}",
        "(\r\n| |\n)",
    ]
    .prop_map(String::into_bytes);
    let chunk = prop_oneof![
        4 => word,
        1 => proptest::collection::vec(any::<u8>(), 0..40),
        2 => (any::<u8>(), any::<u16>(), any::<u8>(), any::<u32>()).prop_map(|(opcode, key, extras, body)| {
            let mut header = packet(opcode % 0x30, b"", b"", b"", 0);
            header[2..4].copy_from_slice(&(key % 300).to_be_bytes());
            header[4] = extras % 30;
            header[8..12].copy_from_slice(&(body % 400).to_be_bytes());
            header
        }),
    ];
    (any::<bool>(), proptest::collection::vec(chunk, 0..60)).prop_map(|(is_binary, chunks)| {
        let first = if is_binary { vec![0x80] } else { vec![] };
        std::iter::once(first).chain(chunks).flatten().collect()
    })
}

proptest! {
    #[test]
    fn no_input_panics_and_cuts_change_nothing(input in bytes(), cuts in proptest::collection::vec(any::<u16>(), 0..4)) {
        let hasher = RandomState::new();
        let (mut whole, mut parts) = (Talk::with(&hasher), Talk::with(&hasher));
        let at_once = whole.say(&input);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (input.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        let (mut from, mut piecewise) = (0, Vec::new());
        for cut in cuts {
            piecewise.extend(parts.say(&input[from..cut]));
            from = cut;
        }
        prop_assert_eq!(whole.session.is_closed(), parts.session.is_closed());
        prop_assert_eq!(at_once.escape_ascii().to_string(), piecewise.escape_ascii().to_string());
    }
}
