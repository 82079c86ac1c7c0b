//! A copy of the running server's data by mariadb-backup, as a stream of its own form (mbstream).

use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use mysql_async::prelude::Queryable;

use super::info::{self, Info};
use super::{connect, quoted};
use crate::base::file::{Access, ensure_folder};
use crate::host::account::Account;
use crate::host::command::{self, Program, Started};

/// A large database on slow disks; one that hangs ends some day.
const LONGEST: Duration = Duration::from_secs(48 * 3600);

/// What is needed to copy a server's data.
pub struct Source {
    pub socket: PathBuf,
    /// The server's own user.
    pub account: Account,
    /// For its small files; made, and removed at the end.
    pub scratch: PathBuf,
    /// Whether the server is one of a Galera cluster.
    pub is_galera: bool,
}

/// A copy that is being made.
pub struct Copying {
    program: Started,
    path: PathBuf,
    notes: PathBuf,
    scratch: PathBuf,
}

impl Source {
    /// The stream must be read to its end beside `finish`.
    pub async fn start(&self) -> anyhow::Result<(Copying, PipeReader)> {
        let path = command::find("mariadb-backup")
            .context("mariadb-backup is not installed; it comes with the package mariadb-backup")?;
        let data = self.ready().await?;
        let owned = Access::owned(0o700, self.account.uid, self.account.gid);
        let (notes, room) = (self.scratch.join("notes"), self.scratch.join("room"));
        for folder in [&self.scratch, &notes, &room] {
            ensure_folder(folder, owned).with_context(|| folder.display().to_string())?;
        }
        let (stream, end) = io::pipe()?;
        let mut program = Program::new(&path)
            .args(["--no-defaults", "--backup", "--stream=mbstream"])
            .arg(format!("--user={}", self.account.name))
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--datadir={data}"))
            .arg(format!("--extra-lsndir={}", notes.display()))
            .arg(format!("--target-dir={}", room.display()))
            .arg(format!("--tmpdir={}", room.display()))
            .account(&self.account)
            .output(end.into());
        if self.is_galera {
            program = program.arg("--galera-info");
        }
        let copying = Copying {
            program: program.start()?,
            path,
            notes,
            scratch: self.scratch.clone(),
        };
        Ok((copying, stream))
    }

    /// That the account may do it, as a server that we made lets it; the distribution's may not know it. Returns the data folder.
    async fn ready(&self) -> anyhow::Result<String> {
        let mut connection = connect(&self.socket).await?;
        let name = format!("{}@localhost", quoted(&self.account.name));
        let known: Option<u64> = connection
            .exec_first(
                "SELECT 1 FROM mysql.global_priv WHERE User = ? AND Host = 'localhost'",
                (&self.account.name,),
            )
            .await?;
        if known.is_none() {
            for statement in [
                format!("CREATE USER {name} IDENTIFIED VIA unix_socket"),
                format!("GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO {name}"),
            ] {
                connection
                    .query_drop(statement)
                    .await
                    .context("let mariadb-backup in")?;
            }
        }
        let data: Option<String> = connection.query_first("SELECT @@datadir").await?;
        connection.disconnect().await?;
        data.context("the server does not say where its data are")
    }
}

impl Copying {
    /// The moment of the copy. Fails when the copy is not whole, whatever of it was read.
    pub async fn finish(mut self) -> anyhow::Result<Info> {
        let finished = self.program.finish(LONGEST).await?;
        let finished = finished.context("mariadb-backup took longer than two days")?;
        if !finished.succeeded {
            return Err(finished.failure(&self.path).into());
        }
        // Its exit code alone is not its word.
        ensure!(
            finished.errors.trim_end().ends_with("completed OK!"),
            "mariadb-backup did not say that the copy is whole: {}",
            finished.errors.lines().last().unwrap_or_default()
        );
        let text = info::FILES
            .iter()
            .find_map(|name| read(&self.notes.join(name)))
            .context("mariadb-backup left no word on the moment of its copy")?;
        info::parse(&text).context("what mariadb-backup says of its copy cannot be understood")
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
