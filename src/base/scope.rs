//! `Scope`: a tree of owned tasks, and the only place that spawns.
//! `drain` asks everything below to finish what it holds; `kill` stops it where it stands.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::task::{JoinHandle, coop};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cheap handle; clones own the same tasks.
#[derive(Clone)]
pub struct Scope {
    draining: CancellationToken,
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Scope {
    pub fn new() -> Self {
        Scope {
            draining: CancellationToken::new(),
            killed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// A scope that is drained and killed with this one, and can be before it.
    /// Its tasks count as this one's too: `stop` here waits for them.
    pub fn child(&self) -> Self {
        Scope {
            draining: self.draining.child_token(),
            killed: self.killed.child_token(),
            tasks: self.tasks.clone(),
        }
    }

    /// Runs a task in this scope. It is dropped where it stands when the scope is killed.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Each wrapper would hold a place of its own for the task besides the one that it moves it to.
        let task = owned(Box::pin(task), self.killed.clone());
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(self.tasks.track_future(task))
    }

    /// Resolves when this scope shall finish what it holds. Cancel safe.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Asks all tasks to finish; does not wait.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Drains, waits up to `grace`, then kills what is left. Returns whether all ended by themselves.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.drain();
        self.tasks.close();
        let ended = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.killed.cancel();
        self.tasks.wait().await;
        ended
    }
}

/// The task's output; `None` when it was killed before.
async fn owned<F: Future>(mut task: Pin<Box<F>>, killed: CancellationToken) -> Option<F::Output> {
    let mut end = pin!(killed.cancelled());
    // Wakes the task by itself once it has been polled, and is not polled each time that the task is: it takes two locks.
    let mut is_armed = false;
    poll_fn(|cx| {
        if killed.is_cancelled() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = task.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if !is_armed && end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        // Without a budget it only asked to be polled again.
        is_armed |= coop::has_budget_remaining();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_waits_for_tasks_that_finish() {
        let scope = Scope::new();
        let inner = scope.clone();
        let task = scope.spawn(async move {
            inner.draining().await;
            7
        });
        assert!(scope.stop(Duration::from_secs(5)).await);
        assert_eq!(task.await.expect("task did not panic"), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn stop_kills_what_does_not_finish() {
        let scope = Scope::new();
        let task = scope.child().spawn(std::future::pending::<()>());
        assert!(!scope.stop(Duration::from_secs(1)).await);
        assert_eq!(task.await.expect("task did not panic"), None);
    }

    #[tokio::test]
    async fn what_is_always_busy_is_killed_too() {
        let scope = Scope::new();
        let task = scope.spawn(async {
            loop {
                coop::consume_budget().await;
            }
        });
        tokio::task::yield_now().await;
        assert!(!scope.stop(Duration::ZERO).await);
        assert_eq!(task.await.expect("task did not panic"), None::<()>);
    }
}
