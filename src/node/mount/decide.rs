//! What to do next about the files, and what to say of them. Pure.

use crate::agent::Phase;
use crate::base::{Health, Status};
use crate::host::mount::{Answer, Error, Placed, Room};

/// How the files answered last.
#[derive(Clone, Debug, PartialEq)]
pub enum Pulse {
    /// Not asked since they were mounted.
    Unknown,
    Good(Room),
    /// No answer; there may be one later.
    Silent(String),
    /// There will never be one on this mount.
    Dead(String),
    /// An error, which is an answer.
    Ill(String),
}

impl Pulse {
    pub fn of(answer: Result<Answer, Error>) -> Self {
        match answer {
            Ok(Answer::Probed(room)) => Pulse::Good(room),
            Ok(other) => Pulse::Ill(format!("asked for its pulse, the worker said {other:?}")),
            Err(Error::Refused(refusal)) if refusal.is_final() => Pulse::Dead(refusal.text),
            Err(error) if error.is_silence() => Pulse::Silent(error.to_string()),
            Err(error) => Pulse::Ill(error.to_string()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Mount {
        /// What is there is let go first.
        renew: bool,
    },
    Probe,
    /// Nothing can be done but to say so.
    Complain(String),
}

/// `placed`: `None` where somebody else mounts.
pub fn decide(placed: Option<&Placed>, pulse: &Pulse) -> Act {
    match (placed, pulse) {
        (Some(Placed::Nothing), _) => Act::Mount { renew: false },
        (Some(Placed::Foreign(what)), _) => Act::Complain(format!(
            "{what} is mounted there already; unmount it, or set storage.mount_point"
        )),
        (Some(Placed::Ours), Pulse::Dead(_)) => Act::Mount { renew: true },
        (Some(Placed::Ours) | None, _) => Act::Probe,
    }
}

/// What the files are called in what is said of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// The export, or nothing where somebody else mounted it.
    pub source: String,
    pub folder: String,
    /// Whether it lies on another file system than this machine's own data.
    pub is_apart: bool,
}

/// How the files do, after a probe.
pub fn say(title: &Title, pulse: &Pulse) -> (Phase, Status) {
    let Title { source, folder, .. } = title;
    let place = match source.as_str() {
        "" => folder.clone(),
        source => format!("{source} on {folder}"),
    };
    let failed = |detail| Status {
        health: Health::Failed,
        detail,
    };
    match pulse {
        Pulse::Good(_) if !title.is_apart => degraded(format!(
            "{place} is not mounted: its files are on this machine's own disk"
        )),
        Pulse::Good(room) if room.is_read_only => degraded(format!("{place} is mounted read-only")),
        Pulse::Good(room) => {
            let free = room.free_bytes >> 20;
            (Phase::Ready, Status::good(format!("{place}, {free} MiB free")))
        }
        Pulse::Unknown => (Phase::Starting, Status::starting()),
        Pulse::Silent(why) => (Phase::Starting, failed(format!("{place} hangs: {why}"))),
        Pulse::Dead(why) | Pulse::Ill(why) => (Phase::Waiting, failed(why.clone())),
    }
}

fn degraded(detail: String) -> (Phase, Status) {
    let health = Health::Degraded;
    (Phase::Ready, Status { health, detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::mount::Refusal;
    use nix::errno::Errno;
    use std::time::Duration;

    fn room(is_read_only: bool) -> Room {
        Room {
            total_bytes: 10 << 20,
            free_bytes: 4 << 20,
            is_read_only,
            took: Duration::from_millis(1),
        }
    }

    fn refused(errno: Errno) -> Pulse {
        Pulse::of(Err(Error::Refused(Refusal::of(errno, "said so"))))
    }

    #[test]
    fn each_answer_has_its_pulse() {
        assert_eq!(Pulse::of(Ok(Answer::Probed(room(false)))), Pulse::Good(room(false)));
        assert!(
            matches!(Pulse::of(Err(Error::Late(Duration::from_secs(5)))), Pulse::Silent(why) if why == "no answer within 5s")
        );
        assert!(matches!(Pulse::of(Err(Error::Busy)), Pulse::Silent(_)));
        assert!(matches!(refused(Errno::ESTALE), Pulse::Dead(_)));
        assert!(matches!(refused(Errno::ENOTCONN), Pulse::Dead(_)));
        assert!(matches!(refused(Errno::EIO), Pulse::Ill(_)));
        assert!(matches!(Pulse::of(Ok(Answer::Made)), Pulse::Ill(_)));
    }

    #[test]
    fn what_is_missing_is_apart_and_only_the_dead_is_replaced() {
        let all = [
            Pulse::Unknown,
            Pulse::Good(room(false)),
            Pulse::Silent(String::new()),
            Pulse::Ill(String::new()),
            Pulse::Dead(String::new()),
        ];
        for pulse in &all {
            assert_eq!(
                decide(Some(&Placed::Nothing), pulse),
                Act::Mount { renew: false },
                "{pulse:?}"
            );
            let foreign = Placed::Foreign("/dev/sdb1 (ext4)".into());
            assert!(
                matches!(decide(Some(&foreign), pulse), Act::Complain(why) if why.starts_with("/dev/sdb1 (ext4) is"))
            );
            assert_eq!(
                decide(None, pulse),
                Act::Probe,
                "somebody else's mount is only looked at: {pulse:?}"
            );
            let expected = match pulse {
                Pulse::Dead(_) => Act::Mount { renew: true },
                _ => Act::Probe,
            };
            assert_eq!(decide(Some(&Placed::Ours), pulse), expected, "{pulse:?}");
        }
    }

    #[test]
    fn what_is_said_names_the_place_and_the_fault() {
        let title = Title {
            source: "nas:/a".into(),
            folder: "/srv".into(),
            is_apart: true,
        };
        let (phase, status) = say(&title, &Pulse::Good(room(false)));
        assert_eq!(
            (phase, status.detail.as_str()),
            (Phase::Ready, "nas:/a on /srv, 4 MiB free")
        );
        let (phase, status) = say(&title, &Pulse::Silent("no answer within 5s".into()));
        assert_eq!(phase, Phase::Starting);
        assert_eq!(status.detail, "nas:/a on /srv hangs: no answer within 5s");
        assert_eq!(say(&title, &Pulse::Good(room(true))).1.health, Health::Degraded);
        let watched = Title {
            source: String::new(),
            folder: "/mnt/ceph".into(),
            is_apart: false,
        };
        let (phase, status) = say(&watched, &Pulse::Good(room(false)));
        assert_eq!((phase, status.health), (Phase::Ready, Health::Degraded));
        assert!(
            status.detail.starts_with("/mnt/ceph is not mounted"),
            "{}",
            status.detail
        );
    }
}
