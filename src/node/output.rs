//! Log lines of the supervisor and its children: to standard error, which the journal reads,
//! and where there is no journal also to a file that is rotated by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tracing_subscriber::fmt::MakeWriter;

use crate::base::clock;

/// Longest line that is passed on in one piece.
const LONGEST_LINE: u64 = 8 << 10;
/// Size at which the file is set aside, and how many older ones are kept.
const FILE_SIZE: u64 = 16 << 20;
const OLDER_FILES: u32 = 3;

/// Cheap handle.
#[derive(Clone)]
pub struct Output {
    file: Option<Arc<Mutex<LogFile>>>,
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

/// How a child's lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Already with time and module name.
    Ours,
    /// Bare: of an external program.
    Foreign(&'static str),
}

impl Output {
    /// Under the journal, which keeps the lines itself.
    pub fn journal() -> Self {
        Output { file: None }
    }

    /// Without a journal.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = LogFile::open(path)?;
        Ok(Output {
            file: Some(Arc::new(Mutex::new(file))),
        })
    }

    /// Passes lines on until the pipe ends, and keeps the last one. Over-long lines are cut into several.
    pub async fn forward(&self, pipe: impl AsyncRead + Unpin, form: Form, last: &Mutex<String>) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut pipe).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end();
                    if !text.is_empty() {
                        self.line(text, form);
                        text.clone_into(&mut last.lock().expect("nothing panics under this lock"));
                    }
                }
            }
        }
    }

    fn line(&self, text: &str, form: Form) {
        let line = match form {
            Form::Ours => format!("{text}\n"),
            Form::Foreign(name) if self.file.is_none() => format!("<6>{name} {text}\n"),
            Form::Foreign(name) => format!("{} INFO  {name} {text}\n", clock::stamp(clock::wall())),
        };
        // Nobody is left to tell when the log itself cannot be written.
        let _ = self.make_writer().write_all(line.as_bytes());
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Both<'a>;

    fn make_writer(&'a self) -> Both<'a> {
        let lock = |file: &'a Arc<Mutex<LogFile>>| file.lock().expect("nothing panics under this lock");
        Both(self.file.as_ref().map(lock))
    }
}

/// Standard error and the file, for one line.
pub struct Both<'a>(Option<MutexGuard<'a, LogFile>>);

impl Write for Both<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().lock().write_all(line);
        if let Some(file) = &mut self.0 {
            file.append(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_path_buf(),
            file,
            size,
        })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > FILE_SIZE {
            for age in (0..OLDER_FILES).rev() {
                let _ = fs::rename(self.aged(age), self.aged(age + 1));
            }
            *self = LogFile::open(&self.path)?;
        }
        self.size += line.len() as u64;
        self.file.write_all(line)
    }

    fn aged(&self, age: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        if age > 0 {
            name.push(format!(".{age}"));
        }
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_file_is_set_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path).expect("opened");
        for round in 0..6 {
            file.size = FILE_SIZE + 1;
            file.append(format!("{round}\n").as_bytes()).expect("written");
        }
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .expect("listed")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2", "log.3"]);
        assert_eq!(fs::read(&path).expect("read"), b"5\n");
        assert_eq!(fs::read(folder.path().join("log.3")).expect("read"), b"2\n");
    }
}
