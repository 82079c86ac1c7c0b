//! The access log: one line per request in the combined format, then `seconds id target tls coding "detail"`.
//! A thread of its own writes, so that no request ever waits for a disk.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};
use tracing::warn;

use super::exchange::Target;
use super::metrics::target_name;
use crate::base::clock;
use crate::metrics::Counter;

/// Lines that wait for the disk: a fraction of a second at full load, some 4 MiB. When full, lines are dropped and counted.
const WAITING: usize = 16384;

/// So long, or so many lines, are gathered for one write: waking the writer costs a request more than its line does.
/// A process that is killed loses them.
const GATHER: Duration = Duration::from_millis(100);
const BATCH: usize = 1024;

/// Longest text from a request within a line.
const LONGEST: usize = 4 << 10;

/// Handle for requests. When the last one goes, the writer writes what is left and ends.
#[derive(Clone, Debug)]
pub struct AccessLog {
    end: Arc<End>,
    dropped: Counter,
}

/// Ends the writer with the last handle.
#[derive(Debug)]
struct End {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<Line>,
    reopen: bool,
    is_over: bool,
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.reopen && !self.is_over
    }

    fn may_gather(&self) -> bool {
        self.lines.len() < BATCH && !self.reopen && !self.is_over
    }
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
    /// Content coding of the answer.
    pub coding: Option<&'static str>,
    /// What went wrong; empty: nothing.
    pub detail: String,
}

impl AccessLog {
    /// Opens the file for appending and starts the writer.
    pub fn open(path: &Path, dropped: Counter) -> io::Result<Self> {
        let file = append(path)?;
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            path: path.to_path_buf(),
            file,
            dropped: dropped.clone(),
            is_failing: false,
        };
        let of_writer = shared.clone();
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&of_writer))?;
        let end = Arc::new(End {
            shared,
            writer: Some(writer),
        });
        Ok(AccessLog { end, dropped })
    }

    /// Never waits for the disk.
    pub fn write(&self, line: Line) {
        let mut waiting = self.end.shared.lock();
        if waiting.lines.len() >= WAITING {
            drop(waiting);
            self.dropped.inc();
            return;
        }
        waiting.lines.push(line);
        let tells = matches!(waiting.lines.len(), 1 | BATCH);
        drop(waiting);
        if tells {
            self.end.shared.changed.notify_one();
        }
    }

    /// Opens the file anew, after a log rotation.
    pub fn reopen(&self) {
        self.end.shared.lock().reopen = true;
        self.end.shared.changed.notify_one();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // It panicked or it is done; there is nobody to tell.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics under this lock")
    }

    /// What has gathered, once something has.
    fn gathered(&self) -> Waiting {
        let idle = self.changed.wait_while(self.lock(), |waiting| waiting.is_idle());
        let some = idle.expect("nothing panics under this lock");
        let full = self
            .changed
            .wait_timeout_while(some, GATHER, |waiting| waiting.may_gather());
        let (mut waiting, _) = full.expect("nothing panics under this lock");
        let is_over = waiting.is_over;
        Waiting {
            is_over,
            ..std::mem::take(&mut *waiting)
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
    fn run(mut self, shared: &Shared) {
        let mut text = String::new();
        loop {
            let Waiting { lines, reopen, is_over } = shared.gathered();
            lines.iter().for_each(|line| line.render(&mut text));
            self.flush(&mut text, lines.len() as u64);
            if reopen {
                self.reopen();
            }
            if is_over {
                return;
            }
        }
    }

    fn flush(&mut self, text: &mut String, lines: u64) {
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            self.dropped.inc_by(lines);
            if !self.is_failing {
                warn!(path = %self.path.display(), %error, "cannot write the access log");
            }
            self.is_failing = true;
        } else {
            self.is_failing = false;
        }
        text.clear();
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
            coding: None,
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
        let coding = self.coding.unwrap_or("-");
        let _ = write!(
            out,
            "\" {:.3} {} {target} {tls} {coding} \"",
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
            coding: Some("br"),
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
             0.012 0123456789abcdef php TLSv1.3 br \"-\"\n"
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
        let log = AccessLog::open(&path, Counter::default()).expect("opened");
        log.write(line());
        std::fs::rename(&path, folder.path().join("access.log.1")).expect("rotated");
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        log.write(line());
        drop(log);
        for name in ["access.log.1", "access.log"] {
            let text = std::fs::read_to_string(folder.path().join(name)).expect("readable");
            assert_eq!(text.matches("10.0.0.1 ").count(), 1, "{name}");
        }
    }

    #[test]
    fn a_slow_disk_drops_lines_and_nothing_else() {
        let end = End {
            shared: Arc::default(),
            writer: None,
        };
        let log = AccessLog {
            end: Arc::new(end),
            dropped: Counter::default(),
        };
        (0..WAITING).for_each(|_| log.write(line()));
        assert_eq!(log.dropped.get(), 0);
        log.write(line());
        assert_eq!(log.dropped.get(), 1);
        assert_eq!(log.end.shared.lock().lines.len(), WAITING);
    }
}
