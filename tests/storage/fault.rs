//! What the nemesis does to a machine, and how it takes it back.

use std::fmt;

use nix::sys::signal::Signal;

use super::cluster::Cluster;
use crate::support::netns::Way;

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
    pub fn strike(self, cluster: &mut Cluster, at: usize) {
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
        }
    }

    pub fn undo(self, cluster: &mut Cluster, at: usize) {
        match self {
            Fault::Kill => cluster.machines[at].start(),
            Fault::Replace => {}
            Fault::Freeze => cluster.machines[at].signal(Signal::SIGCONT),
            Fault::Cut => cluster.host(at).cut(false),
            Fault::Mute | Fault::Deaf => cluster.host(at).heal(),
        }
    }

    /// The process lives through it, and must not disturb the others when it is back.
    pub fn is_survived(self) -> bool {
        !matches!(self, Fault::Kill | Fault::Replace)
    }
}
