//! Load on one memcached-protocol server from one thread. `cache.py` drives it.
//!
//! ```text
//! cache_load ADDRESS fill KEYS KEY_SIZE VALUE_SIZE
//! cache_load ADDRESS get|set KEYS KEY_SIZE VALUE_SIZE CONNECTIONS DEPTH MULTI SECONDS
//! ```
//! `KEYS` is how many, or `@FILE` with a key on each line; `KEY_SIZE` has no meaning then.
//!
//! A connection sends `DEPTH` commands at once and waits for all their replies; a `get` asks for `MULTI` keys. Every reply is
//! compared with what it must be, but for the order of the values of one `get`, so that a server cannot win by answering wrongly.
//! Prints commands and seconds.
//!
//! Needs nothing but the standard library: `rustc` makes it in seconds. The connections are asked in turns without ever waiting, which
//! keeps a processor of its own busy and gives the server no pauses.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Commands of one write while filling.
const FILL_DEPTH: usize = 64;

struct Shape {
    keys: Vec<String>,
    value_size: usize,
}

impl Shape {
    fn new(keys: &str, key_size: usize, value_size: usize) -> Self {
        let keys = match keys.strip_prefix('@') {
            Some(file) => {
                let text = std::fs::read_to_string(file).expect("a file of keys");
                text.lines().map(String::from).collect()
            }
            None => (0..keys.parse::<usize>().expect("a number of keys"))
                .map(|number| format!("{number:0>key_size$}"))
                .collect(),
        };
        Shape { keys, value_size }
    }

    fn key(&self, number: usize) -> &str {
        &self.keys[number % self.keys.len()]
    }

    fn value(&self) -> String {
        "v".repeat(self.value_size)
    }

    fn set(&self, number: usize) -> String {
        format!(
            "set {} 0 0 {}\r\n{}\r\n",
            self.key(number),
            self.value_size,
            self.value()
        )
    }

    /// A `get` of some keys and its reply.
    fn get(&self, number: usize, multi: usize) -> (String, String) {
        let (mut request, mut reply) = ("get".to_string(), String::new());
        for key in (number..number + multi).map(|number| self.key(number)) {
            request += &format!(" {key}");
            reply += &format!("VALUE {key} 0 {}\r\n{}\r\n", self.value_size, self.value());
        }
        (request + "\r\n", reply + "END\r\n")
    }
}

/// What a connection sends at once, and what must come back.
struct Exchange {
    request: Vec<u8>,
    reply: Vec<u8>,
    /// The same values in another order, which a server may choose that asks others; it was seen and found right.
    other: Vec<u8>,
}

impl Exchange {
    fn new(parts: impl Iterator<Item = (String, String)>) -> Self {
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        for (asked, answered) in parts {
            request.extend_from_slice(asked.as_bytes());
            reply.extend_from_slice(answered.as_bytes());
        }
        let other = Vec::new();
        Exchange { request, reply, other }
    }

    fn check(&mut self, seen: &[u8]) {
        if self.reply == seen || self.other == seen {
            return;
        }
        let start = String::from_utf8_lossy(&seen[..seen.len().min(200)]);
        assert!(sorted(&self.reply) == sorted(seen), "a wrong reply: {start}");
        self.other = seen.to_vec();
    }
}

/// What was answered, by command, whatever the order of the values of each.
fn sorted(reply: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(reply).into_owned();
    let commands = text.split("END\r\n").map(|command| {
        let mut values: Vec<String> = command.split("VALUE ").map(String::from).collect();
        values.sort();
        values
    });
    commands.collect()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    stream
}

fn fill(address: SocketAddr, shape: &Shape) {
    let mut stream = connect(address);
    for first in (0..shape.keys.len()).step_by(FILL_DEPTH) {
        let last = shape.keys.len().min(first + FILL_DEPTH);
        let parts = (first..last).map(|number| (shape.set(number), "STORED\r\n".to_string()));
        let mut exchange = Exchange::new(parts);
        stream.write_all(&exchange.request).expect("send");
        let mut seen = vec![0; exchange.reply.len()];
        stream.read_exact(&mut seen).expect("receive");
        exchange.check(&seen);
    }
}

/// One connection's exchanges, made before the clock runs: each connection takes keys of its own order.
fn exchanges(operation: &str, shape: &Shape, connection: usize, depth: usize, multi: usize) -> Vec<Exchange> {
    const VARIETY: usize = 16;
    let number = |round: usize, place: usize| connection * 7919 + (round * depth + place) * multi;
    let one = |round: usize| match operation {
        "get" => Exchange::new((0..depth).map(|place| shape.get(number(round, place), multi))),
        "set" => Exchange::new((0..depth).map(|place| (shape.set(number(round, place)), "STORED\r\n".to_string()))),
        other => panic!("no operation {other}"),
    };
    (0..VARIETY).map(one).collect()
}

struct Connection {
    stream: TcpStream,
    exchanges: Vec<Exchange>,
    round: usize,
    sent: usize,
    seen: Vec<u8>,
    received: usize,
}

impl Connection {
    fn new(address: SocketAddr, exchanges: Vec<Exchange>) -> Self {
        let stream = connect(address);
        stream.set_nonblocking(true).expect("set O_NONBLOCK");
        let most = exchanges.iter().map(|exchange| exchange.reply.len()).max();
        Connection {
            stream,
            exchanges,
            round: 0,
            sent: 0,
            seen: vec![0; most.unwrap_or_default()],
            received: 0,
        }
    }

    /// Sends and receives what can be without waiting. Returns whether an exchange has ended with it.
    fn advance(&mut self) -> bool {
        let exchange = &mut self.exchanges[self.round];
        if self.sent < exchange.request.len() {
            self.sent += moved(self.stream.write(&exchange.request[self.sent..]));
        }
        let length = exchange.reply.len();
        self.received += moved(self.stream.read(&mut self.seen[self.received..length]));
        if self.received < length {
            return false;
        }
        exchange.check(&self.seen[..length]);
        self.round = (self.round + 1) % self.exchanges.len();
        (self.sent, self.received) = (0, 0);
        true
    }
}

fn moved(result: std::io::Result<usize>) -> usize {
    match result {
        Ok(0) => panic!("the server has closed"),
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// Exchanges that ended, and in how many seconds.
fn run(connections: &mut [Connection], seconds: f64) -> (usize, f64) {
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(seconds);
    let mut count = 0;
    while Instant::now() < end {
        count += connections
            .iter_mut()
            .map(|one| usize::from(one.advance()))
            .sum::<usize>();
    }
    (count, started.elapsed().as_secs_f64())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| words[place].parse::<usize>().expect("a number");
    let address: SocketAddr = words[0].parse().expect("an address");
    let shape = Shape::new(&words[2], number(3), number(4));
    if words[1] == "fill" {
        return fill(address, &shape);
    }
    let (connections, depth, multi) = (number(5), number(6), number(7));
    let mut all: Vec<Connection> = (0..connections)
        .map(|connection| Connection::new(address, exchanges(&words[1], &shape, connection, depth, multi)))
        .collect();
    let (count, seconds) = run(&mut all, words[8].parse().expect("seconds"));
    println!("{} {seconds}", count * depth);
}
