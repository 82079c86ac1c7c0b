//! A program that systemd runs as a unit of its own, once, and only by our word: systemd-run(1). It outlives us.
//!
//! Such a unit is there from its start to its end. Nothing of it is on disk, and nothing starts it at boot. But while it runs, an
//! operator could have it restarted, with all that it was told at its first start. So each start takes a ticket: a file that is laid
//! down just before, and that the unit removes as its first act. Without one, systemd skips the start.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::debug;

use super::account::Account;
use super::command::{self, Program};
use super::unit::{self, Unit};
use crate::base::file::{Access, replace};

/// Until the program is executed; it is not waited for that it is ready.
const START: Duration = Duration::from_secs(30);
/// Where systemd writes down what it was told of such units.
const FRAGMENTS: &str = "/run/systemd/transient";
const REMOVE: &str = "/bin/rm";
/// More than a database has tables and connections open.
const FILES: u32 = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transient {
    pub unit: Unit,
    pub description: &'static str,
    pub program: PathBuf,
    /// The same at each start.
    pub arguments: Vec<OsString>,
    pub account: Account,
    /// Where the ticket is laid: a folder that is root's alone.
    pub ticket: PathBuf,
    /// It is stopped after this one when the machine goes down.
    pub outlives: &'static str,
    /// From the signal to end to the one that kills.
    pub grace: Duration,
}

impl Transient {
    /// Fails when the program cannot be executed. `more`: what it is told at this one start.
    pub async fn start(&self, more: &[OsString]) -> io::Result<()> {
        let program = command::find("systemd-run").ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "systemd-run is not installed; set node.daemons = \"child\"",
            )
        })?;
        self.forget().await?;
        replace(&self.ticket, b"", Access::mode(0o600))?;
        let started = Program::new(program).args(self.line(more)).check(START).await;
        // One that was not taken must not be there for somebody else.
        match self.void()? {
            true if started.is_ok() => Err(io::Error::other(format!("systemd did not start {}", self.unit.0))),
            _ => started.map(drop),
        }
    }

    /// What is left of its last run: after a start that was skipped systemd keeps the unit, and with it the name. One that failed it keeps
    /// while anything of it is left, and takes no other of the name ("failed to load properly: Device or resource busy").
    async fn forget(&self) -> io::Result<()> {
        let seen = self.unit.look().await?;
        if !seen.is_known() || seen.is_there() {
            return Ok(());
        }
        if seen.has_failed()
            && let Err(error) = self.unit.reset().await
        {
            // It may be gone by itself.
            debug!(%error, unit = self.unit.0, "not forgotten");
        }
        match fs::remove_file(Path::new(FRAGMENTS).join(&self.unit.0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        unit::reload().await
    }

    /// Takes a ticket away that nobody has used. Whether there was one.
    pub fn void(&self) -> io::Result<bool> {
        match fs::remove_file(&self.ticket) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What systemd-run is told. Pure.
    fn line(&self, more: &[OsString]) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![
            "--quiet".into(),
            // Gone with its end, also after a failure: the name is free for the next start.
            "--collect".into(),
            format!("--unit={}", self.unit.0).into(),
            format!("--description={}", self.description).into(),
            "--service-type=exec".into(),
            format!("--uid={}", self.account.uid).into(),
            format!("--gid={}", self.account.gid).into(),
        ];
        let properties = [
            // As root: the ticket's folder is not the program's to write in.
            format!("ExecCondition=+{REMOVE} {}", quoted(&self.ticket)),
            "Restart=no".to_string(),
            // The program itself is asked to end; what is left of it then is killed.
            "KillMode=mixed".to_string(),
            format!("TimeoutStopSec={}", self.grace.as_secs()),
            format!("LimitNOFILE={FILES}"),
            format!("Before={}", self.outlives),
        ];
        line.extend(properties.map(|property| format!("--property={property}").into()));
        line.push("--".into());
        line.push(self.program.clone().into());
        line.extend(self.arguments.iter().chain(more).cloned());
        line
    }
}

/// As systemd takes a line of words apart (systemd.syntax(7)).
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_at_one_start_is_said_at_no_other() {
        let unit = Transient {
            unit: Unit("node-mariadb.service".into()),
            description: "MariaDB",
            program: "/usr/sbin/mariadbd".into(),
            arguments: vec!["--defaults-file=/run/node/my.cnf".into()],
            account: Account {
                name: "mysql".into(),
                uid: 104,
                gid: 110,
            },
            ticket: "/run/a \"b\"/db.start".into(),
            outlives: "node.service",
            grace: Duration::from_secs(300),
        };
        let line = unit.line(&["--wsrep-start-position=u:7".into(), "--wsrep-new-cluster".into()]);
        let text: Vec<&str> = line.iter().filter_map(|word| word.to_str()).collect();
        assert_eq!(
            text,
            [
                "--quiet",
                "--collect",
                "--unit=node-mariadb.service",
                "--description=MariaDB",
                "--service-type=exec",
                "--uid=104",
                "--gid=110",
                "--property=ExecCondition=+/bin/rm \"/run/a \\\"b\\\"/db.start\"",
                "--property=Restart=no",
                "--property=KillMode=mixed",
                "--property=TimeoutStopSec=300",
                "--property=LimitNOFILE=65536",
                "--property=Before=node.service",
                "--",
                "/usr/sbin/mariadbd",
                "--defaults-file=/run/node/my.cnf",
                "--wsrep-start-position=u:7",
                "--wsrep-new-cluster"
            ]
        );
        assert!(!unit.line(&[]).contains(&"--wsrep-new-cluster".into()));
    }
}
