//! Members come and go: the leader invites a node, has it catch up as a learner, and lets it vote when it is due.
//! Who should vote is decided in `membership`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use openraft::{ChangeMembers, ServerState};

use super::charter::Shared;
use super::command::{self, Command, Hello, Invitation};
use super::group::Group;
use super::membership;
use super::mesh::Links;
use super::types::{NodeId, Peer, StoreId, next_index};
use crate::base::Scope;

/// How often the leader looks whether somebody else should vote.
const LOOK: Duration = Duration::from_secs(1);
/// A witness so many entries behind has the log: a majority with it commits at once.
const CLOSE: u64 = 64;
const DEPOSED: &str = "another node leads now; whether that was done is seen there";

/// Changes the membership of the group that this node leads.
#[derive(Clone)]
pub struct Members {
    pub group: Group,
    pub links: Option<Links>,
    pub shared: Shared,
    /// Voters wanted: three or five.
    pub most: usize,
    /// One change at a time.
    pub turn: std::sync::Arc<tokio::sync::Mutex<()>>,
}

impl Members {
    /// Takes a node in as a learner. Safe to repeat. `address` is its storage's on the mesh.
    pub async fn add(&self, name: String, address: String, witness: bool) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let members = self.group.peers();
        if let Some((number, peer)) = members.iter().find(|(_, peer)| peer.name == name) {
            ensure!(
                peer.witness == witness,
                "{name} is a member of the other kind already; remove it first"
            );
            return self.readdress_in_turn(*number, address).await;
        }
        let mut peer = Peer {
            name: name.clone(),
            address,
            store: StoreId::default(),
            witness,
        };
        let hello: Hello = self.ask(&peer, &Command::Hello).await?;
        let number = match hello.number {
            None => next_index(self.group.last_log()),
            // An earlier invitation was cut short; or it was a member once, and may not come back under that number.
            Some(number) => {
                ensure!(
                    !members.contains_key(&number) && !hello.was_member,
                    "{name} has the files of an earlier membership; empty its storage folder first"
                );
                number
            }
        };
        let invitation = Command::Invite(Invitation {
            number,
            witness,
            shared: self.shared,
        });
        peer.store = self.ask(&peer, &invitation).await?;
        let add = self.group.raft().add_learner(number, peer, false);
        let added = self.group.while_leading(add).await;
        added.context(DEPOSED)?.with_context(|| format!("take {name} in"))?;
        tracing::info!(node = name, replica = number, witness, "a member was taken in");
        Ok(())
    }

    /// Lets a member go.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let mut members = self.group.peers();
        let found = members.iter().find(|(_, peer)| peer.name == name);
        let number = *found.with_context(|| format!("no member is called {name}"))?.0;
        ensure!(
            number != self.group.me(),
            "{name} leads; stop its storage first, so that another takes over"
        );
        let voters: BTreeSet<NodeId> = self.group.voters().into_iter().flatten().collect();
        members.remove(&number);
        let wanted = membership::wanted(&membership::Group {
            leader: self.group.me(),
            voters: &voters,
            members: &members,
            ready: &self.ready(),
            most: self.most,
        });
        if let Some(wanted) = wanted {
            let changed = self.change(wanted).await;
            changed.with_context(|| format!("take the vote from {name}"))?;
        }
        let gone = ChangeMembers::RemoveNodes([number].into());
        let removed = self.change(gone).await;
        removed.with_context(|| format!("let {name} go"))?;
        tracing::info!(node = name, replica = number, "a member was let go");
        Ok(())
    }

    /// A member is met elsewhere from now on.
    pub async fn readdress(&self, number: NodeId, name: &str, address: String) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let members = self.group.peers();
        let known = members.get(&number).context("no such member")?;
        ensure!(
            known.name == name || known.name.is_empty(),
            "replica {number} is {}'s, not {name}'s",
            known.name
        );
        let peer = Peer {
            name: name.to_owned(),
            address,
            ..known.clone()
        };
        self.set(number, peer).await
    }

    async fn readdress_in_turn(&self, number: NodeId, address: String) -> anyhow::Result<()> {
        let members = self.group.peers();
        let known = members.get(&number).context("no such member")?;
        let peer = Peer {
            address,
            ..known.clone()
        };
        self.set(number, peer).await
    }

    async fn set(&self, number: NodeId, peer: Peer) -> anyhow::Result<()> {
        if self.group.peers().get(&number) == Some(&peer) {
            return Ok(());
        }
        let change = ChangeMembers::SetNodes([(number, peer)].into());
        self.change(change).await
    }

    async fn change(&self, change: impl Into<ChangeMembers<NodeId, Peer>>) -> anyhow::Result<()> {
        let changed = self.group.raft().change_membership(change, true);
        self.group.while_leading(changed).await.context(DEPOSED)??;
        Ok(())
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, peer: &Peer, command: &Command) -> anyhow::Result<T> {
        let Some(links) = &self.links else {
            bail!("this node meets no others; set cluster.address and restart it");
        };
        let answer = command::send(links, peer, command).await;
        answer.with_context(|| format!("{} at {}", peer.name, peer.address))
    }

    /// Members that hold files.
    pub fn data(&self) -> BTreeSet<NodeId> {
        let members = self.group.peers();
        members
            .iter()
            .filter(|(_, peer)| !peer.witness)
            .map(|(node, _)| *node)
            .collect()
    }

    /// Data replicas in sync, and witnesses that have the log.
    fn ready(&self) -> BTreeSet<NodeId> {
        let mut ready = self.group.in_sync();
        let (durable, next) = (
            self.group.durable().unwrap_or_default(),
            next_index(self.group.last_log()),
        );
        let has_log = |node: &NodeId| durable.get(node).is_some_and(|has| has + CLOSE >= next);
        let members = self.group.peers();
        let witnesses = members.iter().filter(|(node, peer)| peer.witness && has_log(node));
        ready.extend(witnesses.map(|(node, _)| *node));
        ready
    }

    /// While this node leads, gives the vote to whom it is due.
    pub async fn keep(self, scope: Scope) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = scope.draining() => return,
            }
            if self.group.raft().server_metrics().borrow().state != ServerState::Leader {
                continue;
            }
            let Ok(_turn) = self.turn.try_lock() else { continue };
            let voters = self.group.voters();
            // Two sets: a change is under way.
            let [voters] = voters.as_slice() else { continue };
            let wanted = membership::wanted(&membership::Group {
                leader: self.group.me(),
                voters,
                members: &self.group.peers(),
                ready: &self.ready(),
                most: self.most,
            });
            if let Some(wanted) = wanted {
                tracing::info!(?wanted, "the voters change");
                // A leader that is one no longer fails here; the next looks anew.
                if let Err(error) = self.change(wanted).await {
                    let error = format!("{error:#}");
                    tracing::debug!(error, "the voters did not change");
                }
            }
        }
    }
}
