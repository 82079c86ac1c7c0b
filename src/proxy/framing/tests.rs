//! The codec against the shared corpus, every way of cutting it, and random bytes.

use proptest::prelude::*;

use super::super::answer::status;
use super::super::hostile;
use super::*;

const LIMITS: Limits = Limits {
    size: 64 << 10,
    fields: 100,
};

#[derive(Debug, PartialEq)]
struct Outcome {
    heads: u64,
    refusal: Option<Refusal>,
    /// Bytes that were not handed on and not refused.
    rest: usize,
}

/// Feeds pieces as the guard does: what was not taken comes again with more behind it. Every upgrade is declined.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Outcome, Vec<u8>) {
    let mut framing = Framing::new(LIMITS);
    let (mut waiting, mut passed) = (Vec::new(), Vec::new());
    let mut refusal = None;
    for piece in pieces {
        waiting.extend_from_slice(piece);
        loop {
            match framing.advance(&waiting) {
                Ok(count) => passed.extend(waiting.drain(..count)),
                Err(why) => refusal = Some(why),
            }
            if framing.part() != Part::Held || refusal.is_some() {
                break;
            }
            framing.settle(false);
        }
    }
    if refusal.is_none() {
        refusal = framing.advance(&waiting).err();
    }
    let outcome = Outcome {
        heads: framing.heads(),
        refusal,
        rest: if refusal.is_some() { 0 } else { waiting.len() },
    };
    (outcome, passed)
}

#[test]
fn ambiguous_heads_are_refused() {
    for probe in hostile::heads() {
        let (outcome, passed) = feed([&probe.bytes[..]]);
        let refusal = outcome.refusal.unwrap_or_else(|| panic!("{} passed", probe.name));
        assert_eq!(status(refusal.kind).as_u16(), probe.status, "{}: {refusal}", probe.name);
        assert_eq!((outcome.heads, passed.len()), (0, 0), "{}", probe.name);
    }
}

#[test]
fn broken_bodies_are_refused() {
    for probe in hostile::bodies("/") {
        let (outcome, _) = feed([&probe.bytes[..]]);
        let refusal = outcome.refusal.unwrap_or_else(|| panic!("{} passed", probe.name));
        assert_eq!(status(refusal.kind).as_u16(), probe.status, "{}: {refusal}", probe.name);
        assert_eq!(outcome.heads, 1, "{}", probe.name);
    }
}

#[test]
fn valid_messages_pass_whole() {
    let paths = hostile::paths().into_iter().map(|probe| (probe.bytes, 1));
    for (bytes, heads) in hostile::valid("/a").into_iter().chain(paths) {
        let (outcome, passed) = feed([&bytes[..]]);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(
            outcome,
            Outcome {
                heads,
                refusal: None,
                rest: 0
            },
            "{text}"
        );
        assert_eq!(passed, bytes, "{text}");
    }
}

#[test]
fn where_the_bytes_are_cut_changes_nothing() {
    let valid = hostile::valid("/a").into_iter().map(|(bytes, _)| bytes);
    let hostile = hostile::heads()
        .into_iter()
        .chain(hostile::bodies("/a"))
        .map(|probe| probe.bytes);
    for bytes in valid.chain(hostile).filter(|bytes| bytes.len() < 4 << 10) {
        let (whole, _) = feed([&bytes[..]]);
        let (single, _) = feed(bytes.chunks(1));
        assert_eq!(single, whole, "{}", String::from_utf8_lossy(&bytes));
        for cut in 1..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let (parts, passed) = feed([first, second]);
            assert_eq!(parts, whole, "cut at {cut} of {}", String::from_utf8_lossy(&bytes));
            if whole.refusal.is_none() {
                assert_eq!(passed, bytes);
            }
        }
    }
}

#[test]
fn limits_are_exact() {
    let head = |size: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(size - frame))
    };
    assert_eq!(feed([head(LIMITS.size).as_bytes()]).0.refusal, None);
    let beyond = feed([head(LIMITS.size + 1).as_bytes()]).0.refusal.expect("too large");
    assert_eq!(beyond.kind, Kind::HeaderTooLarge);
    let target = |size: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(size));
    let endless = feed([&target(LIMITS.size).as_bytes()[..LIMITS.size + 1]])
        .0
        .refusal
        .expect("too long");
    assert_eq!(endless.kind, Kind::TargetTooLong);
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(feed([fields(100).as_bytes()]).0.refusal, None);
    assert_eq!(
        feed([fields(101).as_bytes()]).0.refusal.expect("too many").kind,
        Kind::HeaderTooLarge
    );
}

