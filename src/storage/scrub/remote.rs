//! The scrub's questions to other replicas, over the mesh's connection for bulk.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Replicas, answer_checksums, answer_fetch};
use crate::base::BoxFuture;
use crate::net::mesh::{Class, Fault, Handler, Identity};
use crate::storage::call::Inode;
use crate::storage::group::Group;
use crate::storage::mesh::{Links, SCRUB};
use crate::storage::replica::blocking;
use crate::storage::request;
use crate::storage::state::{Checked, Shared};
use crate::storage::types::NodeId;

/// The contents of a unit are read before it is answered.
const CHECKSUMS: Duration = Duration::from_secs(300);
const FETCH: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Checksums(Vec<Inode>),
    Fetch { inode: Inode, offset: u64 },
}

/// The other data replicas, as the membership names them.
pub struct Remote {
    pub group: Group,
    pub links: Option<Links>,
}

impl Remote {
    async fn ask<T: DeserializeOwned>(&self, node: NodeId, question: Question, within: Duration) -> io::Result<T> {
        let peer = self.group.peers().remove(&node);
        let (Some(peer), Some(links)) = (peer, &self.links) else {
            return Err(io::Error::other(format!("no way to replica {node}")));
        };
        let service = (Class::Bulk, SCRUB);
        let answer = links.call(&peer, service, request::encode(&question), within).await;
        request::decode(&answer.map_err(io::Error::other)?).map_err(io::Error::other)
    }
}

impl Replicas for Remote {
    fn others(&self) -> Vec<NodeId> {
        let data: BTreeSet<NodeId> = self.group.in_sync();
        let me = self.group.me();
        let peers = self.group.peers();
        let others = peers.into_iter().filter(|(node, peer)| *node != me && !peer.witness);
        // One that is behind has other contents, not wrong ones.
        others
            .map(|(node, _)| node)
            .filter(|node| data.contains(node))
            .collect()
    }

    fn checksums(&self, node: NodeId, inodes: Vec<Inode>) -> BoxFuture<'_, io::Result<Vec<Checked>>> {
        Box::pin(self.ask(node, Question::Checksums(inodes), CHECKSUMS))
    }

    fn fetch(&self, node: NodeId, inode: Inode, offset: u64) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        Box::pin(self.ask(node, Question::Fetch { inode, offset }, FETCH))
    }
}

/// Answers other replicas' scrubs.
pub struct ScrubHandler(pub Shared);

impl Handler for ScrubHandler {
    fn call<'a>(&'a self, _peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let question: Question = request::decode(&body).map_err(|bad| Fault::Failed(bad.to_string()))?;
            let machine = self.0.get();
            let answered = blocking(move || {
                let answer = match question {
                    Question::Checksums(inodes) => {
                        request::encode(&answer_checksums(&machine, &inodes).map_err(io::Error::other)?)
                    }
                    Question::Fetch { inode, offset } => {
                        request::encode(&answer_fetch(&machine, inode, offset).map_err(io::Error::other)?)
                    }
                };
                Ok(answer)
            });
            answered.await.map_err(|error| Fault::Failed(error.to_string()))
        })
    }
}
