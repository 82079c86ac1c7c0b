//! A replica that runs: its parts, put together. A witness has no machine and no leader of calls.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use tokio::sync::Notify;

use super::charter::Charter;
use super::checkpoints::Sending;
use super::control::Control;
use super::disk::Folder;
use super::group::{Group, Settings};
use super::insync::Copies;
use super::leader::Leader;
use super::log::{self, Sizes};
use super::machine::Machine;
use super::members::Members;
use super::mesh::Links;
use super::network::{Alone, Transport};
use super::promise::Callbacks;
use super::replica::{Replica, blocking};
use super::scrub::{Remote, Scrub};
use super::state::disk::SystemDisk;
use super::transfer::Holds;
use super::witness::{self, Witness};
use super::{opening, state};
use crate::base::{Scope, clock};
use crate::net::mesh::Tls;

/// Voters wanted beside more than three copies, and else.
const MANY: usize = 5;
const FEW: usize = 3;

/// Log that no checkpoint covers: at this size one is made, for until then the disk keeps it all, and a start applies it all again.
const LOG_WANTED: u64 = 1 << 30;
/// Log that takes a second to apply: small operations, a few hundred bytes each.
const LOG_MUCH: u64 = 4 << 20;

/// What the operator wants of the replica.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub node: String,
    pub copies: Copies,
    pub sizes: Sizes,
}

pub struct Running {
    pub group: Group,
    pub links: Option<Links>,
    pub files: Option<Files>,
    pub sending: Sending,
    pub control: Arc<Control>,
}

/// What a data replica has beside.
#[derive(Clone)]
pub struct Files {
    pub machine: state::Shared,
    pub leader: Leader,
    pub scrub: Arc<Scrub>,
}

impl Running {
    /// Starts the replica whose store lies in `folder`; its tasks belong to `core`.
    pub async fn start(
        folder: &Path,
        charter: &Charter,
        wanted: &Wanted,
        tls: Option<Arc<Tls>>,
        core: &Scope,
    ) -> anyhow::Result<Self> {
        let callbacks = Callbacks::default();
        let (machine, state): (Box<dyn Machine>, _) = match charter.witness {
            true => (Box::new(open_witness(folder).await?), None),
            false => {
                let shared = state::Shared::new(opening::state(folder).await?);
                let replica = Replica::new(shared.clone(), folder.join("state"), callbacks.clone(), core.clone())?;
                (Box::new(replica), Some(shared))
            }
        };
        let sending = Sending {
            source: state.clone(),
            holds: Holds::default(),
            progress: Arc::default(),
        };
        let links = tls.map(|tls| Links::new(tls, sending.clone(), core));
        let transport: Arc<dyn Transport> = match &links {
            Some(links) => Arc::new(links.clone()),
            None => Arc::new(Alone),
        };
        let settings = Settings {
            me: charter.number,
            copies: wanted.copies,
            sizes: wanted.sizes,
        };
        let log = Arc::new(Folder::new(folder.join("log")));
        let group = Group::open(settings, log, machine, transport, Arc::new(clock::boot), core);
        let group = group.await.context("open the log")?;
        let files = match state {
            Some(machine) => Some(Files::start(machine, &group, callbacks, links.clone(), core).await?),
            None => None,
        };
        let control = control(folder, charter, wanted, (&group, &links, &files, &sending));
        core.spawn(control.members.clone().keep(core.clone()));
        Ok(Running {
            group,
            links,
            files,
            sending,
            control: Arc::new(control),
        })
    }

    /// Whether anything was applied since the last checkpoint.
    pub fn has_new(&self) -> bool {
        self.files.as_ref().is_none_or(|files| {
            let machine = files.machine.get();
            machine.durable() != machine.applied()
        })
    }

    /// Whether a start has to apply much of the log again.
    pub fn has_much_new(&self) -> bool {
        let is_much = |files: &Files| self.group.log_after(files.machine.get().durable()) > LOG_MUCH;
        self.files.as_ref().is_some_and(is_much)
    }

    /// Whether a checkpoint is due, however old the last one is.
    pub fn wants_checkpoint(&self) -> bool {
        self.files.as_ref().is_some_and(|files| {
            let machine = files.machine.get();
            machine.wants_checkpoint() || self.group.log_after(machine.durable()) > LOG_WANTED
        })
    }

    /// Lets go of log that a checkpoint covers, but keeps `bytes` of it, and what transfers and data replicas need.
    pub async fn purge(&self, bytes: u64) -> std::io::Result<()> {
        let mut limit = self.sending.holds.floor();
        if self.files.is_none() {
            let data = self.control.members.data();
            let Some(safe) = witness::purgeable(&data, &self.group.ends_of_logs().await) else {
                return Ok(());
            };
            limit = Some(limit.map_or(safe, |limit| limit.min(safe)));
        }
        self.group.purge(bytes, limit).await
    }
}

impl Files {
    async fn start(
        machine: state::Shared,
        group: &Group,
        callbacks: Callbacks,
        links: Option<Links>,
        core: &Scope,
    ) -> anyhow::Result<Self> {
        let leader = Leader::new(machine.clone(), group.clone(), group.batcher(core), callbacks);
        // Before any request: a disk whose room is not known counts as full.
        leader.measure().await?;
        let remote = Remote {
            group: group.clone(),
            links,
        };
        let scrub = Scrub::new(machine.clone(), Arc::new(SystemDisk), Arc::new(remote));
        Ok(Files {
            machine,
            leader,
            scrub: Arc::new(scrub),
        })
    }

    /// The machine, if its contents are those of its rows.
    pub fn exact(&self) -> Option<Arc<state::Machine>> {
        Some(self.machine.get()).filter(|machine| self.leader.is_exact(machine))
    }
}

async fn open_witness(folder: &Path) -> anyhow::Result<Witness> {
    let folder = folder.to_owned();
    let opened = blocking(move || {
        let purged = log::purged(&Folder::new(folder.join("log")))?;
        Witness::open(&folder.join("state"), purged.map(|id| id.index))
    });
    opened.await.context("open the witness")
}

fn control(
    folder: &Path,
    charter: &Charter,
    wanted: &Wanted,
    (group, links, files, sending): (&Group, &Option<Links>, &Option<Files>, &Sending),
) -> Control {
    let members = Members {
        group: group.clone(),
        links: links.clone(),
        shared: charter.shared,
        most: if wanted.copies.wanted > FEW { MANY } else { FEW },
        turn: Arc::default(),
    };
    Control {
        members,
        files: files.clone(),
        transfer: sending.progress.clone(),
        node: wanted.node.clone(),
        copies: wanted.copies.wanted,
        folder: folder.to_owned(),
        restart: Notify::new(),
        requests: AtomicU64::new(0),
    }
}
