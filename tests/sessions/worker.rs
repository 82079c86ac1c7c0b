//! A PHP process that opens one session again and again, and its record of what it saw.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::machine::Machine;

const PHP: &str = "/usr/bin/php8.2";

/// Of PHP's extensions, and the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    MemcachedBinary,
    MemcachedAscii,
    Memcache,
}

/// How one round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Written,
    Unknown,
    NotOpened,
}

/// One round; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Of which machine the process is, from 0.
    pub at: usize,
    pub handler: Handler,
    pub end: End,
    pub number: u64,
    pub begun: u64,
    pub opened: u64,
    pub closing: u64,
    pub closed: u64,
}

pub struct Worker {
    pub at: usize,
    pub session: String,
    pub handler: Handler,
    record: PathBuf,
    child: Child,
}

impl Worker {
    /// On machine `at`, for so many seconds; a round holds the session so many microseconds.
    pub fn start(machine: &Machine, at: usize, handler: Handler, session: &str, (seconds, held): (u64, u64)) -> Self {
        let record = machine.folder.join(format!("{session}-{handler:?}"));
        let mut command = machine.inside(Path::new(PHP), &[]);
        for setting in settings(handler) {
            command.args(["-d", &setting]);
        }
        command.arg(format!(
            "{}/tests/data/php/session_loop.php",
            env!("CARGO_MANIFEST_DIR")
        ));
        command.args([session, &seconds.to_string(), &held.to_string()]);
        command.stdout(File::create(&record).unwrap()).stderr(Stdio::null());
        Worker {
            at,
            session: session.to_string(),
            handler,
            record,
            child: command.spawn().unwrap(),
        }
    }

    /// Waits for its end, which it knows itself.
    pub fn rounds(&mut self) -> Vec<Round> {
        self.child.wait().unwrap();
        let text = std::fs::read_to_string(&self.record).unwrap();
        text.lines()
            .filter_map(|line| round(line, self.at, self.handler))
            .collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(handler: Handler) -> Vec<String> {
    let mut settings: Vec<String> = match handler {
        Handler::Memcache => [
            "session.save_handler=memcache",
            "session.save_path=tcp://127.0.0.1:11211",
        ]
        .map(String::from)
        .into(),
        _ => ["session.save_handler=memcached", "session.save_path=127.0.0.1:11211"]
            .map(String::from)
            .into(),
    };
    let is_binary = u8::from(handler == Handler::MemcachedBinary);
    settings.push(format!("memcached.sess_binary_protocol={is_binary}"));
    // A command line has no time limit that a lock could end with.
    settings.push("memcached.sess_lock_expire=3".to_string());
    settings.push("memcached.sess_lock_retries=40".to_string());
    settings
}

/// A line of the record; `None` where the process was ended while it wrote.
pub fn round(line: &str, at: usize, handler: Handler) -> Option<Round> {
    let mut words = line.split(' ');
    let end = match words.next()? {
        "W" => End::Written,
        "U" => End::Unknown,
        "F" => End::NotOpened,
        _ => return None,
    };
    let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    let (number, begun, opened, closing, closed) = match (end, &numbers[..]) {
        (End::NotOpened, &[begun, ended]) => (0, begun, ended, ended, ended),
        (End::Written | End::Unknown, &[number, begun, opened, closing, closed]) => {
            (number, begun, opened, closing, closed)
        }
        _ => return None,
    };
    Some(Round {
        at,
        handler,
        end,
        number,
        begun,
        opened,
        closing,
        closed,
    })
}
