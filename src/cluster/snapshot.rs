//! `Snapshot`: who is in the cluster, how each one does, and who holds what. Holds no secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Fit, Role};
use crate::config::Port;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the registry that it is made of; 0: there is none yet.
    pub revision: u64,
    /// Name of this node.
    pub own: String,
    /// By name. This node is among them once it is enrolled.
    pub nodes: Vec<Member>,
    pub seats: Vec<Seat>,
    /// Settings of the cluster.
    pub settings: BTreeMap<String, String>,
    /// Names of nodes that were removed. Their certificates may hold still.
    #[serde(default)]
    pub left: Vec<String>,
    /// The registry does not answer: liveness and seats are as they were when it last did.
    pub is_stale: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    /// Where its agent listens on the mesh; a module's port is counted from it. `None`: it is alone.
    pub address: Option<SocketAddr>,
    pub standing: Standing,
    /// Its heart beats.
    pub is_live: bool,
    /// As its last heartbeat said.
    pub fit: Fit,
}

/// What the operator wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Joining,
    Member,
    /// It keeps what it must, and gets nothing new.
    Draining,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seat {
    pub role: Role,
    /// Tells the seats of a role apart; empty where there is one.
    pub seat: String,
    pub holder: Option<String>,
    /// Fencing number; grows with every new holder.
    pub epoch: u64,
}

impl Snapshot {
    pub fn node(&self, name: &str) -> Option<&Member> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The holder of a role that has one seat.
    pub fn holder(&self, role: Role) -> Option<&Member> {
        let seat = self.seats.iter().find(|seat| seat.role == role)?;
        self.node(seat.holder.as_deref()?)
    }
}

impl Member {
    /// Where a module of it listens on the mesh.
    pub fn port(&self, module: Port) -> Option<SocketAddr> {
        module.counted_from(self.address?)
    }

    /// New work may be given to it: it is a member, it lives, and it says that it is fit.
    pub fn takes(&self, fit: Fit) -> bool {
        self.standing == Standing::Member && self.is_live && self.fit.has(fit)
    }

    /// What is written in the role finds room on its disk.
    pub fn has_room(&self, role: Role) -> bool {
        role != Role::Db || !self.fit.has(Fit::FULL)
    }
}
