//! A node that belongs to a cluster but has no replica yet: it waits until the leader of a group invites it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::watch;

use super::charter::Charter;
use super::command::{self, Command, Hello, Invitation, Report};
use super::disk::Folder;
use super::replica::blocking;
use super::state::disk::SystemDisk;
use super::types::StoreId;
use super::{identity, opening, state};
use crate::base::BoxFuture;
use crate::net::mesh::{Fault, Handler, Identity};

/// Answers commands while this node waits.
pub struct Waiting {
    folder: PathBuf,
    node: String,
    invited: watch::Sender<Option<Charter>>,
    /// Two invitations must not make two stores.
    turn: Arc<Mutex<()>>,
}

impl Waiting {
    pub fn new(folder: PathBuf, node: String) -> Self {
        Waiting {
            folder,
            node,
            invited: watch::Sender::new(None),
            turn: Arc::default(),
        }
    }

    /// Resolves when the store was made. Cancel safe.
    pub async fn invited(&self) -> Charter {
        let mut invited = self.invited.subscribe();
        let charter = invited.wait_for(Option::is_some).await;
        charter
            .ok()
            .and_then(|charter| charter.clone())
            .expect("the sender is this one's own, and it was there")
    }

    async fn perform(&self, command: Command) -> Bytes {
        match command {
            Command::Status => command::answer(Ok(Report {
                node: self.node.clone(),
                ..Report::default()
            })),
            Command::Hello => command::answer(Ok(Hello {
                number: None,
                was_member: false,
            })),
            Command::Invite(invitation) => command::answer(self.accept(invitation).await),
            _ => command::answer::<()>(Err(anyhow::anyhow!(
                "{} has no replica yet; add it from a node of the group",
                self.node
            ))),
        }
    }

    async fn accept(&self, invitation: Invitation) -> anyhow::Result<StoreId> {
        let (folder, turn) = (self.folder.clone(), self.turn.clone());
        let made = blocking(move || {
            let _turn = turn.lock().expect("no holder of this lock panics");
            make(&folder, &invitation)
        });
        let (charter, store) = made.await.context("make the store")?;
        self.invited.send_replace(Some(charter));
        Ok(store)
    }
}

/// Makes the store of an invited replica; the same invitation again finds it.
fn make(folder: &Path, invitation: &Invitation) -> std::io::Result<(Charter, StoreId)> {
    let charter = Charter::join(invitation.number, invitation.witness, invitation.shared);
    match Charter::load(folder)? {
        Some(known) if known != charter => return Err(std::io::Error::other("it was invited by another group")),
        Some(_) => {}
        None => opening::refuse_uncharted(folder)?,
    }
    opening::prepare(folder, charter.witness)?;
    charter.save(folder)?;
    if !charter.witness {
        // Before the log, as `opening` wants it.
        state::Machine::open(&folder.join("state"), Arc::new(SystemDisk)).map_err(std::io::Error::other)?;
    }
    let store = identity::ensure(&Folder::new(folder.join("log")), charter.number)?;
    Ok((charter, store))
}

impl Handler for Waiting {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            Ok(match command::decode(&body) {
                Ok(command) => self.perform(command).await,
                Err(error) => command::answer::<()>(Err(error)),
            })
        })
    }
}
