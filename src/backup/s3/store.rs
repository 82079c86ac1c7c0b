//! `S3`: the store, as commands know it. A worker for each act.

use std::io::{self, BufReader, BufWriter, PipeReader, PipeWriter, Read, Write};
use std::path::PathBuf;

use super::frame::Frames;
use super::order::{Act, Order, Place};
use super::worker::{MISSING, VERB};
use crate::backup::manifest::is_name;
use crate::backup::store::{Store, Upload};
use crate::host::account::Account;
use crate::host::command::{Blocking, Program};

/// What goes to a worker at once.
const FRAME: usize = 1 << 20;

pub struct S3 {
    pub place: Place,
    /// Whose the workers are.
    pub account: Account,
    /// This program.
    pub executable: PathBuf,
}

impl S3 {
    /// Its standard input, its standard output, and itself.
    fn start(&self, act: Act) -> io::Result<(PipeWriter, PipeReader, Worker)> {
        let (input, mut orders) = io::pipe()?;
        let (answers, output) = io::pipe()?;
        let program = Program::new(&self.executable).arg(VERB).account(&self.account);
        let program = program.input(Some(input.into())).output(output.into());
        let worker = Worker(Some(program.start_blocking()?));
        let order = Order {
            place: self.place.clone(),
            act,
        };
        let mut line = serde_json::to_vec(&order).expect("plain data");
        line.push(b'\n');
        // One that ended says why itself.
        let _ = orders.write_all(&line);
        Ok((orders, answers, worker))
    }

    fn key(&self, backup: &str, file: &str) -> io::Result<String> {
        let is_good = is_name(backup) && is_name(file);
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{backup}/{file} is no name of a part"),
            )
        };
        is_good.then(|| format!("{backup}/{file}")).ok_or_else(wrong)
    }
}

impl Store for S3 {
    fn place(&self) -> String {
        self.place.to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let (_orders, mut answers, worker) = self.start(Act::List)?;
        let mut text = String::new();
        answers.read_to_string(&mut text)?;
        worker.ended()?;
        let is_backup = |name: &&str| is_name(name) && (name.ends_with("-full") || name.ends_with("-log"));
        let mut names: Vec<String> = text.lines().filter(is_backup).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn put(&self, backup: &str, file: &str) -> io::Result<Box<dyn Upload>> {
        let key = self.key(backup, file)?;
        let (orders, _, worker) = self.start(Act::Put { key })?;
        let frames = BufWriter::with_capacity(FRAME, Frames(orders));
        Ok(Box::new(Uploading {
            frames: Some(frames),
            worker,
        }))
    }

    fn get(&self, backup: &str, file: &str) -> io::Result<Box<dyn Read + Send>> {
        let key = self.key(backup, file)?;
        let (_, answers, worker) = self.start(Act::Get { key })?;
        Ok(Box::new(Downloading {
            answers: BufReader::new(answers),
            worker: Some(worker),
        }))
    }

    fn remove(&self, backup: &str) -> io::Result<()> {
        if !is_name(backup) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no name of a backup"));
        }
        let backup = backup.to_owned();
        let (_orders, _answers, worker) = self.start(Act::Remove { backup })?;
        worker.ended()
    }
}

/// Killed when this is dropped.
struct Worker(Option<Blocking>);

impl Worker {
    /// Waits for its end, and says what it said.
    fn ended(mut self) -> io::Result<()> {
        let Some(program) = self.0.take() else { return Ok(()) };
        let (code, errors) = program.finish()?;
        match code {
            Some(0) => Ok(()),
            Some(MISSING) => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such object")),
            _ => Err(io::Error::other(errors.trim().to_owned())),
        }
    }
}

struct Uploading {
    /// Taken at its end.
    frames: Option<BufWriter<Frames<PipeWriter>>>,
    worker: Worker,
}

impl Uploading {
    /// A worker that ended early says why.
    fn why(&mut self, error: io::Error) -> io::Error {
        self.frames = None;
        let worker = Worker(self.worker.0.take());
        worker.ended().err().unwrap_or(error)
    }
}

impl Write for Uploading {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(frames) = &mut self.frames else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        frames.write(bytes).map_err(|error| self.why(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(frames) = &mut self.frames else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        frames.flush().map_err(|error| self.why(error))
    }
}

impl Upload for Uploading {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.flush()?;
        if let Some(frames) = self.frames.take() {
            let (inner, _) = frames.into_parts();
            // Without this word the worker takes the content for cut off.
            let end = inner.end();
            end.map_err(|error| self.why(error))?;
        }
        Worker(self.worker.0.take()).ended()
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(frames) = self.frames.take() {
            // What is in the buffer is not wanted any more.
            drop(frames.into_parts());
            // It hears that the content was cut off, and takes away what it has put there.
            let _ = Worker(self.worker.0.take()).ended();
        }
    }
}

struct Downloading {
    answers: BufReader<PipeReader>,
    worker: Option<Worker>,
}

impl Read for Downloading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.answers.read(buffer)?;
        match self.worker.take() {
            Some(worker) if count == 0 && !buffer.is_empty() => worker.ended().map(|()| 0),
            worker => {
                self.worker = worker;
                Ok(count)
            }
        }
    }
}
