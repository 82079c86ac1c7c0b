//! A thread of its own for work that blocks and comes piece after piece. Handing work to it costs one wake-up; the runtime's
//! pool of threads, made for many at once, costs several.

use std::io;
use std::thread;

use tokio::sync::{mpsc, oneshot};

/// Whoever gives work waits for its result, so more than a few never queue. When full, the giver waits.
const MAILBOX: usize = 4;

type Work = Box<dyn FnOnce() + Send>;

/// Its thread ends when it is dropped and the work that was given is done.
pub struct Executor {
    mailbox: mpsc::Sender<Work>,
}

impl Executor {
    pub fn start(name: &str) -> io::Result<Self> {
        let (mailbox, mut works) = mpsc::channel::<Work>(MAILBOX);
        thread::Builder::new().name(name.into()).spawn(move || {
            while let Some(work) = works.blocking_recv() {
                work();
            }
        })?;
        Ok(Executor { mailbox })
    }

    /// Runs `work` after what was given before. Cancelling does not take it back.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let work = Box::new(move || {
            // Whoever gave up does not want to know.
            let _ = done.send(work());
        });
        self.mailbox.send(work).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread for this work has ended")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn work_is_done_in_its_order_on_one_thread() {
        let executor = Executor::start("work").unwrap();
        let done = Arc::new(Mutex::new(Vec::new()));
        let given = (0..20).map(|number| {
            let done = done.clone();
            executor.run(move || {
                done.lock().unwrap().push(number);
                (number, thread::current().id())
            })
        });
        let results = futures_util::future::try_join_all(given).await.unwrap();
        assert_eq!(*done.lock().unwrap(), (0..20).collect::<Vec<_>>());
        let (numbers, threads): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        assert!(threads.windows(2).all(|pair| pair[0] == pair[1]));
        assert_ne!(threads[0], thread::current().id());
    }

    #[tokio::test]
    async fn work_that_panics_ends_the_executor() {
        let executor = Executor::start("work").unwrap();
        let panicked = executor.run(|| panic!("on purpose")).await;
        assert!(panicked.is_err());
        assert!(executor.run(|| ()).await.is_err());
    }
}
