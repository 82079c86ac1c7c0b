//! What is said and answered, byte for byte, as memcached 1.6.18 does.

/// A binary request.
pub fn packet(opcode: u8, key: &[u8], extras: &[u8], value: &[u8], cas: u64) -> Vec<u8> {
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
pub fn answer(opcode: u8, status: u16, key: &[u8], extras: &[u8], value: &[u8], cas: u64) -> Vec<u8> {
    let mut bytes = packet(opcode, key, extras, value, cas);
    bytes[0] = 0x81;
    bytes[6..8].copy_from_slice(&status.to_be_bytes());
    bytes
}

pub const FLAGS_7: [u8; 8] = [0, 0, 0, 7, 0, 0, 0, 0];
pub const TEXT: &[(&str, &str)] = &[
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

pub const META: &[(&str, &str)] = &[
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

type Exchange = (Vec<u8>, Vec<u8>);

const EXISTS: &[u8] = b"Data exists for key.";
const NO_NUMBER: &[u8] = b"Non-numeric server-side value for incr or decr";

/// A request that is refused.
fn refused(request: Vec<u8>, status: u16, text: &[u8]) -> Exchange {
    let opcode = request[1];
    (request, answer(opcode, status, b"", b"", text, 0))
}

/// A request without extras and value.
fn bare(opcode: u8, key: &[u8]) -> Vec<u8> {
    packet(opcode, key, b"", b"", 0)
}

/// The first unique of a shard is 1; one that cannot be known is `?`.
pub fn binary_conversation() -> Vec<Exchange> {
    [reads_and_writes(), counts_and_touches(), others()].concat()
}

fn reads_and_writes() -> Vec<Exchange> {
    let flags = &FLAGS_7[..4];
    let store = |opcode, key, value, cas| packet(opcode, key, &FLAGS_7, value, cas);
    let hit = |opcode, key| answer(opcode, 0, key, flags, b"value", 1);
    vec![
        refused(bare(0x00, b"a"), 1, b"Not found"),
        (bare(0x0c, b"a"), answer(0x0c, 1, b"a", b"", b"", 0)),
        (store(0x01, b"a b", b"value", 0), answer(0x01, 0, b"", b"", b"", 1)),
        (bare(0x00, b"a b"), hit(0x00, b"")),
        (
            [bare(0x0d, b"a b"), bare(0x0d, b"x"), bare(0x0a, b"")].concat(),
            [hit(0x0d, b"a b"), answer(0x0a, 0, b"", b"", b"", 0)].concat(),
        ),
        refused(store(0x02, b"a b", b"x", 0), 2, EXISTS),
        refused(store(0x12, b"a b", b"x", 0), 2, EXISTS),
        refused(store(0x03, b"x", b"x", 0), 1, b"Not found"),
        refused(packet(0x0e, b"x", b"", b"x", 0), 5, b"Not stored."),
        refused(store(0x01, b"a b", b"x", 9), 2, EXISTS),
        refused(packet(0x04, b"a b", b"", b"", 9), 2, EXISTS),
    ]
}

fn counts_and_touches() -> Vec<Exchange> {
    let sum = |opcode, key, expiry: u32| {
        let extras = [&1u64.to_be_bytes()[..], &5u64.to_be_bytes(), &expiry.to_be_bytes()].concat();
        packet(opcode, key, &extras, b"", 0)
    };
    let touch = |opcode, key| packet(opcode, key, &10u32.to_be_bytes(), b"", 0);
    let flags = &FLAGS_7[..4];
    let unknown = u64::from_be_bytes(*b"????????");
    vec![
        refused(sum(0x05, b"a b", 0), 6, NO_NUMBER),
        refused(sum(0x15, b"a b", 0), 6, NO_NUMBER),
        refused(sum(0x05, b"n", u32::MAX), 1, b"Not found"),
        (
            sum(0x05, b"n", 60),
            answer(0x05, 0, b"", b"", &5u64.to_be_bytes(), unknown),
        ),
        (sum(0x15, b"n", 60), vec![]),
        (
            sum(0x06, b"n", 60),
            answer(0x06, 0, b"", b"", &5u64.to_be_bytes(), unknown),
        ),
        (touch(0x1c, b"a b"), answer(0x1c, 0, b"", flags, b"", 1)),
        (touch(0x23, b"a b"), answer(0x23, 0, b"a b", flags, b"value", 1)),
        (touch(0x1e, b"x"), vec![]),
        (packet(0x14, b"a b", b"", b"", 1), vec![]),
    ]
}

fn others() -> Vec<Exchange> {
    let done = |opcode| answer(opcode, 0, b"", b"", b"", 0);
    vec![
        (packet(0x08, b"", &0u32.to_be_bytes(), b"", 0), done(0x08)),
        (bare(0x0b, b""), answer(0x0b, 0, b"", b"", b"1.6.18-bitrix-node", 0)),
        refused(bare(0x20, b""), 0x81, b"Unknown command"),
        refused(packet(0x21, b"PLAIN", b"", b"\0u\0p", 0), 0x81, b"Unknown command"),
        refused(bare(0x10, b"nonsense"), 1, b"Not found"),
        (bare(0x07, b""), done(0x07)),
    ]
}
