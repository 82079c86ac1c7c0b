//! The load of `db.py`: clients of a MySQL server, a thread each.
//!
//!     db_load ADDRESS connect|select CLIENTS SECONDS [RATE]
//!
//! `connect`: a connection, `SELECT 1`, and its end, again and again, as PHP does; with RATE so many a second of all together, each at its
//! time whatever became of the others. `select`: a row by its key, on a connection that stays. Prints what was answered, what failed, the
//! seconds, and microseconds: median, 99th of a hundred, longest.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const USER: &[u8] = b"bench";
/// As patient as PHP.
const PATIENCE: Duration = Duration::from_secs(10);
const ROWS: u64 = 10_000;
/// PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, TRANSACTIONS.
const FLAGS: u32 = 0x200 | 0x8000 | 0x8_0000 | 0x2000;

struct Client {
    stream: TcpStream,
    packet: Vec<u8>,
}

fn bad(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

impl Client {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client {
            stream,
            packet: Vec::new(),
        };
        client.read()?;
        if client.packet.first() != Some(&10) {
            return Err(bad("no greeting"));
        }
        let mut answer = Vec::new();
        answer.extend(FLAGS.to_le_bytes());
        answer.extend((16_u32 << 20).to_le_bytes());
        answer.push(45);
        answer.extend([0; 23]);
        answer.extend(USER);
        // The end of the name, and a password of no length.
        answer.extend([0, 0]);
        answer.extend(b"mysql_native_password\0");
        client.write(1, &answer)?;
        client.read()?;
        match client.packet.first() {
            Some(0) => Ok(client),
            _ => Err(bad("not let in")),
        }
    }

    fn write(&mut self, sequence: u8, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], sequence];
        packet.extend(body);
        self.stream.write_all(&packet)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        self.packet.resize(length as usize, 0);
        self.stream.read_exact(&mut self.packet)
    }

    /// Rows of the answer.
    fn ask(&mut self, query: &str) -> io::Result<usize> {
        let mut body = vec![3];
        body.extend(query.as_bytes());
        self.write(0, &body)?;
        self.read()?;
        if matches!(self.packet.first(), None | Some(0xff)) {
            return Err(bad("an error in the place of an answer"));
        }
        let (mut ends, mut rows) = (0, 0);
        while ends < 2 {
            self.read()?;
            match (self.packet.first(), self.packet.len()) {
                (Some(0xfe), 0..9) => ends += 1,
                (Some(0xff), _) => return Err(bad("an error in the midst of an answer")),
                _ if ends == 1 => rows += 1,
                _ => {}
            }
        }
        Ok(rows)
    }

    fn close(mut self) -> io::Result<()> {
        self.write(0, &[1])
    }
}

fn once(address: &str) -> io::Result<()> {
    let mut client = Client::open(address)?;
    match client.ask("SELECT 1")? {
        1 => client.close(),
        _ => Err(bad("another answer")),
    }
}

/// A client's part; returns microseconds of each answer, and how many failed.
fn work(words: &[String], next: &AtomicU64, begin: Instant, seconds: f64) -> (Vec<u32>, u64) {
    let (address, kind) = (words[1].as_str(), words[2].as_str());
    let rate: Option<f64> = words.get(5).map(|word| word.parse().expect("a rate"));
    let end = begin + Duration::from_secs_f64(seconds);
    let mut kept = match kind {
        "select" => Some(Client::open(address).expect("a connection")),
        _ => None,
    };
    let (mut times, mut failed) = (Vec::new(), 0);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let mut from = Instant::now();
        if let Some(rate) = rate {
            from = begin + Duration::from_secs_f64(number as f64 / rate);
            std::thread::sleep(from.saturating_duration_since(Instant::now()));
        }
        if from >= end {
            return (times, failed);
        }
        let done = match &mut kept {
            None => once(address),
            Some(client) => {
                let query = format!("SELECT text FROM bench.points WHERE id = {}", number.wrapping_mul(7919) % ROWS);
                client.ask(&query).and_then(|rows| if rows == 1 { Ok(()) } else { Err(bad("no row")) })
            }
        };
        match done {
            Ok(()) => times.push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX)),
            Err(error) => {
                if failed == 0 {
                    eprintln!("{error}");
                }
                failed += 1;
            }
        }
    }
}

fn main() {
    let words: Arc<Vec<String>> = Arc::new(std::env::args().collect());
    let (clients, seconds) = (words[3].parse::<usize>().expect("clients"), words[4].parse::<f64>().expect("seconds"));
    let (next, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new((Vec::new(), 0))));
    let begin = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (words, next, all) = (words.clone(), next.clone(), all.clone());
            std::thread::spawn(move || {
                let (times, failed) = work(&words, &next, begin, seconds);
                let mut all = all.lock().expect("nobody panics with it");
                all.0.extend(times);
                all.1 += failed;
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a client panicked");
    }
    let took = begin.elapsed().as_secs_f64();
    let mut all = all.lock().expect("nobody panics with it");
    all.0.sort_unstable();
    let at = |share: f64| {
        let place = (all.0.len() as f64 * share) as usize;
        all.0.get(place.min(all.0.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    println!("{} {} {took:.3} {} {} {}", all.0.len(), all.1, at(0.5), at(0.99), at(1.0));
}
