//! `Scope`: a tree of owned tasks, and the only place that spawns.
//! `drain` asks everything below to finish what it holds; `kill` stops it where it stands.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
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
        let killed = self.killed.clone();
        // Each wrapper would hold a place of its own for the task besides the one that it moves it to.
        let task = Box::pin(task);
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(
            self.tasks
                .track_future(async move { killed.run_until_cancelled_owned(task).await }),
        )
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
}
