//! The access log: one line per request in the combined format, then `seconds id target tls "detail"`.
//! A thread of its own writes, so that no request ever waits for a disk.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};
use tracing::warn;

use super::exchange::Target;
use super::metrics::target_name;
use crate::base::clock;
use crate::metrics::Counter;

/// Lines that wait for the disk: half a second at full load, some 2 MiB. When full, lines are dropped and counted.
const WAITING: usize = 8192;

/// Bytes written at once.
const BATCH: usize = 64 << 10;

/// Longest text from a request within a line.
const LONGEST: usize = 4 << 10;

/// Handle for requests. The thread ends with the last one.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sender: SyncSender<Message>,
    dropped: Counter,
}

#[derive(Debug)]
enum Message {
    Line(Box<Line>),
    Reopen,
}

/// What the request asked for.
#[derive(Clone, Debug)]
pub enum Asked {
    Request(Method, Uri, Version),
    /// A first line that is no request line.
    Raw(String),
}

/// One request's story.
#[derive(Clone, Debug)]
pub struct Line {
    pub peer: IpAddr,
    /// When its header had come.
    pub at: SystemTime,
    pub asked: Asked,
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    pub referer: Option<HeaderValue>,
    pub agent: Option<HeaderValue>,
    pub duration: Duration,
    pub id: String,
    pub target: Target,
    pub tls: Option<&'static str>,
    /// What went wrong; empty: nothing.
    pub detail: String,
}

impl AccessLog {
    /// Opens the file for appending and starts the writer.
    pub fn open(path: &Path, dropped: Counter) -> io::Result<Self> {
        let file = append(path)?;
        let (sender, receiver) = sync_channel(WAITING);
        let writer = Writer {
            path: path.to_path_buf(),
            file,
            dropped: dropped.clone(),
            is_failing: false,
        };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&receiver))?;
        Ok(AccessLog { sender, dropped })
    }

    /// Never waits.
    pub fn write(&self, line: Line) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(Message::Line(Box::new(line)))
        {
            self.dropped.inc();
        }
    }

    /// Opens the file anew, after a log rotation. A writer that is too busy to hear it will be told at the next reload.
    pub fn reopen(&self) {
        if self.sender.try_send(Message::Reopen).is_err() {
            warn!("the access log is too busy to be reopened");
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    dropped: Counter,
    is_failing: bool,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut batch = String::with_capacity(BATCH);
        let mut lines = 0;
        while let Ok(first) = receiver.recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Line(line) => {
                        line.render(&mut batch);
                        lines += 1;
                    }
                    Message::Reopen => {
                        self.flush(&mut batch, &mut lines);
                        self.reopen();
                    }
                }
                next = if batch.len() < BATCH {
                    receiver.try_recv().ok()
                } else {
                    None
                };
            }
            self.flush(&mut batch, &mut lines);
        }
    }

    fn flush(&mut self, batch: &mut String, lines: &mut u64) {
        if let Err(error) = self.file.write_all(batch.as_bytes()) {
            self.dropped.inc_by(*lines);
            if !self.is_failing {
                warn!(path = %self.path.display(), %error, "cannot write the access log");
            }
            self.is_failing = true;
        } else {
            self.is_failing = false;
        }
        batch.clear();
        *lines = 0;
    }

    fn reopen(&mut self) {
        match append(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => warn!(path = %self.path.display(), %error, "cannot reopen the access log"),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Line {
    /// A connection that was one too many; nothing was read from it.
    pub fn turned_away(peer: IpAddr, status: u16) -> Self {
        Line {
            peer,
            at: clock::wall(),
            asked: Asked::Raw("-".into()),
            status,
            bytes: 0,
            referer: None,
            agent: None,
            duration: Duration::ZERO,
            id: "-".into(),
            target: Target::None,
            tls: None,
            detail: "too many connections".into(),
        }
    }

    fn render(&self, out: &mut String) {
        let _ = write!(out, "{} - - [{}] \"", self.peer, Stamp(self.at));
        match &self.asked {
            Asked::Request(method, uri, version) => {
                let _ = write!(Escape(out), "{method} {uri} {version:?}");
            }
            Asked::Raw(line) => escape(out, line.chars()),
        }
        let _ = write!(out, "\" {} {} \"", self.status, self.bytes);
        header(out, self.referer.as_ref());
        out.push_str("\" \"");
        header(out, self.agent.as_ref());
        let target = target_name(self.target);
        let tls = self.tls.unwrap_or("-");
        let _ = write!(
            out,
            "\" {:.3} {} {target} {tls} \"",
            self.duration.as_secs_f64(),
            self.id
        );
        let detail = if self.detail.is_empty() { "-" } else { &self.detail };
        escape(out, detail.chars());
        out.push_str("\"\n");
    }
}

fn header(out: &mut String, value: Option<&HeaderValue>) {
    match value {
        Some(value) => escape(out, value.as_bytes().iter().copied().map(char::from)),
        None => out.push('-'),
    }
}

/// Nothing from a request may end a line, close a quote or drive a terminal.
fn escape(out: &mut String, text: impl Iterator<Item = char>) {
    for character in text.take(LONGEST) {
        match character {
            '"' | '\\' => {
                let _ = write!(out, "\\{character}");
            }
            ' '..='~' => out.push(character),
            other => {
                let _ = write!(out, "\\x{:02x}", u32::from(other));
            }
        }
    }
}

struct Escape<'a>(&'a mut String);

impl std::fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        escape(self.0, text.chars());
        Ok(())
    }
}

