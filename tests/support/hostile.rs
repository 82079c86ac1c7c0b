//! Hostile HTTP/1 input with the status that each must get, shared by the codec's tests and by those over a socket.
//! Each probe goes on a connection of its own; the connection must be closed behind the answer unless said otherwise.

/// Bytes to send and the status to expect.
pub struct Probe {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub status: u16,
}

fn probe(name: &'static str, bytes: impl Into<Vec<u8>>, status: u16) -> Probe {
    Probe {
        name,
        bytes: bytes.into(),
        status,
    }
}

/// A GET with these lines behind a valid `Host`.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: portal.example\r\n{lines}\r\n")
}

/// A request line before a valid header.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: portal.example\r\n\r\n")
}

/// Both readings of an ambiguous message, from both sides: what one parser takes for a body, the other takes for this.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: portal.example\r\n\r\n";

/// Refused by their head, whatever they ask for.
pub fn heads() -> Vec<Probe> {
    let mut all = lengths();
    all.extend(codings());
    all.extend(disguises());
    all.extend(lines());
    all.extend(hosts());
    all.extend(fields());
    all.extend(sizes());
    all
}

/// A GET with these two fields, a body that suits the second, and what one reading hides.
fn both(first: &str, second: &str) -> String {
    with(&format!("{first}\r\n{second}\r\n")) + "0\r\n\r\n" + HIDDEN
}

fn lengths() -> Vec<Probe> {
    vec![
        probe(
            "CL then TE",
            both("Content-Length: 4", "Transfer-Encoding: chunked"),
            400,
        ),
        probe(
            "TE then CL",
            both("Transfer-Encoding: chunked", "Content-Length: 4"),
            400,
        ),
        probe(
            "CL 0 and TE",
            both("Content-Length: 0", "Transfer-Encoding: chunked"),
            400,
        ),
        probe(
            "two CL that differ",
            both("Content-Length: 0", "Content-Length: 5"),
            400,
        ),
        probe("two equal CL", both("Content-Length: 5", "Content-Length: 5"), 400),
        probe("CL list", with("Content-Length: 5, 5\r\n") + "01234", 400),
        probe("CL +", with("Content-Length: +5\r\n") + "01234", 400),
        probe("CL -", with("Content-Length: -1\r\n"), 400),
        probe("CL hex", with("Content-Length: 0x5\r\n") + "01234", 400),
        probe("CL empty", with("Content-Length:\r\n"), 400),
        probe("CL with space", with("Content-Length: 5 5\r\n"), 400),
        probe("CL fraction", with("Content-Length: 5.0\r\n"), 400),
        probe(
            "CL beyond 64 bits",
            with("Content-Length: 18446744073709551621\r\n"),
            400,
        ),
        probe(
            "CL beyond 63 bits",
            with("Content-Length: 9223372036854775808\r\n"),
            400,
        ),
        probe("CL underscore", with("Content-Length: 1_0\r\n") + "0123456789", 400),
        probe("CL with a comma", with("Content-Length: 5,\r\n") + "01234", 400),
        probe("CL with a parameter", with("Content-Length: 5;a=b\r\n") + "01234", 400),
        probe("CL quoted", with("Content-Length: \"5\"\r\n") + "01234", 400),
        probe("CL with a form feed", with("Content-Length: \x0c5\r\n") + "01234", 400),
        probe(
            "CL hidden by a comment",
            with("Content-Length: 5 (0)\r\n") + "01234",
            400,
        ),
        probe("CL 0 then CL", both("content-length: 0", "CONTENT-LENGTH: 5"), 400),
        probe("CL not ASCII", with("Content-Length: \u{0665}\r\n"), 400),
    ]
}

