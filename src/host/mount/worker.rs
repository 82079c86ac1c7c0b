//! Asks a worker: a process for one act. Past the deadline it is killed; one that the kernel does not let die is not waited for,
//! and until it is gone no other one is started.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::order::{Answer, Order, Refusal};
use crate::host::command::{Program, Started};

/// The hidden verb of this executable.
const VERB: &str = "mount-worker";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("an earlier call still hangs in the kernel")]
    Busy,
    #[error("{}", .0.text)]
    Refused(Refusal),
    #[error("the worker failed: {0}")]
    Broken(#[from] io::Error),
}

impl Error {
    /// Whoever is behind the mount is silent; it may come back.
    pub fn is_silence(&self) -> bool {
        matches!(self, Error::Late(_) | Error::Busy)
    }
}

/// Starts workers, one at a time.
pub struct Worker {
    executable: PathBuf,
    /// The last one, where it outlived its deadline.
    last: Option<Started>,
}

impl Worker {
    /// `executable`: this very program.
    pub fn new(executable: PathBuf) -> Self {
        Worker { executable, last: None }
    }

    /// One that does not know of this one's workers, for an order that nothing can delay.
    pub fn another(&self) -> Self {
        Worker::new(self.executable.clone())
    }

    pub async fn ask(&mut self, order: &Order, deadline: Duration) -> Result<Answer, Error> {
        self.ask_with(None, order, deadline).await
    }

    /// `input`: an open file that the order needs. Not cancel safe: a worker whose answer is not awaited is killed, and its act may be done or not.
    pub async fn ask_with(
        &mut self,
        input: Option<OwnedFd>,
        order: &Order,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        if self.last.as_mut().is_some_and(Started::is_running) {
            return Err(Error::Busy);
        }
        self.last = None;
        let order = serde_json::to_string(order).map_err(io::Error::other)?;
        let program = Program::new(&self.executable).arg(VERB).arg(order).input(input);
        let mut started = program.start()?;
        let Some(finished) = started.finish(deadline).await? else {
            self.last = Some(started);
            return Err(Error::Late(deadline));
        };
        let answer: Result<Answer, Refusal> = serde_json::from_str(&finished.output)
            .map_err(|_| io::Error::other(format!("it said nothing: {}", finished.errors.trim())))?;
        answer.map_err(Error::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests;
    use std::fs;

    fn worker(script: &str) -> (tempfile::TempDir, Worker) {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("program");
        tests::script(&path, script);
        (folder, Worker::new(path))
    }

    fn probe() -> Order {
        Order::Probe { folder: "/".into() }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn answers_and_refusals_come_back() {
        let (_folder, mut worker) = worker("echo '{\"Ok\":{\"detached\":2}}'");
        assert_eq!(worker.ask(&probe(), LONG).await.expect("answered"), Answer::Detached(2));
        let (_folder, mut worker) = self::worker("echo '{\"Err\":{\"text\":\"stale\",\"errno\":116}}'");
        let Err(Error::Refused(refusal)) = worker.ask(&probe(), LONG).await else {
            panic!("refused")
        };
        assert!(refusal.is_final());
        let (_folder, mut worker) = self::worker("echo no such verb >&2; exit 2");
        let error = worker.ask(&probe(), LONG).await.expect_err("no answer");
        assert_eq!(error.to_string(), "the worker failed: it said nothing: no such verb");
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_and_the_next_one_runs() {
        let (folder, mut worker) = worker("echo $$ > $(dirname $0)/pid; exec sleep 100");
        // Long enough for the script to say its number.
        let late = worker.ask(&probe(), Duration::from_secs(2)).await.expect_err("late");
        assert!(late.is_silence(), "{late}");
        let pid = fs::read_to_string(folder.path().join("pid")).expect("it ran");
        assert_eq!(
            crate::host::process::identity(pid.trim().parse().expect("a number")),
            None,
            "it is gone"
        );
        assert!(matches!(
            worker.ask(&probe(), Duration::from_millis(50)).await,
            Err(Error::Late(_))
        ));
    }
}
