//! Requests that wait, so that they can be interrupted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::dying::is_dying;

/// How often a caller that was interrupted, but not killed, is looked at again: the kernel says it only once.
const LOOK: Duration = Duration::from_millis(250);

/// Whether a request may be given up at any signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It changes nothing.
    None,
    /// It may happen all the same: only if its caller is about to end.
    UntilDeath,
    /// As before, and Linux before 6.3 does not interrupt a caller that has begun to exit: it is looked at all the time.
    UntilExit,
}

#[derive(Default)]
pub struct Pending(Mutex<HashMap<u64, Arc<Notify>>>);

/// A request that waits; it is forgotten when this is dropped.
pub struct Wait<'a> {
    pending: &'a Pending,
    unique: u64,
    thread: u32,
    patience: Patience,
    interrupted: Arc<Notify>,
}

impl Pending {
    fn map(&self) -> MutexGuard<'_, HashMap<u64, Arc<Notify>>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// `thread`: who asks.
    pub fn wait(&self, unique: u64, thread: u32, patience: Patience) -> Wait<'_> {
        let interrupted = Arc::new(Notify::new());
        self.map().insert(unique, interrupted.clone());
        Wait {
            pending: self,
            unique,
            thread,
            patience,
            interrupted,
        }
    }

    /// `false`: no such request waits, or not yet.
    pub fn interrupt(&self, unique: u64) -> bool {
        let waiting = self.map().get(&unique).cloned();
        waiting.is_some_and(|waiting| {
            waiting.notify_one();
            true
        })
    }
}

impl Wait<'_> {
    /// Resolves when the request shall be given up.
    pub async fn given_up(&self) {
        match self.patience {
            Patience::None => self.interrupted.notified().await,
            Patience::UntilDeath => {
                self.interrupted.notified().await;
                while !is_dying(self.thread) {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Patience::UntilExit => loop {
                tokio::time::sleep(LOOK).await;
                if is_dying(self.thread) {
                    break;
                }
            },
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.pending.map().remove(&self.unique);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_query_is_given_up_at_any_signal_and_a_change_when_its_caller_is_gone() {
        let pending = Pending::default();
        let query = pending.wait(1, std::process::id(), Patience::None);
        let change = pending.wait(2, std::process::id(), Patience::UntilDeath);
        let dead = pending.wait(3, u32::MAX, Patience::UntilDeath);
        for unique in 1..=3 {
            assert!(pending.interrupt(unique));
        }
        query.given_up().await;
        dead.given_up().await;
        let lived = tokio::time::timeout(Duration::from_secs(60), change.given_up()).await;
        assert!(lived.is_err());
        drop(query);
        assert!(!pending.interrupt(1));
    }
}
