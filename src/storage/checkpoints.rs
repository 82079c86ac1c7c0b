//! Whole states between nodes: a byte stream of the mesh for each, `transfer` at both ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::group::Group;
use super::mesh::Links;
use super::network::Unreached;
use super::state::Shared;
use super::state::disk::SystemDisk;
use super::transfer::{self, Holds, Local, Progress};
use super::types::Peer;
use super::witness;
use crate::base::{BoxFuture, Scope};
use crate::net::mesh::{Body, ByteStream, Identity, Streams, Tunnel, empty};

/// What the stream is opened to. The number is the version.
const AUTHORITY: &str = "checkpoint:1";
/// Until the other side has opened its end.
const OPEN: Duration = Duration::from_secs(5);

/// Sends this replica's state to those that need it. Clones are the same.
#[derive(Clone)]
pub struct Sending {
    /// `None` on a witness.
    pub source: Option<Shared>,
    pub holds: Holds,
    pub progress: Arc<Progress>,
}

impl Sending {
    pub async fn send(&self, links: &Links, peer: &Peer, header: Bytes) -> Result<Bytes, Unreached> {
        let source = self.source.as_ref().ok_or_else(witness::refusal)?;
        let stream = links.open(peer, AUTHORITY, OPEN).await?;
        tracing::info!(
            node = peer.name,
            "the log no longer reaches back that far; sending the state"
        );
        let sent = transfer::send(stream, header, source, &self.holds, &self.progress).await;
        sent.map_err(|error| Unreached::Lost(error.to_string()))
    }
}

/// Takes states that a leader sends.
pub struct Receiving {
    pub group: Group,
    /// `None` on a witness, which needs only the note.
    pub own: Option<Shared>,
    pub progress: Arc<Progress>,
    pub scope: Scope,
}

impl Streams for Receiving {
    fn request<'a>(&'a self, _peer: &'a Identity, _request: Request<Incoming>) -> BoxFuture<'a, Response<Body>> {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Box::pin(std::future::ready(response))
    }

    fn open<'a>(&'a self, peer: &'a Identity, authority: &'a str) -> BoxFuture<'a, Result<Tunnel, StatusCode>> {
        let opened = match authority {
            AUTHORITY => Ok(self.tunnel(peer.node.to_string())),
            _ => Err(StatusCode::NOT_FOUND),
        };
        Box::pin(std::future::ready(opened))
    }
}

impl Receiving {
    fn tunnel(&self, node: String) -> Tunnel {
        let (group, own) = (self.group.clone(), self.own.clone());
        let (progress, scope) = (self.progress.clone(), self.scope.clone());
        Box::new(move |stream| {
            Box::pin(async move {
                tracing::info!(node, "receiving a state");
                match receive(stream, group, own, progress, &scope).await {
                    Ok(()) => tracing::info!(node, "the state has arrived"),
                    Err(error) => tracing::warn!(node, %error, "the state has not arrived whole"),
                }
            })
        })
    }
}

async fn receive(
    stream: ByteStream,
    group: Group,
    own: Option<Shared>,
    progress: Arc<Progress>,
    scope: &Scope,
) -> io::Result<()> {
    let place = group.incoming().await?;
    let install = move |header, checkpoint| async move { group.install(header, checkpoint).await };
    match own {
        None => transfer::receive_note(stream, place, install).await,
        Some(machine) => {
            let local = Local {
                machine,
                disk: Arc::new(SystemDisk),
                leftover: None,
            };
            transfer::receive(stream, place, local, scope, progress, install).await
        }
    }
}
