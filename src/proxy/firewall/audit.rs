//! The firewall's log: one line of JSON per request, and per answer, in which something was found, written by a thread of its own.
//! Whoever attacks writes here, too: lines are short, and only so many a second are taken. Secrets stay out.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::base::clock;
use crate::metrics::Counter;
use crate::proxy::exchange::Exchange;
use crate::proxy::waf::{Hit, Report};

/// Lines that wait for the disk. When full, further ones are dropped and counted.
const WAITING: usize = 1024;
/// At some hundred bytes a line, a day of attack stays below ten gigabytes.
const MOST_A_SECOND: u32 = 200;
const MOST_HITS: usize = 32;
const LONGEST: usize = 300;

/// What became of a request, or of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Passed,
    Detected,
    Blocked,
    FailedOpen,
    FailedClosed,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub time: String,
    /// The request's, as in the access log.
    pub id: String,
    pub client: String,
    pub method: String,
    pub host: String,
    pub path: String,
    pub action: Action,
    pub score: i64,
    /// The rule that refused it, or would have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u64>,
    pub hits: Vec<Found>,
    /// Bytes that the rules looked at.
    pub work: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The line is about the answer to that request: what went out, or was held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answered>,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub status: u16,
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of its body that were looked at.
    pub size: usize,
    /// There were no more.
    pub is_whole: bool,
}

/// A rule that matched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    pub rule: u64,
    pub target: String,
    pub message: String,
    /// `None`: it may hold a secret.
    pub data: Option<String>,
}

impl Entry {
    pub fn new(exchange: &Exchange, report: &Report, action: Action) -> Self {
        let fault = match report.is_exhausted {
            true => Some("more work than waf.max_work".to_string()),
            false => report.body_fault.as_deref().map(cut),
        };
        Entry {
            time: clock::stamp(clock::wall()).to_string(),
            id: exchange.id.to_string(),
            client: exchange.peer.ip().to_string(),
            method: cut(exchange.request.method.as_str()),
            host: cut(&exchange.host),
            path: cut(&without_token(exchange.path.as_str())),
            action,
            score: report.score,
            rule: report.refused.map(|refused| refused.rule),
            hits: report.hits.iter().take(MOST_HITS).map(Found::new).collect(),
            work: report.work,
            fault,
            answer: None,
        }
    }

    pub fn of_answer(exchange: &Exchange, report: &Report, action: Action, seen: Answered) -> Self {
        Entry {
            score: report.outbound_score,
            answer: Some(Answered {
                kind: cut(&seen.kind),
                ..seen
            }),
            ..Entry::new(exchange, report, action)
        }
    }
}

impl Found {
    fn new(hit: &Hit) -> Self {
        Found {
            rule: hit.id,
            target: cut(&hit.target),
            message: match hit.is_secret {
                true => String::new(),
                false => cut(&hit.message),
            },
            data: (!hit.is_secret).then(|| cut(&hit.data)),
        }
    }
}

/// `/rest/1/token/method`: who has the token is let in.
fn without_token(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    if let [_, "rest", _, token, _, ..] = &mut parts[..] {
        *token = "***";
    }
    parts.join("/")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Handle for requests. When it goes, the writer writes what waits, and ends.
pub struct Audit {
    lines: SyncSender<Order>,
    pace: Mutex<Pace>,
    dropped: Counter,
    #[cfg(test)]
    writer: std::thread::JoinHandle<()>,
}

enum Order {
    Write(Box<Entry>),
    Reopen,
}

struct Pace {
    since: Instant,
    count: u32,
}

impl Audit {
    pub fn open(path: &Path, dropped: Counter) -> io::Result<Self> {
        let file = append(path)?;
        let (lines, orders) = sync_channel(WAITING);
        let path = path.to_path_buf();
        let counted = dropped.clone();
        let _writer = std::thread::Builder::new()
            .name("waf-log".into())
            .spawn(move || write_all(orders, file, &path, &counted))?;
        let pace = Pace {
            since: Instant::now(),
            count: 0,
        };
        Ok(Audit {
            lines,
            pace: Mutex::new(pace),
            dropped,
            #[cfg(test)]
            writer: _writer,
        })
    }

    /// The writer, which ends now.
    #[cfg(test)]
    pub fn finish(self) -> Option<std::thread::JoinHandle<()>> {
        Some(self.writer)
    }

    /// Never waits for the disk.
    pub fn write(&self, entry: Entry) {
        let is_taken = self.pace.lock().expect("nothing panics under this lock").take();
        if !is_taken || self.lines.try_send(Order::Write(Box::new(entry))).is_err() {
            self.dropped.inc();
        }
    }

    /// Opens the file anew, after a log rotation.
    pub fn reopen(&self) {
        let _ = self.lines.try_send(Order::Reopen);
    }
}

impl Pace {
    fn take(&mut self) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Pace {
                since: Instant::now(),
                count: 0,
            };
        }
        self.count += 1;
        self.count <= MOST_A_SECOND
    }
}

fn write_all(orders: Receiver<Order>, mut file: File, path: &Path, dropped: &Counter) {
    for order in orders {
        let written = match order {
            Order::Write(entry) => write_line(&mut file, &entry),
            Order::Reopen => append(path).map(|opened| file = opened),
        };
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot write the firewall's log");
            dropped.inc();
        }
    }
}

fn write_line(file: &mut File, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    file.write_all(&line)
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Not for everybody: what was attacked says something of the portal.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_and_lines_short() {
        let hit = |is_secret| Hit {
            id: 7,
            message: "m".into(),
            data: "x".repeat(1000),
            target: "ARGS:q".into(),
            severity: None,
            tags: Vec::new(),
            is_deny: false,
            is_secret,
        };
        assert_eq!(Found::new(&hit(true)).data, None);
        assert_eq!(Found::new(&hit(false)).data.unwrap().chars().count(), LONGEST + 1);
        assert_eq!(without_token("/rest/1/abc/user.get"), "/rest/1/***/user.get");
        assert_eq!(without_token("/company/1/abc/"), "/company/1/abc/");
    }

    #[test]
    fn a_flood_does_not_fill_the_disk() {
        let mut pace = Pace {
            since: Instant::now() + Duration::from_secs(3600),
            count: 0,
        };
        let taken = (0..10 * MOST_A_SECOND).filter(|_| pace.take()).count();
        assert_eq!(taken, MOST_A_SECOND as usize);
    }
}
