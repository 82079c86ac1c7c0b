//! When a connection of HTTP/2 or 3 comes to its end: idle, stuck, or because the front or its address leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::guard::Patience;
use super::leaving;
use super::service::Front;

/// How long an idle HTTP/1 connection is kept when the front drains. Busy clients ask again within it.
const LAST_CHANCE: Duration = Duration::from_secs(3);

/// Resolves when the connection must come to its end; then, how long an idle one of HTTP/1 is kept. Cancel safe.
pub async fn last_chance(front: &Front, connection: &Connection) -> Duration {
    tokio::select! {
        () = front.scope.draining() => LAST_CHANCE,
        () = front.leaving.leaves(connection.local.ip()) => leaving::LAST_CHANCE,
    }
}

/// Looks after a connection of HTTP/2 or 3 as the guard does after one of HTTP/1, but only now and then.
pub struct Watch {
    connection: Arc<Connection>,
    patience: Patience,
    next: Instant,
    /// Pieces taken by the client when one was first seen waiting, and since when.
    untaken: Option<(u64, Instant)>,
}

/// Why a connection is given up.
pub enum End {
    Idle,
    /// Answers wait, and the client takes none of them.
    Stuck,
}

impl Watch {
    pub fn new(connection: Arc<Connection>, patience: Patience) -> Self {
        Watch {
            connection,
            patience,
            next: Instant::now() + patience.shortest(),
            untaken: None,
        }
    }

    /// Waits for the next look. Cancel safe.
    pub async fn look(&mut self) -> Option<End> {
        sleep_until(self.next).await;
        let now = Instant::now();
        self.next = now + self.patience.shortest();
        let begun = self.connection.begun();
        let idle = if begun == 0 {
            self.patience.header
        } else {
            self.patience.idle
        };
        if self
            .connection
            .idle_since(begun)
            .is_some_and(|since| since + idle <= now)
        {
            return Some(End::Idle);
        }
        self.untaken = match (self.connection.untaken_after(), self.untaken) {
            (Some(moved), Some((before, since))) if moved == before => Some((before, since)),
            (moved, _) => moved.map(|moved| (moved, now)),
        };
        let (_, since) = self.untaken?;
        (since + self.patience.body <= now).then_some(End::Stuck)
    }
}