/// `22/Nov/2026:06:15:04 +0000`.
struct Stamp(SystemTime);

impl std::fmt::Display for Stamp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `Sun, 22 Nov 2026 06:15:04 GMT`
        let date = httpdate::fmt_http_date(self.0);
        let mut words = date.split(' ').skip(1);
        let mut word = || words.next().unwrap_or_default();
        let (day, month, year, time) = (word(), word(), word(), word());
        write!(out, "{day}/{month}/{year}:{time} +0000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            peer: "10.0.0.1".parse().expect("address"),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_328_104),
            asked: Asked::Request(Method::GET, Uri::from_static("/a?b"), Version::HTTP_2),
            status: 200,
            bytes: 17,
            referer: None,
            agent: Some(HeaderValue::from_bytes(b"evil\" \t\xff").expect("value")),
            duration: Duration::from_micros(12_345),
            id: "0123456789abcdef".into(),
            target: Target::Php,
            tls: Some("TLSv1.3"),
            detail: String::new(),
        }
    }

    #[test]
    fn line_is_combined_format_and_more() {
        let mut out = String::new();
        line().render(&mut out);
        assert_eq!(
            out,
            "10.0.0.1 - - [22/Nov/2026:06:15:04 +0000] \"GET /a?b HTTP/2.0\" 200 17 \"-\" \"evil\\\" \\x09\\xff\" \
             0.012 0123456789abcdef php TLSv1.3 \"-\"\n"
        );
    }

    #[test]
    fn nothing_in_a_request_forges_a_line() {
        let mut forged = line();
        forged.asked = Asked::Raw("GET /\r\n10.0.0.2 - \u{1b}[2J\" \\".into());
        forged.detail = "a\nb".into();
        let mut out = String::new();
        forged.render(&mut out);
        assert_eq!(out.matches('\n').count(), 1);
        assert!(out.contains("GET /\\x0d\\x0a10.0.0.2 - \\x1b[2J\\\" \\\\"), "{out}");
        assert!(out.ends_with("\"a\\x0ab\"\n"), "{out}");
    }

    #[test]
    fn rotated_file_is_left_and_a_new_one_begun() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("access.log");
        let mut writer = Writer {
            path: path.clone(),
            file: append(&path).expect("opened"),
            dropped: Counter::default(),
            is_failing: false,
        };
        writer.flush(&mut "one\n".to_string(), &mut 1);
        std::fs::rename(&path, folder.path().join("access.log.1")).expect("rotated");
        let (sender, receiver) = sync_channel(4);
        sender.send(Message::Reopen).expect("room");
        sender.send(Message::Line(Box::new(line()))).expect("room");
        drop(sender);
        writer.run(&receiver);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("readable");
        assert_eq!(read("access.log.1"), "one\n");
        assert!(read("access.log").starts_with("10.0.0.1 "));
    }

    #[test]
    fn a_slow_disk_drops_lines_and_nothing_else() {
        let (sender, receiver) = sync_channel(1);
        let log = AccessLog {
            sender,
            dropped: Counter::default(),
        };
        log.write(line());
        log.write(line());
        assert_eq!(log.dropped.get(), 1);
        drop(receiver);
        log.write(line());
        assert_eq!(log.dropped.get(), 2);
    }
}