fn codings() -> Vec<Probe> {
    vec![
        probe(
            "TE gzip, chunked",
            with("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE chunked, gzip",
            with("Transfer-Encoding: chunked, gzip\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE chunked, chunked",
            with("Transfer-Encoding: chunked, chunked\r\n") + "0\r\n\r\n",
            501,
        ),
        probe("TE identity", with("Transfer-Encoding: identity\r\n"), 501),
        probe(
            "TE xchunked",
            with("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE quoted",
            with("Transfer-Encoding: \"chunked\"\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE with parameter",
            with("Transfer-Encoding: chunked;q=1\r\n") + "0\r\n\r\n",
            501,
        ),
        probe("TE empty", with("Transfer-Encoding:\r\n"), 501),
        probe(
            "TE vertical tab",
            with("Transfer-Encoding: \x0bchunked\r\n") + "0\r\n\r\n",
            400,
        ),
        probe(
            "TE twice",
            both("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
            400,
        ),
        probe(
            "TE then identity",
            both("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
            400,
        ),
        probe(
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: portal.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        probe("expectation", with("Expect: 200-ok\r\n"), 417),
        probe("two expectations", with("Expect: 100-continue, x\r\n"), 417),
    ]
}

/// What some parser takes for `chunked`, and another one does not.
fn disguises() -> Vec<Probe> {
    vec![
        probe(
            "TE with a space inside",
            with("Transfer-Encoding: chun ked\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE list with nothing first",
            with("Transfer-Encoding: ,chunked\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE list with nothing last",
            with("Transfer-Encoding: chunked,\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE in brackets",
            with("Transfer-Encoding: [chunked]\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE form feed",
            with("Transfer-Encoding: chunked\x0c\r\n") + "0\r\n\r\n",
            400,
        ),
        probe("TE NUL", with("Transfer-Encoding: chunked\0\r\n") + "0\r\n\r\n", 400),
        probe(
            "TE not ASCII",
            with("Transfer-Encoding: \u{212a}chunked\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "TE twice, the second odd",
            both("Transfer-Encoding: chunked", "transfer-encoding: x"),
            400,
        ),
        probe(
            "TE twice, the first odd",
            both("Transfer-Encoding: x", "transfer-encoding: chunked"),
            501,
        ),
        probe(
            "TE behind a bare LF",
            with("X: y\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
            400,
        ),
        probe(
            "TE folded into a value",
            with("X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n",
            400,
        ),
    ]
}

fn lines() -> Vec<Probe> {
    vec![
        probe("bare LF ends", "GET / HTTP/1.1\nHost: portal.example\n\n", 400),
        probe(
            "bare LF in the header",
            "GET / HTTP/1.1\r\nHost: portal.example\nX: y\r\n\r\n",
            400,
        ),
        probe(
            "bare LF at the end",
            "GET / HTTP/1.1\r\nHost: portal.example\r\n\n",
            400,
        ),
        probe("bare CR in a value", with("X: a\rb\r\n"), 400),
        probe("bare CR hides a field", with("X: a\rContent-Length: 5\r\n"), 400),
        probe("CR CR LF", with("X: a\r\r\n"), 400),
        probe("folded line", with("X: a\r\n b\r\n"), 400),
        probe("folded with a tab", with("X: a\r\n\tb\r\n"), 400),
        probe(
            "folded TE",
            with("Transfer-Encoding:\r\n chunked\r\n") + "0\r\n\r\n",
            501,
        ),
        probe(
            "folded first line",
            "GET / HTTP/1.1\r\n Host: portal.example\r\n\r\n",
            400,
        ),
        probe("two empty lines first", format!("\r\n\r\n{HIDDEN}"), 400),
        probe("bare LF first", format!("\n{HIDDEN}"), 400),
        probe("bare CR first", format!("\r{HIDDEN}"), 400),
        probe("no version", line("GET /"), 400),
        probe("method alone", line("GET"), 400),
        probe("no method", line(" / HTTP/1.1"), 400),
        probe("two spaces before the target", line("GET  / HTTP/1.1"), 400),
        probe("two spaces before the version", line("GET /  HTTP/1.1"), 400),
        probe("space behind the version", line("GET / HTTP/1.1 "), 400),
        probe("tabs", line("GET\t/\tHTTP/1.1"), 400),
        probe("space in the target", line("GET /a b HTTP/1.1"), 400),
        probe("a request in the target", line("GET /a HTTP/1.1 /b HTTP/1.1"), 400),
        probe("method with a slash", line("G/T / HTTP/1.1"), 400),
        probe("method in lower case", line("get / HTTP/1.1"), 400),
        probe("method with NUL", line("GE\0T / HTTP/1.1"), 400),
        probe("NUL in the target", line("GET /a\0b HTTP/1.1"), 400),
        probe("control in the target", line("GET /a\x7f HTTP/1.1"), 400),
        probe("UTF-8 in the target", line("GET /ф HTTP/1.1"), 400),
        probe("fragment", line("GET /a#b HTTP/1.1"), 400),
        probe("bracket in the target", line("GET /<a> HTTP/1.1"), 400),
        probe("target without a slash", line("GET a HTTP/1.1"), 400),
        probe("asterisk with GET", line("GET * HTTP/1.1"), 400),
        probe("HTTP/0.9", "GET /\r\n\r\n", 400),
        probe("HTTP/1.2", line("GET / HTTP/1.2"), 505),
        probe("HTTP/2.0", line("GET / HTTP/2.0"), 505),
        probe("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        probe("HTTP/01.1", line("GET / HTTP/01.1"), 400),
        probe("http/1.1", line("GET / http/1.1"), 400),
        probe("HTP/1.1", line("GET / HTP/1.1"), 400),
        probe("CONNECT", line("CONNECT portal.example:443 HTTP/1.1"), 405),
        probe("TRACE", line("TRACE / HTTP/1.1"), 405),
        probe(
            "TLS greeting",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            400,
        ),
        probe("binary", b"\xff\xfe\x00\x00".to_vec(), 400),
    ]
}

fn hosts() -> Vec<Probe> {
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    vec![
        probe("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
        probe(
            "no Host with absolute target",
            "GET http://portal.example/ HTTP/1.1\r\n\r\n",
            400,
        ),
        probe("two Hosts", with("Host: other.example\r\n"), 400),
        probe("two equal Hosts", with("Host: portal.example\r\n"), 400),
        probe(
            "two Hosts in HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
        ),
        probe("empty Host", host(""), 400),
        probe("Host with a slash", host("a/b"), 400),
        probe("Host with a space", host("a b"), 400),
        probe("Host with userinfo", host("user@portal.example"), 400),
        probe("Host list", host("a, b"), 400),
        probe("Host with a bad port", host("portal.example:x"), 400),
        probe("Host with a long port", host("portal.example:65536"), 400),
        probe("Host with two ports", host("portal.example:80:81"), 400),
        probe("Host with a query", host("a?b"), 400),
        probe("Host not ASCII", host("портал"), 400),
        probe("Host with NUL", host("a\0b"), 400),
        probe("Host with half a bracket", host("[::1"), 400),
        probe(
            "Host hidden in front",
            "GET / HTTP/1.1\r\nHost : a\r\nHost: portal.example\r\n\r\n",
            400,
        ),
        probe(
            "target and Host differ",
            line("GET http://other.example/ HTTP/1.1"),
            400,
        ),
        probe(
            "target and Host differ by port",
            line("GET http://portal.example:81/ HTTP/1.1"),
            400,
        ),
        probe(
            "target with userinfo",
            line("GET http://u@portal.example/ HTTP/1.1"),
            400,
        ),
        probe("target without a host", line("GET http:///a HTTP/1.1"), 400),
        probe(
            "target with another scheme",
            line("GET ftp://portal.example/ HTTP/1.1"),
            400,
        ),
    ]
}

fn fields() -> Vec<Probe> {
    vec![
        probe("space before the colon", with("X : y\r\n"), 400),
        probe("tab before the colon", with("X\t: y\r\n"), 400),
        probe(
            "CL with space before the colon",
            with("Content-Length : 5\r\n") + "01234",
            400,
        ),
        probe(
            "TE with space before the colon",
            with("Transfer-Encoding : chunked\r\n") + "0\r\n\r\n",
            400,
        ),
        probe("no colon", with("X\r\n"), 400),
        probe("no name", with(": y\r\n"), 400),
        probe("name with a space", with("X Y: z\r\n"), 400),
        probe("name in brackets", with("(X): z\r\n"), 400),
        probe("name with NUL", with("X\0Y: z\r\n"), 400),
        probe("name not ASCII", with("Xф: z\r\n"), 400),
        probe("NUL in a value", with("X: a\0b\r\n"), 400),
        probe("escape in a value", with("X: \x1b[2J\r\n"), 400),
        probe("DEL in a value", with("X: \x7f\r\n"), 400),
        probe("CL behind NUL", with("X: a\0\r\nContent-Length: 5\r\n"), 400),
    ]
}

/// For the limits of 64 KiB and 100 fields.
fn sizes() -> Vec<Probe> {
    let long = "a".repeat(70 << 10);
    vec![
        probe("long target", line(&format!("GET /{long} HTTP/1.1")), 414),
        probe("long method", long.to_ascii_uppercase(), 414),
        probe("long value", with(&format!("X: {long}\r\n")), 431),
        probe("long name", with(&format!("{long}: x\r\n")), 431),
        probe("many fields", with(&"X: y\r\n".repeat(100)), 431),
    ]
}

/// A valid head for `target`, then a body that breaks. 400 when the target reads it.
pub fn bodies(target: &str) -> Vec<Probe> {
    let chunked = |body: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: portal.example\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    let trailer = |line: &str| chunked(&format!("3\r\nabc\r\n0\r\n{line}\r\n\r\n"));
    vec![
        probe("chunk size not hex", chunked("xyz\r\nabc\r\n0\r\n\r\n"), 400),
        probe("chunk size empty", chunked("\r\nabc\r\n0\r\n\r\n"), 400),
        probe("chunk size negative", chunked("-3\r\nabc\r\n0\r\n\r\n"), 400),
        probe("chunk size with prefix", chunked("0x3\r\nabc\r\n0\r\n\r\n"), 400),
        probe("chunk size with space before", chunked(" 3\r\nabc\r\n0\r\n\r\n"), 400),
        probe("chunk size with space behind", chunked("3 \r\nabc\r\n0\r\n\r\n"), 400),
        probe(
            "chunk size beyond 64 bits",
            chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"),
            400,
        ),
        probe(
            "chunk size of many zeros",
            chunked("00000000000000003\r\nabc\r\n0\r\n\r\n"),
            400,
        ),
        probe("chunk size ends in LF", chunked("3\nabc\r\n0\r\n\r\n"), 400),
        probe("chunk size ends in CR", chunked("3\rabc\r\n0\r\n\r\n"), 400),
        probe("chunk ends in LF", chunked("3\r\nabc\n0\r\n\r\n"), 400),
        probe("chunk too long", chunked("3\r\nabcd\r\n0\r\n\r\n"), 400),
        probe("chunk too short", chunked("4\r\nabc\r\n0\r\n\r\n"), 400),
        probe("chunk without CRLF", chunked("3\r\nabc0\r\n\r\n"), 400),
        probe("extension ends in LF", chunked("3;x\nabc\r\n0\r\n\r\n"), 400),
        probe("extension with LF", chunked("3;a\nb\r\nabc\r\n0\r\n\r\n"), 400),
        probe("extension with CR", chunked("3;a\rb\r\nabc\r\n0\r\n\r\n"), 400),
        probe("extension with NUL", chunked("3;\0\r\nabc\r\n0\r\n\r\n"), 400),
        probe(
            "long extension",
            chunked(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(8 << 10))),
            400,
        ),
        probe(
            "extensions without end",
            chunked(&"1;xxxxxxxxxxxxxxx\r\na\r\n".repeat(1000)),
            400,
        ),
        probe("last chunk ends in LF", chunked("3\r\nabc\r\n0\n\r\n"), 400),
        probe("body ends in LF", chunked("3\r\nabc\r\n0\r\n\n"), 400),
        probe("trailer Content-Length", trailer("Content-Length: 5"), 400),
        probe("trailer Transfer-Encoding", trailer("Transfer-Encoding: chunked"), 400),
        probe("trailer Host", trailer("Host: other.example"), 400),
        probe("trailer Authorization", trailer("Authorization: Basic eDp5"), 400),
        probe("trailer with space before the colon", trailer("X : y"), 400),
        probe("trailer without a colon", trailer("X"), 400),
        probe("trailer folded", trailer("X: y\r\n z"), 400),
        probe("trailer ends in LF", trailer("X: y\nZ: z"), 400),
        probe("trailer with NUL", trailer("X: \0"), 400),
        probe("long trailer", trailer(&format!("X: {}", "y".repeat(16 << 10))), 400),
        probe("many trailers", trailer(&["X: y"; 200].join("\r\n")), 400),
    ]
}

/// Well framed, refused for what they ask. The connection may stay open.
pub fn paths() -> Vec<Probe> {
    [
        ("/..", 400),
        ("/../etc/passwd", 400),
        ("/a/../../etc/passwd", 400),
        ("/%2e%2e/etc/passwd", 400),
        ("/..%2f..%2fetc/passwd", 400),
        ("/..%5cetc", 400),
        ("/..\\etc", 400),
        ("/a%2fb", 400),
        ("/%", 400),
        ("/%4", 400),
        ("/%zz", 400),
        ("/index.php%00.jpg", 400),
        ("/a%0d%0aSet-Cookie:x", 400),
        ("/%ff", 400),
        ("/%c0%ae%c0%ae/etc/passwd", 400),
        ("/.git/config", 404),
        ("/.htaccess", 404),
        ("//.git//config", 404),
        ("/%2egit/config", 404),
        ("/bitrix/.settings.php", 404),
        ("/bitrix/php_interface/dbconn.php.bak", 404),
        ("/bitrix/php_interface/dbconn.php", 403),
        ("/bitrix/./modules/main/start.php", 403),
        ("//bitrix//modules/", 403),
        ("/upload/shell.php", 403),
        ("/upload/shell.php/a.jpg", 403),
        ("/upload/x/../shell.PHP", 403),
        ("/index.PHP", 403),
    ]
    .into_iter()
    .map(|(path, status)| probe(path, line(&format!("GET {path} HTTP/1.1")), status))
    .collect()
}

/// Valid messages, some of them pipelined, with the number of requests that each holds.
pub fn valid(target: &str) -> Vec<(Vec<u8>, u64)> {
    let get = format!("GET {target}?a=%20|{{}}[]^'\\ HTTP/1.1\r\nHost: portal.example\r\n\r\n");
    let fixed = format!("POST {target} HTTP/1.1\r\nhost:portal.example:80\t \r\ncontent-length: 0005\r\n\r\nGET /");
    let chunked = format!(
        "POST {target} HTTP/1.1\r\nHost: portal.example\r\ntransfer-encoding:\tChunked \r\n\r\n\
         3;a=\"b c\"\r\nabc\r\n0000A\r\n0123456789\r\n0;x\r\nX-Sum: 1\r\n\r\n"
    );
    let many = [get.clone(), fixed.clone(), chunked.clone(), get.clone()].concat();
    [
        (get.clone(), 1),
        (fixed, 1),
        (chunked, 1),
        (many, 4),
        (get.repeat(20), 20),
        (format!("\r\n{get}\r\n{get}"), 2),
        (format!("GET {target} HTTP/1.0\r\n\r\n"), 1),
        (
            format!("GET http://Portal.Example{target} HTTP/1.1\r\nHost: portal.example\r\n\r\n"),
            1,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nHost: [::1]:80\r\nX-Empty:\r\nX: \u{444}\r\n\r\n"),
            1,
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: portal.example\r\n\r\n".into(), 1),
        (
            format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx"),
            1,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n{get}"),
            2,
        ),
        (
            format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
            1,
        ),
    ]
    .into_iter()
    .map(|(text, count)| (text.into_bytes(), count))
    .collect()
}
