//! An external daemon as a systemd unit, through systemctl(1): start, stop, reload, look.

use std::io;
use std::time::Duration;

use super::command::{self, Program};

/// systemctl waits for the job; a database may take long to come up after a crash.
const JOB: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_secs(10);

/// A unit by its full name, such as `mariadb.service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit(pub String);

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `active`, `inactive`, `failed`, `activating`, …
    pub state: String,
    pub main_pid: u32,
    pub restarts: u32,
    /// `loaded`, `masked`, `not-found`, …
    pub load: String,
}

impl Seen {
    pub fn has_failed(&self) -> bool {
        self.state == "failed"
    }

    /// It runs, or is about to, or is just ending.
    pub fn is_there(&self) -> bool {
        !matches!(self.state.as_str(), "inactive" | "failed" | "")
    }

    /// Nobody can start it.
    pub fn is_masked(&self) -> bool {
        self.load == "masked"
    }

    pub fn is_known(&self) -> bool {
        self.load != "not-found"
    }
}

impl Unit {
    pub async fn start(&self) -> io::Result<()> {
        self.order("start", JOB).await
    }

    pub async fn stop(&self) -> io::Result<()> {
        self.order("stop", JOB).await
    }

    pub async fn reload(&self) -> io::Result<()> {
        self.order("reload-or-restart", JOB).await
    }

    pub async fn restart(&self) -> io::Result<()> {
        self.order("restart", JOB).await
    }

    /// Starts it at every boot.
    pub async fn enable(&self) -> io::Result<()> {
        self.order("enable", LOOK).await
    }

    pub async fn disable(&self) -> io::Result<()> {
        self.order("disable", LOOK).await
    }

    /// Ends it, and lets nobody start it: not at boot, not for a package that is upgraded, not by hand.
    pub async fn mask(&self) -> io::Result<()> {
        let orders = systemctl()?.args(["mask", "--now", "--", &self.0]);
        orders.check(JOB).await.map(drop)
    }

    pub async fn unmask(&self) -> io::Result<()> {
        self.order("unmask", LOOK).await
    }

    /// Its last end was no failure any more.
    pub async fn reset(&self) -> io::Result<()> {
        self.order("reset-failed", LOOK).await
    }

    /// Without waiting for what it would still do.
    pub async fn kill(&self) -> io::Result<()> {
        let orders = systemctl()?.args(["kill", "--signal=SIGKILL", "--", &self.0]);
        orders.check(LOOK).await.map(drop)
    }

    pub async fn look(&self) -> io::Result<Seen> {
        let output = systemctl()?
            .args([
                "show",
                "--property=ActiveState,MainPID,NRestarts,LoadState",
                "--",
                &self.0,
            ])
            .check(LOOK)
            .await?;
        Ok(parse(&output))
    }

    async fn order(&self, verb: &str, deadline: Duration) -> io::Result<()> {
        systemctl()?.args([verb, "--", &self.0]).check(deadline).await.map(drop)
    }
}

/// systemd reads all units again.
pub async fn reload() -> io::Result<()> {
    systemctl()?.args(["daemon-reload"]).check(JOB).await.map(drop)
}

fn systemctl() -> io::Result<Program> {
    command::find("systemctl").map(Program::new).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "systemctl is not installed; set node.daemons = \"child\"",
        )
    })
}

fn parse(output: &str) -> Seen {
    let value = |key: &str| {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().to_string()
    };
    Seen {
        state: value("ActiveState"),
        main_pid: value("MainPID").parse().unwrap_or(0),
        restarts: value("NRestarts").parse().unwrap_or(0),
        load: value("LoadState"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_in_any_order() {
        let seen = parse("NRestarts=2\nMainPID=812\nLoadState=loaded\nActiveState=active\n");
        assert_eq!(
            seen,
            Seen {
                state: "active".into(),
                main_pid: 812,
                restarts: 2,
                load: "loaded".into()
            }
        );
        let gone = parse("LoadState=masked\nActiveState=inactive\nMainPID=0\n");
        assert!(seen.is_there() && !gone.is_there() && gone.is_masked());
    }
}
