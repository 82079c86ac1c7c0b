//! The view socket: snapshots, one JSON line each, from the agent to every module of the node. Only root and the module user
//! may open it.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec};
use tracing::debug;

use super::Snapshot;
use crate::base::Scope;
use crate::base::backoff::Backoff;
use crate::net::serve::serve;

/// Nine nodes with all settings stay far below it.
const LONGEST: usize = 4 << 20;
/// Seven modules, twice over for successors that overlap, and the operator's commands.
const FOLLOWERS: usize = 32;
/// Delay until the first new attempt to reach the agent, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The newest snapshot that came; an empty one until the first did.
pub type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// The agent's side: sends the newest snapshot to each follower, and every later one, until the scope drains.
pub fn publish(listener: StdListener, snapshots: Snapshots, scope: &Scope) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(FOLLOWERS));
    let followers = scope.clone();
    scope.spawn(serve(listener, permits, scope.clone(), move |stream, _| {
        send(stream, snapshots.clone(), followers.clone())
    }));
    Ok(())
}

async fn send(stream: UnixStream, mut snapshots: Snapshots, scope: Scope) {
    let mut lines = FramedWrite::new(stream, LinesCodec::new());
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let line = serde_json::to_string(&*snapshot).expect("snapshots are plain data");
        if lines.send(line).await.is_err() {
            return;
        }
        tokio::select! {
            () = scope.draining() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// A module's side: follows until the scope drains, over every successor of the agent.
pub fn follow(socket: PathBuf, scope: &Scope) -> Snapshots {
    let (sender, receiver) = watch::channel(Arc::default());
    let owner = scope.clone();
    scope.spawn(async move {
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        while !owner.is_draining() {
            if let Ok(stream) = UnixStream::connect(&socket).await {
                receive(stream, &sender, &owner, &mut retry).await;
            }
            tokio::select! {
                () = owner.draining() => return,
                () = tokio::time::sleep(retry.delay()) => {}
            }
        }
    });
    receiver
}

async fn receive(stream: UnixStream, sender: &watch::Sender<Arc<Snapshot>>, scope: &Scope, retry: &mut Backoff) {
    let mut lines = FramedRead::new(stream, LinesCodec::new_with_max_length(LONGEST));
    loop {
        let line = tokio::select! {
            () = scope.draining() => return,
            line = lines.next() => line,
        };
        let Some(Ok(line)) = line else { return };
        match serde_json::from_str::<Snapshot>(&line) {
            Ok(snapshot) => {
                retry.reset();
                sender.send_if_modified(|known| {
                    let is_new = **known != snapshot;
                    *known = Arc::new(snapshot);
                    is_new
                });
            }
            Err(error) => {
                debug!(%error, "unreadable snapshot");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen;

    #[tokio::test]
    async fn a_module_follows_over_a_new_agent_and_keeps_the_last_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.sock");
        let module = Scope::new();
        let mut seen = follow(path.clone(), &module);
        for revision in [1, 2] {
            let agent = Scope::new();
            let snapshot = Snapshot {
                revision,
                ..Snapshot::default()
            };
            let (_sender, newest) = watch::channel(Arc::new(snapshot));
            publish(listen::unix(&path).unwrap(), newest, &agent).unwrap();
            seen.wait_for(|snapshot| snapshot.revision == revision).await.unwrap();
            agent.stop(Duration::ZERO).await;
            assert_eq!(seen.borrow().revision, revision);
        }
        module.stop(Duration::ZERO).await;
    }
}
