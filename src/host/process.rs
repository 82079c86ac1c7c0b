//! Processes as /proc shows them: is the one we noted still the same, and who is in its group.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub started: u64,
}

/// Identity of a running process; a zombie runs no more.
pub fn identity(pid: u32) -> Option<Identity> {
    let stat = read(pid).filter(|stat| !stat.is_dead)?;
    Some(identity_of(pid, &stat))
}

/// Processes of a group that are not dead yet.
pub fn group(group: u32) -> Vec<Identity> {
    all()
        .filter(|(_, stat)| stat.group == group && !stat.is_dead)
        .map(|(pid, stat)| identity_of(pid, &stat))
        .collect()
}

/// Those that a process has started and not waited for yet.
pub fn children(parent: u32) -> Vec<Identity> {
    all()
        .filter(|(_, stat)| stat.parent == parent && !stat.is_dead)
        .map(|(pid, stat)| identity_of(pid, &stat))
        .collect()
}

/// What is left of a child that was noted before: itself, and members of its group that started after it. One whose first thread
/// has ended is left while another one runs: what is open stays open until the last.
pub fn remains(noted: Identity) -> Vec<Identity> {
    all()
        .filter(|(pid, stat)| (*pid == noted.pid || stat.group == noted.pid) && (!stat.is_dead || has_threads(*pid)))
        .filter(|(pid, stat)| {
            if *pid == noted.pid {
                stat.started == noted.started
            } else {
                stat.started >= noted.started
            }
        })
        .map(|(pid, stat)| identity_of(pid, &stat))
        .collect()
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

struct Stat {
    parent: u32,
    group: u32,
    started: u64,
    is_dead: bool,
}

fn identity_of(pid: u32, stat: &Stat) -> Identity {
    Identity {
        pid,
        started: stat.started,
    }
}

fn all() -> impl Iterator<Item = (u32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, read(pid)?))
    })
}

fn read(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

/// proc_pid_stat(5). The second field is a name in parentheses that may hold anything, so counting starts behind it.
fn parse(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        is_dead: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name_is_read() {
        let line = "71 (a) Z 1 (b) S 1 70 70 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        let stat = parse(line).expect("readable");
        assert_eq!((stat.parent, stat.group), (1, 70));
        assert_eq!((stat.started, stat.is_dead), (12345, false));
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
