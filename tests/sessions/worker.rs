//! A PHP process that opens one session again and again, and the judges of what such processes saw.

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
    pub end: End,
    pub number: u64,
    pub begun: u64,
    pub opened: u64,
    pub closing: u64,
    pub closed: u64,
}

pub struct Worker {
    pub node: String,
    pub session: String,
    pub handler: Handler,
    record: PathBuf,
    child: Child,
}

impl Worker {
    pub fn start(
        machine: &Machine,
        handler: Handler,
        session: &str,
        (seconds, held): (u64, u64),
        number: usize,
    ) -> Self {
        let record = machine.folder.join(format!("worker{number}"));
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
            node: machine.name.clone(),
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
        text.lines().filter_map(round).collect()
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

fn round(line: &str) -> Option<Round> {
    let mut words = line.split(' ');
    let end = match words.next()? {
        "W" => End::Written,
        "U" => End::Unknown,
        "F" => End::NotOpened,
        _ => return None,
    };
    let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    match (end, &numbers[..]) {
        (End::NotOpened, &[begun, opened]) => Some(Round {
            end,
            number: 0,
            begun,
            opened,
            closing: opened,
            closed: opened,
        }),
        (End::Written | End::Unknown, &[number, begun, opened, closing, closed]) => Some(Round {
            end,
            number,
            begun,
            opened,
            closing,
            closed,
        }),
        _ => None,
    }
}

/// A session that one process alone writes: each round must see what the one before has written.
pub fn lost(rounds: &[Round]) -> Vec<String> {
    let (mut written, mut perhaps) = (0, 0);
    let mut lost = Vec::new();
    for round in rounds.iter().filter(|round| round.end != End::NotOpened) {
        let seen = round.number - 1;
        if !(written..=perhaps.max(written)).contains(&seen) {
            lost.push(format!(
                "{seen} was there after {written} (perhaps {perhaps}): {round:?}"
            ));
        }
        match round.end {
            End::Written => (written, perhaps) = (round.number, round.number),
            _ => perhaps = round.number,
        }
    }
    lost
}

/// A session that several processes write, one at a time by its lock: nobody has it while another one has, and no number is
/// written twice.
pub fn doubled(mut rounds: Vec<Round>, lock: u64) -> Vec<String> {
    // Beyond its lock's life nobody is promised anything.
    rounds.retain(|round| round.end == End::Written && round.closed - round.begun < lock);
    rounds.sort_by_key(|round| round.opened);
    let pairs = rounds.windows(2);
    let bad = pairs.filter(|pair| pair[1].opened < pair[0].closing || pair[1].number <= pair[0].number);
    bad.map(|pair| format!("{:?} and {:?}", pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_find_what_is_wrong() {
        let rounds = |text: &str| -> Vec<Round> { text.lines().filter_map(round).collect() };
        assert!(
            lost(&rounds(
                "W 1 1 2 3 4\nU 2 5 6 7 8\nF 9 10\nW 2 11 12 13 14\nW 3 15 16 17 18"
            ))
            .is_empty()
        );
        assert_eq!(lost(&rounds("W 1 1 2 3 4\nW 1 5 6 7 8")).len(), 1);
        assert_eq!(
            lost(&rounds("W 1 1 2 3 4\nW 2 5 6 7 8\nU 3 9 9 9 9\nW 2 10 10 10 10")).len(),
            1
        );
        assert!(doubled(rounds("W 1 1 2 3 4\nW 2 1 5 6 7"), 100).is_empty());
        assert_eq!(doubled(rounds("W 1 1 2 6 7\nW 2 1 5 8 9"), 100).len(), 1);
        assert_eq!(doubled(rounds("W 1 1 2 3 4\nW 1 1 5 6 7"), 100).len(), 1);
    }
}
