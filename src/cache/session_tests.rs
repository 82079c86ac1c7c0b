//! Conversations, byte for byte, as memcached 1.6.18 has them; whole, cut at every offset, and from clients that mean ill.

use std::hash::RandomState;

use proptest::prelude::*;

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

/// A binary request.
fn packet(opcode: u8, key: &[u8], extras: &[u8], value: &[u8], cas: u64) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short");
    let key_len = u16::try_from(key.len()).expect("short").to_be_bytes();
    let body = length(extras) + length(key) + length(value);
    let mut bytes = vec![0x80, opcode, key_len[0], key_len[1], extras.len() as u8, 0, 0, 0];
    bytes.extend(body.to_be_bytes());
    bytes.extend(*b"opaq");
    bytes.extend(cas.to_be_bytes());
    for part in [extras, key, value] {
        bytes.extend(part);
    }
    bytes
}

/// A binary reply.
fn answer(opcode: u8, status: u16, key: &[u8], extras: &[u8], value: &[u8], cas: u64) -> Vec<u8> {
    let mut bytes = packet(opcode, key, extras, value, cas);
    bytes[0] = 0x81;
    bytes[6..8].copy_from_slice(&status.to_be_bytes());
    bytes
}

const FLAGS_7: [u8; 8] = [0, 0, 0, 7, 0, 0, 0, 0];
const TEXT: &[(&str, &str)] = &[
    ("get a\r\n", "END\r\n"),
    ("get\r\n", "ERROR\r\n"),
    ("\r\n", "ERROR\r\n"),
    ("set a 1 0 3\r\nabc\r\n", "STORED\r\n"),
    ("get a b a\n", "VALUE a 1 3\r\nabc\r\nVALUE a 1 3\r\nabc\r\nEND\r\n"),
    ("set a 1 0 3\r\nabcd\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
    ("set b 0 0 1 noreply\r\nx\r\nget b\r\n", "VALUE b 0 1\r\nx\r\nEND\r\n"),
    ("set b 0 0 1 noreply\r\nxy\r\n", "ERROR\r\n"),
    ("set b x 0 1 noreply\r\n", ""),
    ("set b 0 0 1 noreply more\r\n", "ERROR\r\n"),
    ("set b 0 0 -1\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("set b 0 0 2147483648\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("set b\x01 0 0 1\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("add a 0 0 1\r\n2\r\n", "NOT_STORED\r\n"),
    ("replace none 0 0 1\r\n2\r\n", "NOT_STORED\r\n"),
    ("append a 9 0 1\r\nd\r\n", "STORED\r\n"),
    ("prepend a 9 0 1\r\n_\r\n", "STORED\r\n"),
    ("get a\r\n", "VALUE a 1 5\r\n_abcd\r\nEND\r\n"),
    ("cas none 0 0 1 5\r\nx\r\n", "NOT_FOUND\r\n"),
    ("cas a 0 0 1 0\r\nx\r\n", "EXISTS\r\n"),
    ("cas a 0 0 1\r\nx\r\n", "ERROR\r\nERROR\r\n"),
    ("delete a 0\r\n", "DELETED\r\n"),
    ("delete a\r\n", "NOT_FOUND\r\n"),
    ("delete a 0 noreply\r\n", ""),
    (
        "delete a 5\r\n",
        "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
    ),
    ("delete a 5 noreply\r\n", ""),
    (
        "set n 0 0 2\r\n99\r\nincr n 1\r\ndecr n 95\r\nget n\r\n",
        "STORED\r\n100\r\n5\r\nVALUE n 0 3\r\n5  \r\nEND\r\n",
    ),
    (
        "set n 0 0 20\r\n18446744073709551615\r\nincr n 2\r\n",
        "STORED\r\n1\r\n",
    ),
    ("decr n 5\r\nincr n 1 noreply\r\nincr n 1\r\n", "0\r\n2\r\n"),
    ("incr n x\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
    ("incr n noreply\r\n", ""),
    (
        "incr b 1\r\n",
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    (
        "touch b 10\r\ntouch none 10\r\ntouch b x\r\n",
        "TOUCHED\r\nNOT_FOUND\r\nCLIENT_ERROR invalid exptime argument\r\n",
    ),
    ("gat 10 b\r\n", "VALUE b 0 1\r\nx\r\nEND\r\n"),
    ("set old 0 -1 1\r\nx\r\nget old\r\n", "STORED\r\nEND\r\n"),
    ("verbosity 1\r\nverbosity\r\nverbosity 1 noreply\r\n", "OK\r\nERROR\r\n"),
    (
        "flush_all noreply\r\nflush_all 0\r\nflush_all x\r\n",
        "OK\r\nCLIENT_ERROR invalid exptime argument\r\n",
    ),
    ("version\r\n", "VERSION 1.6.18-bitrix-node\r\n"),
    (
        "stats nonsense\r\nstats detail\r\n",
        "ERROR\r\nCLIENT_ERROR usage: stats detail on|off|dump\r\n",
    ),
    (
        "stats cachedump 64 0\r\nstats cachedump 63 0\r\n",
        "CLIENT_ERROR Illegal slab id\r\nEND\r\n",
    ),
    ("stats reset\r\n", "RESET\r\n"),
    ("shutdown\r\n", "ERROR: shutdown not enabled\r\n"),
];

const META: &[(&str, &str)] = &[
    ("mn\r\nmg\r\nmz a\r\n", "MN\r\nERROR\r\nERROR\r\n"),
    ("mg a\r\nmg a q\r\nmg a k Oab\r\n", "EN\r\nEN ka Oab\r\n"),
    (
        "ms a 1 F5 T10 k Oq s\r\nx\r\nmg a f t s k v\r\n",
        "HD ka Oq s1\r\nVA 1 f5 t10 s1 ka\r\nx\r\n",
    ),
    (
        "ms a 1 ME k\r\ny\r\nms none 1 MA\r\nx\r\nms a 1 q\r\nz\r\n",
        "NS ka\r\nNS\r\n",
    ),
    (
        "ms none 1 MA N0\r\nx\r\nms none 1 MP\r\n0\r\nmg none v\r\n",
        "HD\r\nHD\r\nVA 2\r\n0x\r\n",
    ),
    (
        "ms a 1 MX\r\nx\r\nmn\r\n",
        "CLIENT_ERROR invalid mode for ms M token\r\nMN\r\n",
    ),
    ("ms a 1 q\r\nxy\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
    ("ms a 1 !\r\nx\r\nmn\r\n", "CLIENT_ERROR invalid flag\r\nMN\r\n"),
    ("mg a v v\r\n", "CLIENT_ERROR duplicate flag\r\n"),
    ("mg a NX\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
    (
        "mg a O0123456789012345678901234567890x\r\n",
        "CLIENT_ERROR opaque token too long\r\n",
    ),
    (
        "ms aGFzIHNwYWNl 1 b k\r\nx\r\nmg aGFzIHNwYWNl b k v\r\n",
        "HD kaGFzIHNwYWNl b\r\nVA 1 kaGFzIHNwYWNl b\r\nx\r\n",
    ),
    ("mg a b\r\n", "CLIENT_ERROR error decoding key\r\n"),
    ("md a C99999 Ox\r\nmd a q\r\nmd a k\r\n", "EX Ox\r\nNF ka\r\n"),
    (
        "ma n\r\nma n N0 J13 v\r\nma n D5 v t\r\nma n MD D30 v\r\nma n q\r\n",
        "NF\r\nVA 2\r\n13\r\nVA 2 t-1\r\n18\r\nVA 1\r\n0\r\n",
    ),
    (
        "ms h 1\r\nx\r\nmg h h l t\r\nmg h h u\r\n",
        "HD\r\nHD h0 l0 t-1\r\nHD h1\r\n",
    ),
    (
        "mg w N30 s v t\r\nmg w s v\r\n",
        "VA 0 s0 t30 W\r\n\r\nVA 0 s0 Z\r\n\r\n",
    ),
    (
        "ms r 1 T100\r\nx\r\nmg r R30\r\nmg r R200\r\nmg r R200\r\n",
        "HD\r\nHD\r\nHD W\r\nHD Z\r\n",
    ),
    (
        "ms s 1\r\nx\r\nmd s I T30\r\nmg s t v\r\nmg s v\r\n",
        "HD\r\nHD\r\nVA 1 t30 X W\r\nx\r\nVA 1 Z X\r\nx\r\n",
    ),
    ("md s x\r\nmg s v\r\n", "HD\r\nVA 0 Z X\r\n\r\n"),
    (
        "ms e 1 E77 c\r\nx\r\nmg e c\r\nmg e C77 v\r\nmg e C78 v\r\n",
        "HD c77\r\nHD c77\r\nHD\r\nVA 1\r\nx\r\n",
    ),
    ("ms e 1 C76 I\r\ny\r\nmg e v\r\n", "HD\r\nVA 1 X W\r\ny\r\n"),
    ("me nobody\r\n", "EN\r\n"),
];

fn binary_conversation() -> Vec<(Vec<u8>, Vec<u8>)> {
    let sum = |delta: u64, initial: u64, expiry: u32| {
        [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &expiry.to_be_bytes()].concat()
    };
    let set = packet(0x01, b"a b", &FLAGS_7, b"value", 0);
    let flags = &FLAGS_7[..4];
    let seconds = 10u32.to_be_bytes();
    vec![
        (
            packet(0x00, b"a", b"", b"", 0),
            answer(0x00, 1, b"", b"", b"Not found", 0),
        ),
        (packet(0x0c, b"a", b"", b"", 0), answer(0x0c, 1, b"a", b"", b"", 0)),
        (set, answer(0x01, 0, b"", b"", b"", 1)),
        (
            packet(0x00, b"a b", b"", b"", 0),
            answer(0x00, 0, b"", flags, b"value", 1),
        ),
        (
            [
                packet(0x0d, b"a b", b"", b"", 0),
                packet(0x0d, b"x", b"", b"", 0),
                packet(0x0a, b"", b"", b"", 0),
            ]
            .concat(),
            [
                answer(0x0d, 0, b"a b", flags, b"value", 1),
                answer(0x0a, 0, b"", b"", b"", 0),
            ]
            .concat(),
        ),
        (
            packet(0x02, b"a b", &FLAGS_7, b"x", 0),
            answer(0x02, 2, b"", b"", b"Data exists for key.", 0),
        ),
        (
            packet(0x12, b"a b", &FLAGS_7, b"x", 0),
            answer(0x12, 2, b"", b"", b"Data exists for key.", 0),
        ),
        (
            packet(0x03, b"x", &FLAGS_7, b"x", 0),
            answer(0x03, 1, b"", b"", b"Not found", 0),
        ),
        (
            packet(0x0e, b"x", b"", b"x", 0),
            answer(0x0e, 5, b"", b"", b"Not stored.", 0),
        ),
        (
            packet(0x01, b"a b", &FLAGS_7, b"x", 9),
            answer(0x01, 2, b"", b"", b"Data exists for key.", 0),
        ),
        (
            packet(0x05, b"a b", &sum(1, 5, 0), b"", 0),
            answer(0x05, 6, b"", b"", b"Non-numeric server-side value for incr or decr", 0),
        ),
        (
            packet(0x05, b"n", &sum(1, 5, u32::MAX), b"", 0),
            answer(0x05, 1, b"", b"", b"Not found", 0),
        ),
        (
            packet(0x15, b"a b", &sum(1, 5, 0), b"", 0),
            answer(0x15, 6, b"", b"", b"Non-numeric server-side value for incr or decr", 0),
        ),
        (
            packet(0x1c, b"a b", &seconds, b"", 0),
            answer(0x1c, 0, b"", flags, b"", 1),
        ),
        (
            packet(0x23, b"a b", &seconds, b"", 0),
            answer(0x23, 0, b"a b", flags, b"value", 1),
        ),
        (packet(0x1e, b"x", &seconds, b"", 0), vec![]),
        (
            packet(0x04, b"a b", b"", b"", 9),
            answer(0x04, 2, b"", b"", b"Data exists for key.", 0),
        ),
        (packet(0x14, b"a b", b"", b"", 1), vec![]),
        (packet(0x05, b"n", &sum(1, 5, 60), b"", 0)[..].to_vec(), {
            let mut reply = answer(0x05, 0, b"", b"", &5u64.to_be_bytes(), 0);
            reply[16..24].fill(b'?');
            reply
        }),
        (
            packet(0x08, b"", &0u32.to_be_bytes(), b"", 0),
            answer(0x08, 0, b"", b"", b"", 0),
        ),
        (
            packet(0x0b, b"", b"", b"", 0),
            answer(0x0b, 0, b"", b"", b"1.6.18-bitrix-node", 0),
        ),
        (
            packet(0x20, b"", b"", b"", 0),
            answer(0x20, 0x81, b"", b"", b"Unknown command", 0),
        ),
        (
            packet(0x21, b"PLAIN", b"", b"\0u\0p", 0),
            answer(0x21, 0x81, b"", b"", b"Unknown command", 0),
        ),
        (
            packet(0x10, b"nonsense", b"", b"", 0),
            answer(0x10, 1, b"", b"", b"Not found", 0),
        ),
        (packet(0x07, b"", b"", b"", 0), answer(0x07, 0, b"", b"", b"", 0)),
    ]
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
