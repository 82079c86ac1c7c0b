//! Keeps one connection to a node: makes it, replaces it before it is too old or when the certificate changed, and
//! makes it anew when it broke. The next one stands before the old one goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use crate::base::backoff::Backoff;
use crate::base::{BoxFuture, Scope};

use super::error::{CallError, ConnectError, Why};

const FIRST_DELAY: Duration = Duration::from_millis(50);
/// A node that comes back waits no longer than this for its peers.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Certificates are looked at only when a connection is made, so none may live for ever.
pub const AGE: Duration = Duration::from_secs(3600);

/// A connection as the keeper sees it. Clones are the same connection.
pub(super) trait Kept: Clone + Send + Sync + 'static {
    /// Resolves when it ended (why) or takes nothing new (`Why::Draining`).
    fn over(&self) -> BoxFuture<'static, Why>;
    fn is_over(&self) -> bool;
    /// Takes nothing new, finishes what is under way, closes.
    fn drain(&self);
    fn is(&self, other: &Self) -> bool;
}

/// How a keeper makes a connection that has proven to work, and when it shall make a new one.
pub(super) struct Source<C> {
    pub connect: Box<dyn Fn() -> BoxFuture<'static, Result<C, ConnectError>> + Send + Sync>,
    pub renewed: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

/// The connection now.
pub(super) enum Slot<C> {
    /// Being made; wait for it.
    Dialing,
    Up(C),
    /// The last attempt failed: whoever asks is told so at once.
    Down(Why),
}

/// A connection that is being kept.
pub(super) struct Keeper<C> {
    slot: Arc<watch::Sender<Slot<C>>>,
    scope: Scope,
}

impl<C> Drop for Keeper<C> {
    fn drop(&mut self) {
        self.scope.drain();
    }
}

impl<C: Kept> Keeper<C> {
    /// Keeps a connection until dropped or the scope drains. `what` is for the log.
    pub fn start(source: Source<C>, scope: &Scope, what: String) -> Self {
        let slot = Arc::new(watch::Sender::new(Slot::Dialing));
        let scope = scope.child();
        let task = Task {
            source,
            slot: slot.clone(),
            scope: scope.clone(),
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
            what,
        };
        scope.spawn(task.run());
        Keeper { slot, scope }
    }

    /// The connection, for use until `deadline`; `not` is one that has proven to take nothing new. Waits for one
    /// that is being made, not for a node that is away. Cancel safe.
    pub async fn get(&self, not: Option<&C>, deadline: Instant) -> Result<C, CallError> {
        if let (None, Some(connection)) = (not, self.peek()) {
            return Ok(connection);
        }
        let mut slot = self.slot.subscribe();
        let useful = |slot: &Slot<C>| match slot {
            Slot::Dialing => false,
            Slot::Down(_) => true,
            Slot::Up(connection) => not.is_none_or(|not| !connection.is(not)),
        };
        let found = match timeout_at(deadline, slot.wait_for(useful)).await {
            Err(_) => Err(Why::Deadline),
            Ok(Err(_)) => Err(Why::Stopped),
            Ok(Ok(slot)) => match &*slot {
                Slot::Up(connection) => Ok(connection.clone()),
                Slot::Down(why) => Err(why.clone()),
                Slot::Dialing => Err(Why::Stopped),
            },
        };
        found.map_err(CallError::NotSent)
    }

    /// The connection, if there is one now.
    pub fn peek(&self) -> Option<C> {
        match &*self.slot.borrow() {
            Slot::Up(connection) => Some(connection.clone()),
            _ => None,
        }
    }
}

struct Task<C> {
    source: Source<C>,
    slot: Arc<watch::Sender<Slot<C>>>,
    scope: Scope,
    backoff: Backoff,
    what: String,
}

/// Why a kept connection needs a successor.
enum Turn {
    Over(Why),
    Renew(&'static str),
}

impl<C: Kept> Task<C> {
    async fn run(mut self) {
        let scope = self.scope.clone();
        tokio::select! {
            () = scope.draining() => {}
            () = self.keep() => {}
        }
        if let Slot::Up(last) = self.slot.send_replace(Slot::Down(Why::Stopped)) {
            last.drain();
        }
    }

    async fn keep(&mut self) {
        loop {
            // Watched from before the dial: a certificate replaced meanwhile is not missed.
            let renewed = (self.source.renewed)();
            match (self.source.connect)().await {
                Err(error) => self.failed(&error).await,
                Ok(connection) => self.hold(connection, renewed).await,
            }
        }
    }

    /// An attempt failed. What still serves goes on serving; else whoever waits is told.
    async fn failed(&mut self, error: &ConnectError) {
        debug!(to = %self.what, %error, "cannot connect");
        let why = Why::Unreachable(error.to_string().into());
        let first = self.slot.send_if_modified(|slot| match slot {
            Slot::Up(connection) if !connection.is_over() => false,
            Slot::Up(_) | Slot::Dialing => {
                *slot = Slot::Down(why.clone());
                true
            }
            Slot::Down(last) => {
                *last = why.clone();
                false
            }
        });
        if first {
            info!(to = %self.what, %error, "a node cannot be reached");
        }
        self.pause().await;
    }

    /// Puts the connection to use until it needs a successor.
    async fn hold(&mut self, connection: C, renewed: BoxFuture<'static, ()>) {
        let since = Instant::now();
        debug!(to = %self.what, "connected");
        if let Slot::Up(former) = self.slot.send_replace(Slot::Up(connection.clone())) {
            former.drain();
        }
        let turn = tokio::select! {
            why = connection.over() => Turn::Over(why),
            () = renewed => Turn::Renew("certificate replaced"),
            () = tokio::time::sleep(spread(AGE)) => Turn::Renew("old"),
        };
        match turn {
            Turn::Renew(reason) => debug!(to = %self.what, reason, "replacing a connection"),
            Turn::Over(why) => {
                debug!(to = %self.what, %why, "a connection is over");
                connection.drain();
                // A silent node is away; one that closed may be a process that was replaced: worth a quick try.
                self.slot.send_replace(match why {
                    Why::Silent | Why::Stalled => Slot::Down(why),
                    _ => Slot::Dialing,
                });
            }
        }
        match since.elapsed() < LONGEST_DELAY {
            // It ended at once: without a pause this could become a busy loop.
            true => self.pause().await,
            false => self.backoff.reset(),
        }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(spread(self.backoff.delay())).await;
    }
}

/// Between half and the whole of it, so that nodes do not act in step.
fn spread(delay: Duration) -> Duration {
    // Without random numbers the delay is merely not spread.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    delay.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}
