//! Bad input to the push server of a real node, through the front: the specified code, one count of its reason, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::hmac;
use serde_json::Value;

use crate::support::eventually::eventually;
use crate::support::http;
use crate::support::node::Node;
use crate::support::ws::{Frame, WebSocket};

const PRIVATE: &str = "0123456789abcdef0123456789abcdef";
const PUBLIC: &str = "fedcba9876543210fedcba9876543210";
const MOST: usize = 1 << 20;

struct Signer(String);

impl Signer {
    fn sign(&self, data: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.0.as_bytes());
        HEXLOWER.encode(hmac::sign(&key, data.as_bytes()).as_ref())
    }

    fn channel(&self) -> String {
        format!(
            "CHANNEL_ID={PRIVATE}:{PUBLIC}.{}",
            self.sign(&format!("{PRIVATE}:{PUBLIC}"))
        )
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64(header), base64(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let signature = BASE64URL_NOPAD.encode(hmac::sign(&key, signed.as_bytes()).as_ref());
        format!("token={signed}.{signature}&jsonRpc=true")
    }

    /// A receiver that may be written to.
    fn receiver(&self) -> Vec<u8> {
        let signature = HEXLOWER
            .decode(self.sign(&format!("public:{PUBLIC}")).as_bytes())
            .unwrap();
        [field(1, &id()), field(3, &signature)].concat()
    }
}

fn base64(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

fn id() -> Vec<u8> {
    HEXLOWER.decode(PUBLIC.as_bytes()).unwrap()
}

/// A field of protocol buffers: its number, its length, its content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let (mut bytes, mut length) = (vec![number << 3 | 2], content.len());
    while length > 127 {
        bytes.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}

/// A request to publish messages, each with these receivers.
fn publish(messages: usize, receivers: &[Vec<u8>]) -> Vec<u8> {
    let receivers: Vec<u8> = receivers.iter().flat_map(|receiver| field(1, receiver)).collect();
    let message = field(1, &[receivers, field(3, b"{}")].concat());
    field(1, &field(1, &message.repeat(messages)))
}

/// Requests of generation 4, with the code that each must get, and the counter's reason.
fn requests(signer: &Signer) -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let good = signer.receiver();
    let [truncated, private] = [&good[..good.len() - 1], &[&good[..], &[2 << 3, 1]].concat()].map(<[u8]>::to_vec);
    // One byte less of the signature, and a length that says so.
    let mut truncated = truncated;
    truncated[19] -= 1;
    let forged = [field(1, &id()), field(3, &[7; 20])].concat();
    let short = [field(1, &id()[1..]), field(3, &[7; 20])].concat();
    let nested = (0..1000).fold(Vec::new(), |inner, _| field(1, &inner));
    vec![
        ("nothing", Vec::new(), 4022, "empty"),
        ("no command", field(1, b""), 4022, "empty"),
        ("noise", vec![0xff; 1000], 4013, "wrong_data"),
        (
            "a length beyond the end",
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            4013,
            "wrong_data",
        ),
        ("nested a thousand times", nested, 4019, "invalid_channel"),
        (
            "half a million empty messages",
            field(1, &field(1, &[0x0a, 0].repeat(500_000))),
            4016,
            "too_many_messages",
        ),
        (
            "a hundred and one messages",
            publish(101, std::slice::from_ref(&good)),
            4016,
            "too_many_messages",
        ),
        ("nobody", publish(1, &[]), 4017, "no_channels"),
        (
            "a hundred and one receivers",
            publish(1, &vec![good.clone(); 101]),
            4018,
            "too_many_channels",
        ),
        (
            "half a million receivers",
            publish(1, &vec![Vec::new(); 300_000]),
            4018,
            "too_many_channels",
        ),
        ("an id of 15 bytes", publish(1, &[short]), 4019, "invalid_channel"),
        ("a private channel", publish(1, &[private]), 4020, "private_receiver"),
        (
            "a forged signature",
            publish(1, std::slice::from_ref(&forged)),
            4021,
            "wrong_signature",
        ),
        (
            "a truncated signature",
            publish(1, &[truncated]),
            4021,
            "wrong_signature",
        ),
        (
            "one forged among good ones",
            publish(1, &[good.clone(), forged]),
            4021,
            "wrong_signature",
        ),
        (
            "a question for the portal alone",
            field(1, &field(3, b"")),
            4014,
            "command_not_allowed",
        ),
        (
            "a body that is no JSON",
            field(1, &field(1, &field(1, &[field(1, &good), field(3, b"{}{}")].concat()))),
            4013,
            "wrong_data",
        ),
    ]
}

