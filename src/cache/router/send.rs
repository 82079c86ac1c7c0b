//! Moves a stream: one piece under way at a time, again until it is kept. What is sent twice is kept once.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error};

use super::Router;
use super::stream::Stream;
use crate::cache::peer::COPY;
use crate::cache::peer::message::Receipt;
use crate::net::mesh::{CallError, Class as Line, Why};

/// A piece that is not answered in that time is sent again; the council notices a dead node sooner.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before a piece that was not kept is sent again.
const AGAIN: Duration = Duration::from_millis(3);
/// From here on a piece goes over the line for bulk, so that small ones of other streams need not wait behind it.
const HEAVY: usize = 64 << 10;

/// Until the stream is closed.
pub async fn run(router: Arc<Router>, stream: Arc<Stream>) {
    let peer = router.mesh.peer(&stream.target.name);
    let mut changed = router.changed.subscribe();
    while !stream.is_closed() && !router.scope.is_draining() {
        changed.mark_unchanged();
        let Some((piece, next)) = router.epoch().and_then(|epoch| stream.piece(epoch)) else {
            tokio::select! {
                () = stream.work.notified() => {}
                _ = changed.changed() => {}
                () = router.scope.draining() => return,
            }
            continue;
        };
        let line = if piece.len() >= HEAVY { Line::Bulk } else { Line::Calls };
        let kept = tokio::select! {
            kept = peer.call(line, COPY, piece, PATIENCE) => kept,
            // Another epoch, another piece.
            _ = changed.changed() => continue,
            () = router.scope.draining() => return,
        };
        match kept.map(|receipt| Receipt::decode(&receipt)) {
            Ok(Ok(Receipt::Kept(next))) => {
                stream.confirm(next);
                continue;
            }
            // It never will be as it is.
            Err(CallError::NotSent(Why::TooLarge)) => {
                error!(node = %stream.target.name, "a copy is too large for a message, and goes without what it can");
                stream.lighten(next);
                continue;
            }
            Ok(receipt) => debug!(node = %stream.target.name, ?receipt, "a copy was not taken"),
            Err(error) => debug!(node = %stream.target.name, %error, "a copy was not sent"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = changed.changed() => {}
        }
    }
}
