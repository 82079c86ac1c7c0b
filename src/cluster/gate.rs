//! A module's TLS between nodes: with the certificate that this node has now, and without the nodes that were removed.
//!
//! Only who is known to have left is refused. A name that the last snapshot does not know is let in: a node that joined while this
//! one was without the registry may be the one that it needs to reach the registry again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Snapshot, Snapshots};
use crate::base::Scope;
use crate::net::mesh::trust::{Failure, Trust};
use crate::net::mesh::{Name, Tls};

/// Follows certificate and snapshots until the scope drains.
pub fn tls(trust: &Trust, mut snapshots: Snapshots, scope: &Scope) -> Result<Arc<Tls>, Failure> {
    let tls = trust.follow(scope)?;
    let (kept, owner) = (tls.clone(), scope.clone());
    scope.spawn(async move {
        loop {
            kept.keep_out(left(&snapshots.borrow_and_update()));
            tokio::select! {
                () = owner.draining() => return,
                changed = snapshots.changed() => if changed.is_err() { return },
            }
        }
    });
    Ok(tls)
}

fn left(snapshot: &Snapshot) -> BTreeSet<Name> {
    snapshot.left.iter().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::*;
    use crate::net::mesh::{ConnectError, Protocol};

    #[tokio::test]
    async fn a_node_that_left_is_refused_and_connections_are_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (Trust::new(folder.path().join("a")), Trust::new(folder.path().join("b")));
        let name = |text: &str| -> Name { text.parse().unwrap() };
        first.found(name("c1"), &name("n1"), None).unwrap();
        first.issue(&name("n2"), &second).unwrap();
        let scope = Scope::new();
        let newest = watch::Sender::new(Arc::new(Snapshot::default()));
        let (near, far) = (tls(&first, newest.subscribe(), &scope).unwrap(), second.tls().unwrap());
        let meet = async || {
            let (one, two) = tokio::io::duplex(16 << 10);
            let n1 = name("n1");
            tokio::join!(near.accept(one), far.connect(two, &n1, Protocol::Call)).0
        };
        assert!(meet().await.is_ok());
        let mut renewal = near.renewed();
        newest.send_replace(Arc::new(Snapshot {
            left: vec!["n2".into()],
            ..Snapshot::default()
        }));
        renewal.next().await;
        assert!(matches!(meet().await, Err(ConnectError::Left(node)) if node == name("n2")));
        scope.stop(Duration::ZERO).await;
    }
}