/// Queries of clients whom the portal has not sent.
fn strangers(signer: &Signer) -> Vec<(&'static str, String)> {
    let (header, later) = (r#"{"typ":"JWT","alg":"HS256"}"#, r#"{"exp":99999999999,"sub":"1"}"#);
    let good = signer.sign(PRIVATE);
    let token = signer.token(header, later);
    vec![
        ("nothing", String::new()),
        ("no signature", format!("CHANNEL_ID={PRIVATE}")),
        (
            "a forged signature",
            format!("CHANNEL_ID={PRIVATE}.{}", signer.sign(PUBLIC)),
        ),
        ("a truncated signature", format!("CHANNEL_ID={PRIVATE}.{}", &good[..38])),
        (
            "an odd number of digits",
            format!("CHANNEL_ID={PRIVATE}.{}", &good[..39]),
        ),
        ("a longer signature", format!("CHANNEL_ID={PRIVATE}.{good}00")),
        (
            "an id of 31 digits",
            format!("CHANNEL_ID={}.{}", &PRIVATE[1..], signer.sign(&PRIVATE[1..])),
        ),
        (
            "an id of 33 digits",
            format!("CHANNEL_ID={PRIVATE}0.{}", signer.sign(&format!("{PRIVATE}0"))),
        ),
        (
            "upper case",
            format!(
                "CHANNEL_ID={}.{}",
                PRIVATE.to_uppercase(),
                signer.sign(&PRIVATE.to_uppercase())
            ),
        ),
        (
            "somebody else's public id",
            format!("CHANNEL_ID={PRIVATE}:{PUBLIC}.{good}"),
        ),
        (
            "one good and one bad",
            format!("CHANNEL_ID={PRIVATE}.{good}/{PUBLIC}.{good}"),
        ),
        ("an expired token", signer.token(header, r#"{"exp":5,"sub":"1"}"#)),
        ("a token without an end", signer.token(header, r#"{"sub":"1"}"#)),
        ("alg none", signer.token(r#"{"alg":"none"}"#, later)),
        (
            "alg none without a signature",
            format!("token={}.{}.&jsonRpc=true", base64(r#"{"alg":"none"}"#), base64(later)),
        ),
        ("another algorithm", signer.token(r#"{"alg":"RS256"}"#, later)),
        ("a forged token", Signer("other".into()).token(header, later)),
        (
            "a changed token",
            token.replace(&base64(later), &base64(&later.replace("\"1\"", "\"2\""))),
        ),
        (
            "a truncated token",
            token.replace("&jsonRpc", "")[..60].to_string() + "&jsonRpc=true",
        ),
    ]
}

/// Frames that a WebSocket does not allow, as bytes on the wire.
fn frames() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let masked = |first: u8, length: &[u8]| [&[first][..], length, &[0; 4]].concat();
    vec![
        ("not masked", vec![0x82, 1, 0], 1002, "frame"),
        ("a reserved bit", masked(0xc2, &[0x80]), 1002, "frame"),
        ("no such opcode", masked(0x83, &[0x80]), 1002, "frame"),
        ("a ping in pieces", masked(0x09, &[0x80]), 1002, "frame"),
        ("a continuation of nothing", masked(0x80, &[0x80]), 1002, "frame"),
        (
            "text that is none",
            [masked(0x81, &[0x81]), vec![0xff]].concat(),
            1007,
            "frame",
        ),
        (
            "a claim of 2^63 bytes",
            masked(0x82, &[0xff, 128, 0, 0, 0, 0, 0, 0, 0]),
            1009,
            "too_large",
        ),
        (
            "a claim of 1 MiB and a byte",
            masked(0x82, &[0xff, 0, 0, 0, 0, 0, 16, 0, 1]),
            1009,
            "too_large",
        ),
    ]
}

fn refused(node: &Node) -> BTreeMap<String, u64> {
    let ran = node.command(&["push", "status", "--output", "json"]);
    let status: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
    let numbers = status["numbers"].as_object().unwrap().iter();
    let refused =
        numbers.filter_map(|(name, value)| Some((name.strip_prefix("refused ")?.to_owned(), value.as_f64()? as u64)));
    refused.collect()
}

fn closes_with(mut socket: WebSocket) -> u16 {
    loop {
        match socket.read().expect("closed with a reason") {
            Frame::Close(code) => return code,
            Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_its_code_and_is_counted() {
    let node = Node::start("header_timeout = \"1s\"\nbody_timeout = \"1s\"\n").await;
    let front: SocketAddr = node.http();
    let key = fs::read_to_string(node.config.push_key()).unwrap();
    let signer = Signer(key.trim().into());
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = |reason: &str, times| *expected.entry(reason.to_owned()).or_default() += times;

    for (name, query) in strangers(&signer) {
        let socket = WebSocket::open(front, &format!("/bitrix/subws/?{query}")).unwrap();
        assert_eq!(closes_with(socket), 4010, "{name}");
        let polled = http::get(front, &format!("/bitrix/sub/?{query}")).unwrap();
        assert_eq!(
            (polled.status, polled.text().as_str()),
            (400, "4010: Wrong Channel Id."),
            "{name}"
        );
        count("wrong_channel", 2);
    }
    let query = signer.channel();
    for (name, request, code, reason) in requests(&signer) {
        let mut socket = WebSocket::open(front, &format!("/bitrix/subws/?{query}&binaryMode=true")).unwrap();
        socket.send(2, &request).unwrap();
        assert_eq!(closes_with(socket), code, "{name}");
        let said = http::request(
            front,
            "POST",
            &format!("/bitrix/rest/?{query}"),
            "Content-Type: text/plain\r\n",
            &request,
        )
        .unwrap();
        assert_eq!(said.status, 400, "{name}: {}", said.text());
        assert!(said.text().starts_with(&format!("{code}: ")), "{name}: {}", said.text());
        count(reason, 2);
    }
    for (name, bytes, code, reason) in frames() {
        let mut socket = WebSocket::open(front, &format!("/bitrix/subws/?{query}&binaryMode=true")).unwrap();
        socket.write(&bytes).unwrap();
        assert_eq!(closes_with(socket), code, "{name}");
        count(reason, 1);
    }
    let large = vec![b'1'; MOST + 1];
    let mut socket = WebSocket::open(front, &format!("/bitrix/subws/?{query}&binaryMode=true")).unwrap();
    // It may be refused before all of it was sent.
    let _ = socket.send(2, &large);
    assert_eq!(closes_with(socket), 1009);
    let said = http::request(front, "POST", &format!("/bitrix/rest/?{query}"), "", &large).unwrap();
    assert_eq!(said.status, 413);
    count("too_large", 2);
    let many = vec![format!("{PRIVATE}.{}", signer.sign(PRIVATE)); 101].join("/");
    let said = http::get(front, &format!("/bitrix/sub/?CHANNEL_ID={many}")).unwrap();
    assert_eq!(said.text(), "4018: Too many channels in the request.");
    count("too_many_channels", 1);

    slow_senders_go(front, &query);
    count("too_slow", 1);
    // The last one is counted when the front has let go of it, which is after its answer.
    eventually("all is counted", async || match refused(&node) {
        counted if counted == expected => Ok(()),
        counted => Err(format!("{counted:?}, not {expected:?}")),
    })
    .await;
    // Nobody was told anything, and who may listen still does.
    let numbers = http::get(node.config.push.listen, "/server-stat/").unwrap().text();
    let numbers: Value = serde_json::from_str(&numbers).unwrap();
    assert_eq!(
        (&numbers[0]["messages"], &numbers[0]["websockets"]),
        (&0.into(), &0.into())
    );
    let mut good = WebSocket::open(front, &format!("/bitrix/subws/?{query}")).unwrap();
    http::request(
        node.config.push.listen,
        "POST",
        &format!("/bitrix/pub/?CHANNEL_ID={PRIVATE}"),
        "",
        b"1",
    )
    .unwrap();
    assert!(good.text().contains("\"text\":1}"));
    assert_eq!(node.service("push")["restarts"], 0);
}

/// Half a head and half a body: the front ends both, and the push server hears of the second alone.
fn slow_senders_go(front: SocketAddr, query: &str) {
    let head = format!("POST /bitrix/rest/?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12");
    for slow in [&head[..30], &head] {
        let mut stream = http::connect(front).unwrap();
        stream.write_all(slow.as_bytes()).unwrap();
        assert_eq!(http::read_answer(&mut stream).unwrap().status, 408, "{slow}");
    }
}