#[test]
fn upgrade_holds_what_follows_until_it_is_answered() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut framing = Framing::new(LIMITS);
    let bytes = [&request[..], b"\x81\x00"].concat();
    assert_eq!(framing.advance(&bytes), Ok(request.len()));
    assert_eq!(framing.part(), Part::Held);
    assert_eq!(framing.advance(b"\x81\x00"), Ok(0));
    framing.settle(true);
    assert_eq!(framing.advance(b"\x81\x00"), Ok(2));
    assert_eq!(framing.part(), Part::Open);
}

/// An independent and slower reading of a head that was let through.
fn check_head(head: &[u8]) {
    let text: String = head.iter().copied().map(char::from).collect();
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    let lines = text.strip_suffix("\r\n\r\n").expect("ends in an empty line");
    assert!(!lines.replace("\r\n", "").contains(['\r', '\n', '\0']), "{text:?}");
    let mut lines = lines.split("\r\n");
    let words: Vec<&str> = lines.next().expect("a request line").split(' ').collect();
    let [method, target, version] = words[..] else {
        panic!("{text:?}")
    };
    http::Method::from_bytes(method.as_bytes()).expect("hyper reads the method");
    let uri: http::Uri = target.parse().expect("hyper reads the target");
    assert!(matches!(version, "HTTP/1.1" | "HTTP/1.0"));
    let fields: Vec<(String, &str)> = lines
        .map(|line| line.split_once(':').expect("a colon"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])))
        .collect();
    for (name, value) in &fields {
        http::HeaderName::from_bytes(name.as_bytes()).expect("hyper reads the name");
        let value: Vec<u8> = value.chars().map(|c| u8::try_from(c).expect("a byte")).collect();
        http::HeaderValue::from_bytes(&value).expect("hyper reads the value");
    }
    let all = |wanted: &str| {
        fields
            .iter()
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| *value)
            .collect::<Vec<_>>()
    };
    let (lengths, codings, hosts) = (all("content-length"), all("transfer-encoding"), all("host"));
    assert!(lengths.len() + codings.len() <= 1, "{text:?}");
    assert!(
        lengths
            .iter()
            .all(|value| value.bytes().all(|b| b.is_ascii_digit()) && value.parse::<i64>().is_ok())
    );
    assert!(
        codings
            .iter()
            .all(|value| value.eq_ignore_ascii_case("chunked") && version == "HTTP/1.1")
    );
    assert!(
        hosts.len() == 1 || hosts.is_empty() && version == "HTTP/1.0",
        "{text:?}"
    );
    if let (Some(authority), Some(host)) = (uri.authority(), hosts.first()) {
        assert!(authority.as_str().eq_ignore_ascii_case(host), "{text:?}");
    }
}

/// The first head of what was let through.
fn first_head(bytes: &[u8]) -> Option<&[u8]> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let end = memchr::memmem::find(&bytes[start..], b"\r\n\r\n")?;
    Some(&bytes[..start + end + 4])
}

/// Lines of which heads are made, good ones and bad ones.
const LINES: [&str; 20] = [
    "Host: a\r\n",
    "Host: a\r\n",
    "host:b\r\n",
    "Host: a\n",
    "Content-Length: 1\r\n",
    "content-length: 01\r\n",
    "Content-Length: 1,1\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: CHUNKED \r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: x\r\n",
    "X: y\rz\r\n",
    "X: y\r\n",
    " z\r\n",
    "\r\n",
    "0\r\n\r\n",
];

fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\n",
        "POST http://a/b HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET  / HTTP/1.1\r\n",
    ]);
    let lines = prop::collection::vec(prop::sample::select(LINES.to_vec()), 0..6);
    let noise = prop::collection::vec(any::<u8>(), 0..8);
    (first, lines, noise).prop_map(|(first, lines, noise)| {
        let head = [first, &lines.concat(), "\r\n"].concat();
        [head.into_bytes(), noise].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lines_of_any_order_never_pass_as_two_things(bytes in hostile_bytes(), cut in any::<prop::sample::Index>()) {
        let (whole, passed) = feed([&bytes[..]]);
        if whole.heads > 0 {
            check_head(first_head(&passed).expect("a head passed"));
        }
        let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(feed([first, second]).0, whole);
    }

    #[test]
    fn noise_is_refused_or_waits(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (outcome, _) = feed([&bytes[..]]);
        prop_assert_eq!(outcome.heads, 0);
    }

    #[test]
    fn mutated_requests_never_pass_as_two_things(
        choice in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut valid = hostile::valid("/a");
        let (mut bytes, _) = valid.swap_remove(choice.index(valid.len()));
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let (whole, passed) = feed([&bytes[..]]);
        if whole.heads > 0 {
            check_head(first_head(&passed).expect("a head passed"));
        }
        let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(feed([first, second]).0, whole);
    }
}
