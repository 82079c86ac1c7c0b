//! Carries out commands on a replica that runs, and tells how it does. What only the leader can do is passed on to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use bytes::Bytes;
use openraft::ServerState;
use tokio::sync::Notify;

use super::command::{self, Command, Hello, Member, Report, Role};
use super::members::Members;
use super::recovery;
use super::replica::blocking;
use super::running::Files;
use super::transfer::Progress;
use super::types::{NodeId, next_index};
use crate::base::{BoxFuture, Health, Status};
use crate::net::mesh::{Fault, Handler, Identity};

pub struct Control {
    pub members: Members,
    pub files: Option<Files>,
    /// Of the state that is sent or received now, or was last.
    pub transfer: Arc<Progress>,
    pub node: String,
    /// Copies wanted.
    pub copies: usize,
    pub folder: PathBuf,
    /// Ends the service, so that it starts anew.
    pub restart: Notify,
    /// In the last second.
    pub requests: AtomicU64,
}

impl Handler for Control {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            Ok(match command::decode(&body) {
                Ok(command) => self.perform(command).await,
                Err(error) => command::answer::<()>(Err(error)),
            })
        })
    }
}

impl Control {
    async fn perform(&self, command: Command) -> Bytes {
        if command.is_leaders() && !self.leads() {
            return command::answer(self.pass_on(&command).await);
        }
        match command {
            Command::Status => command::answer(self.report().await),
            Command::Hello => command::answer(Ok(Hello {
                number: Some(self.group().me()),
                was_member: !self.group().peers().is_empty(),
            })),
            // Repeated: the answer to the first one was lost.
            Command::Invite(invitation) if invitation.number == self.group().me() => {
                command::answer(Ok(self.group().store()))
            }
            Command::Invite(_) => command::answer::<()>(Err(anyhow::anyhow!("it is a replica already"))),
            Command::Add { name, address, witness } => command::answer(self.members.add(name, address, witness).await),
            Command::Remove { name } => command::answer(self.members.remove(&name).await),
            Command::Recover { lost, accepts_loss } => command::answer(self.recover(&lost, accepts_loss).await),
            Command::Scrub => command::answer(self.scrub()),
            Command::Readdress { number, name, address } => {
                command::answer(self.members.readdress(number, &name, address).await)
            }
        }
    }

    fn group(&self) -> &super::group::Group {
        &self.members.group
    }

    fn leads(&self) -> bool {
        self.group().raft().server_metrics().borrow().state == ServerState::Leader
    }

    async fn pass_on(&self, command: &Command) -> anyhow::Result<serde_json::Value> {
        let leader = self.group().leader().context("no replica leads now; try again soon")?;
        let peers = self.group().peers();
        let (Some(peer), Some(links)) = (peers.get(&leader), &self.members.links) else {
            bail!("the leader, replica {leader}, cannot be reached from here");
        };
        command::send(links, peer, command).await
    }

    fn scrub(&self) -> anyhow::Result<()> {
        let files = self.files.as_ref().context("a witness holds no files")?;
        files.scrub.start_now();
        Ok(())
    }

    /// Orders the recovery and has the service start anew, which carries it out.
    async fn recover(&self, lost: &[String], accepts_loss: bool) -> anyhow::Result<()> {
        let group = self.group();
        let seen = recovery::Seen {
            me: group.me(),
            leader: group.heard_leader(),
            members: &group.peers(),
            in_sync: &group.in_sync(),
            copies: self.copies,
        };
        let order = recovery::allow(&seen, lost, accepts_loss)?;
        let folder = self.folder.clone();
        blocking(move || recovery::order(&folder, &order)).await?;
        tracing::warn!(?lost, "recovery without a majority was ordered");
        self.restart.notify_one();
        Ok(())
    }

    /// Has the group know this node's name and address.
    pub async fn introduce(&self, address: &str) -> anyhow::Result<()> {
        let number = self.group().me();
        match self.group().peers().get(&number) {
            Some(peer) if peer.name != self.node || peer.address != address => {}
            _ => return Ok(()),
        }
        let readdress = Command::Readdress {
            number,
            name: self.node.clone(),
            address: address.to_owned(),
        };
        command::result(&self.perform(readdress).await)
    }

