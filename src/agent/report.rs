//! What the supervisor and the modules tell the agent, one JSON line each second and at each change. Formats of one executable: no version is needed.

use serde::{Deserialize, Serialize};

use crate::base::Status;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Report {
    Supervisor {
        children: Vec<ChildReport>,
    },
    Module {
        name: String,
        status: Status,
        metrics: String,
    },
}

/// One child as the supervisor sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildReport {
    pub name: String,
    pub kind: Kind,
    pub phase: Phase,
    pub pid: Option<u32>,
    /// Restarts since the supervisor started.
    pub restarts: u32,
    /// Seconds in this phase.
    pub seconds: u64,
    /// Why it is not ready; empty when it is.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// This executable as a module.
    Module,
    /// An external program as a child of the supervisor.
    Daemon,
    /// An external program that systemd owns.
    Unit,
    /// The portal's files, mounted by the supervisor.
    Mount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Starting,
    Ready,
    /// Ended; the next start waits for its backoff.
    Waiting,
    Stopping,
    Stopped,
}
