//! Processes as /proc shows them: is the one we noted still the same, and who is in its group.
//!
//! `stat` is read of single processes that we know only: Linux makes its reader wait for an exec that is under way, and that one may
//! wait for files that a child of ours serves. `status` waits for nobody.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub started: u64,
}

/// Identity of a running process; a zombie runs no more.
pub fn identity(pid: u32) -> Option<Identity> {
    is_running(pid).then(|| identify(pid)).flatten()
}

/// Whether its first thread runs.
pub fn is_running(pid: u32) -> bool {
    look(pid).is_some_and(|look| !look.is_dead)
}

/// Whether nobody of a group is left but the dead.
pub fn is_over(group: u32) -> bool {
    !all().any(|(_, look)| look.group == group && !look.is_dead)
}

/// Those that a process has started and not waited for yet.
pub fn children(parent: u32) -> Vec<Identity> {
    all()
        .filter(|(_, look)| look.parent == parent && !look.is_dead)
        .filter_map(|(pid, _)| identify(pid))
        .collect()
}

/// Our own children, also those that have ended and were not waited for.
pub fn unreaped() -> Vec<u32> {
    let own = std::process::id();
    let ours = all().filter(|(_, look)| look.parent == own);
    ours.map(|(pid, _)| pid).collect()
}

/// What is left of a child that was noted before: itself, and members of its group that started after it. One whose first thread
/// has ended is left while another one runs: what is open stays open until the last.
pub fn remains(noted: Identity) -> Vec<Identity> {
    all()
        .filter(|(pid, look)| (*pid == noted.pid || look.group == noted.pid) && (!look.is_dead || has_threads(*pid)))
        .filter_map(|(pid, _)| identify(pid))
        .filter(|left| match left.pid == noted.pid {
            true => left.started == noted.started,
            false => left.started >= noted.started,
        })
        .collect()
}

/// Waits for the end of a process, whoever's child it is.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Fails when there is none of that number. Must be called inside a runtime.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)?;
        // SAFETY: it owns its descriptor, which is the same and open until both are dropped together.
        Ok(Watched(unsafe { AsyncFd::register(process) }?))
    }

    /// Cancel safe.
    pub async fn ended(&self) {
        // It is readable from then on for ever.
        let _ = self.0.readable().await;
    }
}

/// Signals a process if it is still the same.
pub fn signal(process: Identity, signal: Signal) {
    if identity(process.pid) == Some(process) {
        let _ = i32::try_from(process.pid).map(|pid| kill(Pid::from_raw(pid), signal));
    }
}

/// Whether it has threads beside the first.
fn has_threads(pid: u32) -> bool {
    std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).is_ok_and(|tasks| tasks.count() > 1)
}

struct Look {
    parent: u32,
    group: u32,
    is_dead: bool,
}

fn all() -> impl Iterator<Item = (u32, Look)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, look(pid)?))
    })
}

fn look(pid: u32) -> Option<Look> {
    let group = nix::unistd::getpgid(Some(Pid::from_raw(i32::try_from(pid).ok()?))).ok()?;
    parse_status(&read(pid, "status")?, u32::try_from(group.as_raw()).ok()?)
}

fn identify(pid: u32) -> Option<Identity> {
    let started = parse_started(&read(pid, "stat")?)?;
    Some(Identity { pid, started })
}

fn read(pid: u32, name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(name)).ok()
}

/// proc_pid_status(5). A name that holds a line's end is shown with it escaped.
fn parse_status(text: &str, group: u32) -> Option<Look> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line?.split_whitespace().next()
    };
    Some(Look {
        parent: field("PPid")?.parse().ok()?,
        group,
        is_dead: matches!(field("State")?, "Z" | "X"),
    })
}

/// proc_pid_stat(5). The second field is a name in parentheses that may hold anything, so counting starts behind it.
fn parse_started(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name_is_read() {
        let line = "71 (a) Z 1 (b) S 1 70 70 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        assert_eq!(parse_started(line), Some(12345));
    }

    #[test]
    fn status_of_a_zombie_is_read() {
        let text = "Name:	State:\nZ
Umask:	0022
State:	Z (zombie)
Pid:	71
PPid:	1
";
        let look = parse_status(text, 70).expect("readable");
        assert_eq!((look.parent, look.group, look.is_dead), (1, 70, true));
        assert!(
            parse_status(
                "Name:	a
", 70
            )
            .is_none()
        );
    }

    #[test]
    fn own_identity_is_stable() {
        let me = identity(std::process::id()).expect("running");
        assert_eq!(identity(me.pid), Some(me));
        assert!(remains(me).contains(&me));
        assert!(
            !remains(Identity {
                pid: me.pid,
                started: me.started + 1
            })
            .contains(&me)
        );
    }
}
