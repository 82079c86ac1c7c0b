//! What the nemesis does to a machine, and how it takes it back.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::cluster::Cluster;
use crate::support::netns::Way;

/// How long a fault lasts.
const LASTS: Duration = Duration::from_millis(3600);
/// How often a loose cable loses contact meanwhile.
const FLAPS: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9`; started again when the fault is taken back.
    Kill,
    /// `kill -9`, and started again at once, as the supervisor does.
    Replace,
    /// SIGSTOP, then SIGCONT.
    Freeze,
    /// The cable is pulled.
    Cut,
    /// Nothing that it sends arrives.
    Mute,
    /// Nothing that is sent to it arrives.
    Deaf,
    /// It and the leader do not hear one another; the third hears both.
    Part,
    /// The cable is loose.
    Flap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Leader,
    Follower,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fault::Kill => "kill -9",
            Fault::Replace => "kill -9, restarted",
            Fault::Freeze => "frozen",
            Fault::Cut => "cut off",
            Fault::Mute => "sends nothing",
            Fault::Deaf => "receives nothing",
            Fault::Part => "parted from leader",
            Fault::Flap => "link flaps",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Target::Leader => "leader",
            Target::Follower => "follower",
        })
    }
}

impl Fault {
    /// Strikes the machine at a place while another leads, or itself.
    pub fn strike(self, cluster: &mut Cluster, at: usize, leader: usize) {
        match self {
            Fault::Kill => cluster.machines[at].kill(),
            Fault::Replace => {
                cluster.machines[at].kill();
                cluster.machines[at].start();
            }
            Fault::Freeze => cluster.machines[at].signal(Signal::SIGSTOP),
            Fault::Cut => cluster.host(at).cut(true),
            Fault::Mute => cluster.host(at).lose(Way::Out),
            Fault::Deaf => cluster.host(at).lose(Way::In),
            Fault::Part => cluster.host(at).part(cluster.host(leader).address),
            Fault::Flap => {}
        }
    }

    /// While it lasts.
    pub async fn last(self, cluster: &Cluster, at: usize) {
        if self != Fault::Flap {
            return tokio::time::sleep(LASTS).await;
        }
        for is_cut in [true, false].repeat(FLAPS as usize) {
            cluster.host(at).cut(is_cut);
            tokio::time::sleep(LASTS / (2 * FLAPS)).await;
        }
    }

    pub fn undo(self, cluster: &mut Cluster, at: usize) {
        match self {
            Fault::Kill => cluster.machines[at].start(),
            Fault::Replace | Fault::Flap => {}
            Fault::Freeze => cluster.machines[at].signal(Signal::SIGCONT),
            Fault::Cut => cluster.host(at).cut(false),
            Fault::Mute | Fault::Deaf | Fault::Part => cluster.host(at).heal(),
        }
    }

    /// It may lead on, or lead again before this is taken back.
    pub fn is_short(self) -> bool {
        matches!(self, Fault::Replace | Fault::Flap)
    }

    /// The process lives through it, and must not disturb the others when it is back.
    pub fn is_survived(self) -> bool {
        !matches!(self, Fault::Kill | Fault::Replace)
    }
}
