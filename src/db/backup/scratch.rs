//! A data folder of its own: filled from a stream, made whole, brought forward by binary logs, looked at with a server that has no
//! port and that nobody else knows. Everything runs as the database's user.

use std::fs;
use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use crate::base::file::{Access, ensure_folder};
use crate::db::probe;
use crate::host::account::Account;
use crate::host::child::{Child, Launch};
use crate::host::command::{self, Program, Started};

/// Of a large database on slow disks.
const LONGEST: Duration = Duration::from_secs(48 * 3600);
/// From its start until it answers: it applies what is left of its redo log.
const START: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);
/// An orderly end writes what is in memory.
const STOP: Duration = Duration::from_secs(600);

pub struct Scratch {
    /// Made, and removed by whoever asked for it.
    pub folder: PathBuf,
    pub account: Account,
    /// `mariadbd`.
    pub binary: PathBuf,
}

impl Scratch {
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// Empty.
    pub fn make(&self) -> anyhow::Result<()> {
        ensure!(
            fs::read_dir(&self.folder).map_or(true, |mut entries| entries.next().is_none()),
            "{} is not empty; it is left of an earlier run: look at it, and remove it",
            self.folder.display()
        );
        let owned = Access::owned(0o700, self.account.uid, self.account.gid);
        for folder in [self.folder.clone(), self.data(), self.folder.join("tmp")] {
            ensure_folder(&folder, owned).with_context(|| folder.display().to_string())?;
        }
        // A socket's path holds 107 bytes.
        let length = self.socket().as_os_str().len();
        ensure!(
            length < 107,
            "{} is too long a path for a socket",
            self.folder.display()
        );
        Ok(())
    }

    /// What is written there is unpacked into the folder; `finish` says whether it was whole.
    pub fn fill(&self) -> anyhow::Result<(Filling, PipeWriter)> {
        let path = command::find("mbstream").context("mbstream is not installed; it comes with mariadb-backup")?;
        let (end, stream) = io::pipe()?;
        let program = Program::new(&path)
            .args(["--extract", "--directory"])
            .arg(self.data())
            .account(&self.account)
            .input(Some(end.into()));
        let program = program.start()?;
        Ok((Filling { program, path }, stream))
    }

    /// Makes the copied files a whole data folder.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let path = command::find("mariadb-backup").context("mariadb-backup is not installed")?;
        let run = Program::new(&path)
            .args(["--no-defaults", "--prepare"])
            .arg(format!("--target-dir={}", self.data().display()))
            .arg(format!("--tmpdir={}", self.folder.join("tmp").display()))
            .account(&self.account);
        let finished = run.run(LONGEST).await?;
        if !finished.succeeded || !finished.errors.trim_end().ends_with("completed OK!") {
            return Err(finished.failure(&path)).context("make the copied data whole");
        }
        Ok(())
    }

    /// A server on them. Must be called on the main thread.
    pub async fn start(&self) -> anyhow::Result<Server> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let arguments = [
            "--no-defaults".to_owned(),
            format!("--datadir={}", self.data().display()),
            format!("--socket={}", at("s")),
            format!("--pid-file={}", at("pid")),
            format!("--log-error={}", at("log")),
            format!("--tmpdir={}", at("tmp")),
            "--skip-networking".into(),
            "--skip-slave-start".into(),
            "--event-scheduler=OFF".into(),
            // What the portal's own server has, so that logs mean the same.
            "--sql-mode=".into(),
            "--innodb-strict-mode=OFF".into(),
            "--max-allowed-packet=1G".into(),
        ];
        let launch = Launch {
            program: self.binary.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            account: Some(self.account.clone()),
            sockets: Vec::new(),
            when_orphaned: Signal::SIGTERM,
        };
        let mut server = Server {
            child: Child::launch(&launch)?,
            socket: self.socket(),
            log: self.folder.join("log"),
        };
        let end = tokio::time::Instant::now() + START;
        while probe::answers(&server.socket).await.is_err() {
            tokio::select! {
                ended = server.child.wait() => anyhow::bail!("it ended with {}: {}", ended?, server.last_words()),
                () = tokio::time::sleep(LOOK) => {}
            }
            ensure!(
                tokio::time::Instant::now() < end,
                "it does not answer: {}",
                server.last_words()
            );
        }
        Ok(server)
    }
}