    pub async fn report(&self) -> anyhow::Result<Report> {
        let log = self.folder.join("log");
        let log_bytes = blocking(move || folder_size(&log)).await?;
        let group = self.group();
        // Not who led last: without a majority nobody does.
        let (in_sync, durable, leader) = (group.in_sync(), group.durable(), group.heard_leader());
        let (members, voters) = (group.peers(), group.voters());
        let next = next_index(group.last_log());
        let lag = |node: &NodeId| {
            let durable = durable.as_ref()?;
            Some(next.saturating_sub(durable.get(node).copied().unwrap_or_default()))
        };
        let is_voter = |node: &NodeId| voters.iter().any(|voters| voters.contains(node));
        let me = group.me();
        let role = match () {
            () if leader == Some(me) => Role::Leader,
            () if members.is_empty() => Role::Waiting,
            () if members.get(&me).is_some_and(|peer| peer.witness) => Role::Witness,
            () if is_voter(&me) => Role::Follower,
            () => Role::Learner,
        };
        let data = members.values().filter(|peer| !peer.witness).count();
        Ok(Report {
            node: self.node.clone(),
            role,
            leader: leader.and_then(|node| members.get(&node).map(|peer| peer.name.clone())),
            term: group.raft().server_metrics().borrow().vote.leader_id.term,
            // One that was let go is in the set until the next look.
            copies: in_sync.iter().filter(|node| members.contains_key(node)).count(),
            wanted: self.copies.min(data.max(1)),
            members: members
                .iter()
                .map(|(node, peer)| Member {
                    name: peer.name.clone(),
                    number: *node,
                    address: peer.address.clone(),
                    votes: is_voter(node),
                    witness: peer.witness,
                    in_sync: in_sync.contains(node),
                    lag: lag(node),
                })
                .collect(),
            log_bytes,
            free_bytes: self.files.as_ref().map_or(0, |files| files.leader.free()),
            is_full: self.files.as_ref().is_some_and(|files| files.leader.is_full()),
            is_set_back: members.get(&me).is_some_and(|peer| peer.store != group.store()),
            requests: self.requests.load(Ordering::Relaxed),
            transfer: self.transfer.counts(),
            scrub: self
                .files
                .as_ref()
                .map(|files| files.scrub.counts())
                .unwrap_or_default(),
        })
    }
}

/// What is wrong with such a store, and what to do.
pub const SET_BACK: &str = "an older image of this disk was restored, so the group does not take it back: \
    storage remove NODE on another node, empty the storage folder here, storage add NODE";

/// "leads, 2 of 3 copies, log 12 MiB, 3 requests/s"
pub fn describe(report: &Report) -> Status {
    let role = match (report.role, &report.leader) {
        (Role::Leader, _) => "leads".to_owned(),
        (Role::Waiting, _) => "waits to be taken in by a group".to_owned(),
        (_, None) => "no leader".to_owned(),
        (Role::Follower, Some(leader)) => format!("follows {leader}"),
        (Role::Learner, Some(leader)) => format!("learns from {leader}"),
        (Role::Witness, Some(leader)) => format!("witness of {leader}"),
    };
    let copies = match report.wanted {
        1 => "1 copy".to_owned(),
        wanted => format!("{} of {wanted} copies", report.copies),
    };
    let detail = format!(
        "{role}, {copies}, log {} MiB, {} requests/s",
        report.log_bytes.div_ceil(1 << 20),
        report.requests
    );
    let fault = match () {
        () if report.is_set_back => Some(SET_BACK),
        () if report.is_full => Some("the disk is nearly full, nothing new is taken"),
        () if report.leader.is_none() => Some("changes wait"),
        () if report.copies < report.wanted => Some("a copy is missing"),
        () => None,
    };
    match fault {
        None => Status::good(detail),
        Some(fault) => Status {
            health: Health::Degraded,
            detail: format!("{detail}; {fault}"),
        },
    }
}

fn folder_size(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        match entry?.metadata() {
            Ok(found) => size += found.len(),
            // Purged in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            role: Role::Leader,
            leader: Some("n1".into()),
            copies: 3,
            wanted: 3,
            log_bytes: 12 << 20,
            requests: 3,
            ..Report::default()
        }
    }

    #[test]
    fn detail_is_one_short_line() {
        assert_eq!(
            describe(&report()),
            Status::good("leads, 3 of 3 copies, log 12 MiB, 3 requests/s")
        );
        let alone = Report {
            copies: 1,
            wanted: 1,
            ..report()
        };
        assert_eq!(describe(&alone).detail, "leads, 1 copy, log 12 MiB, 3 requests/s");
    }

    #[test]
    fn missing_copies_a_missing_leader_and_a_full_disk_are_said() {
        let copies = Report { copies: 2, ..report() };
        let leader = Report {
            role: Role::Follower,
            leader: None,
            ..report()
        };
        let full = Report {
            is_full: true,
            ..report()
        };
        for (report, expected) in [
            (copies, "a copy is missing"),
            (leader, "changes wait"),
            (full, "nothing new is taken"),
        ] {
            let status = describe(&report);
            assert_eq!(status.health, Health::Degraded);
            assert!(status.detail.ends_with(expected), "{}", status.detail);
        }
    }
}
