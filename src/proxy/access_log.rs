//! The access log: one line per request in the combined format, then `seconds id target tls coding "detail"`.
//! A thread of its own writes, so that no request ever waits for a disk.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::warn;

use super::log_line::Pen;
pub use super::log_line::{Asked, Line};
use crate::metrics::Counter;

/// Bytes that wait for the disk: a fraction of a second at full load. When full, lines are dropped and counted.
const WAITING: usize = 4 << 20;

/// So long, or so many bytes, are gathered for one write: waking the writer costs a request more than its line does.
/// A process that is killed loses them.
const GATHER: Duration = Duration::from_millis(100);
const BATCH: usize = 64 << 10;

thread_local! {
    static PEN: RefCell<Pen> = RefCell::default();
}

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

/// Text, not lines: what a line tells of is a part of the buffer that its client's next request is to be read into.
#[derive(Debug, Default)]
struct Waiting {
    text: String,
    /// How many lines that is.
    lines: u64,
    reopen: bool,
    is_over: bool,
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.text.is_empty() && !self.reopen && !self.is_over
    }

    fn may_gather(&self) -> bool {
        self.text.len() < BATCH && !self.reopen && !self.is_over
    }
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
    pub fn write(&self, line: &Line) {
        PEN.with_borrow_mut(|pen| self.push(pen.render(line)));
    }

    fn push(&self, line: &str) {
        let mut waiting = self.end.shared.lock();
        let before = waiting.text.len();
        let after = before + line.len();
        if after > WAITING {
            drop(waiting);
            self.dropped.inc();
            return;
        }
        waiting.text.push_str(line);
        waiting.lines += 1;
        drop(waiting);
        if before == 0 || (before < BATCH && after >= BATCH) {
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

    /// What has gathered, once something has. `empty` takes its place.
    fn gathered(&self, empty: String) -> Waiting {
        let idle = self.changed.wait_while(self.lock(), |waiting| waiting.is_idle());
        let some = idle.expect("nothing panics under this lock");
        let full = self
            .changed
            .wait_timeout_while(some, GATHER, |waiting| waiting.may_gather());
        let (mut waiting, _) = full.expect("nothing panics under this lock");
        let next = Waiting {
            text: empty,
            is_over: waiting.is_over,
            ..Waiting::default()
        };
        std::mem::replace(&mut *waiting, next)
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
            let gathered = shared.gathered(text);
            let Waiting {
                lines, reopen, is_over, ..
            } = gathered;
            text = gathered.text;
            self.flush(&mut text, lines);
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
        text.shrink_to(2 * BATCH);
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::log_line::tests::line;

    #[test]
    fn rotated_file_is_left_and_a_new_one_begun() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("access.log");
        let log = AccessLog::open(&path, Counter::default()).expect("opened");
        log.write(&line());
        std::fs::rename(&path, folder.path().join("access.log.1")).expect("rotated");
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        log.write(&line());
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
        let fitting = (WAITING / Pen::default().render(&line()).len()) as u64;
        (0..fitting).for_each(|_| log.write(&line()));
        assert_eq!(log.dropped.get(), 0);
        log.write(&line());
        assert_eq!(log.dropped.get(), 1);
        assert_eq!(log.end.shared.lock().lines, fitting);
    }
}