pub struct Filling {
    program: Started,
    path: PathBuf,
}

impl Filling {
    pub async fn finish(mut self) -> anyhow::Result<()> {
        let finished = self.program.finish(LONGEST).await?;
        let finished = finished.context("mbstream took longer than two days")?;
        match finished.succeeded {
            true => Ok(()),
            false => Err(finished.failure(&self.path).into()),
        }
    }
}

/// A server that nobody else reaches. Killed when this is dropped.
pub struct Server {
    child: Child,
    pub socket: PathBuf,
    log: PathBuf,
}

/// Binary logs to apply, from a place in the first one to a moment.
pub struct Replay<'a> {
    /// Whole paths, in order.
    pub files: &'a [PathBuf],
    /// In the first file.
    pub offset: u64,
    /// Whole seconds since 1970: nothing that began then or later. `None`: all.
    pub until: Option<u64>,
}

impl Server {
    /// Stops at the first change that began at the given moment or later.
    pub async fn replay(&self, replay: &Replay<'_>) -> anyhow::Result<()> {
        let found = |name: &str| command::find(name).with_context(|| format!("{name} is not installed"));
        let (reader, client) = (found("mariadb-binlog")?, found("mariadb")?);
        let (from, to) = io::pipe()?;
        let mut reading = Program::new(&reader)
            .args(["--no-defaults", "--verify-binlog-checksum"])
            .arg(format!("--start-position={}", replay.offset))
            // It takes times for local ones.
            .env("TZ", "UTC")
            .output(to.into());
        if let Some(until) = replay.until {
            let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(until)).to_string();
            let time = time.trim_end_matches('Z').replace('T', " ");
            reading = reading.arg(format!("--stop-datetime={time}"));
        }
        let mut reading = reading.args(replay.files).start()?;
        let mut applying = Program::new(&client)
            .args([
                "--no-defaults",
                "--batch",
                "--binary-mode",
                "--user=root",
                "--max-allowed-packet=1G",
            ])
            .arg(format!("--socket={}", self.socket.display()))
            .input(Some(from.into()))
            .start()?;
        let (read, applied) = tokio::try_join!(reading.finish(LONGEST), applying.finish(LONGEST))?;
        for (finished, path) in [(applied, &client), (read, &reader)] {
            let finished = finished.context("the binary logs took longer than two days")?;
            if !finished.succeeded {
                return Err(finished.failure(path)).context("apply the binary logs");
            }
        }
        Ok(())
    }

    /// In order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.child.signal(Signal::SIGTERM);
        let ended = tokio::time::timeout(STOP, self.child.wait()).await;
        let status = ended.context("the server does not end")??;
        ensure!(
            status.success(),
            "the server ended with {status}: {}",
            self.last_words()
        );
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let faults: Vec<&str> = text.lines().filter(|line| line.contains("[ERROR]")).collect();
        let last = faults.get(faults.len().saturating_sub(3)..).unwrap_or_default();
        match last {
            [] => text.lines().last().unwrap_or("it said nothing").to_owned(),
            last => last.join(" / "),
        }
    }
}

/// Takes what is not needed in a data folder that will be used: the copy's own notes, and what was of the server and cluster that it is a
/// copy of: binary logs that nobody shall go on with, a place in a history.
pub fn clear(data: &Path) -> io::Result<()> {
    const NOTES: [&str; 8] = [
        "xtrabackup_",
        "mariadb_backup_",
        "donor_galera_info",
        "backup-my.cnf",
        "grastate.dat",
        "gvwstate.dat",
        "binlog.",
        "galera.cache",
    ];
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_note = NOTES.iter().any(|note| name.starts_with(note));
        if is_note && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
