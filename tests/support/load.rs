//! Clients that ask for a page again and again, over connections of their own. The page says which node served it: `n1`, `n2`, …

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::front::eventually;
use super::http;

/// What all of them saw.
#[derive(Default)]
pub struct Load {
    counts: [AtomicUsize; 3],
    failed: AtomicUsize,
    /// Milliseconds.
    slowest: AtomicU64,
    is_over: AtomicBool,
}

/// A load under way.
pub struct Clients {
    load: Arc<Load>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn begin(front: SocketAddr, method: &'static str, path: &'static str, count: usize) -> Self {
        let load = Arc::new(Load::default());
        let client = |_| {
            let load = load.clone();
            std::thread::spawn(move || load.ask(front, method, path))
        };
        let threads = (0..count).map(client).collect();
        Clients { load, threads }
    }

    /// How often each node answered so far.
    pub fn answers(&self) -> [usize; 3] {
        [0, 1, 2].map(|place| self.load.counts[place].load(Ordering::SeqCst))
    }

    pub fn failed(&self) -> usize {
        self.load.failed.load(Ordering::SeqCst)
    }

    /// The longest wait for an answer since the last look.
    pub fn slowest(&self) -> Duration {
        Duration::from_millis(self.load.slowest.swap(0, Ordering::SeqCst))
    }

    /// Waits for so many further answers; how they were spread.
    pub async fn go_on(&self, count: usize) -> [usize; 3] {
        let before = self.answers();
        let all = |answers: [usize; 3]| answers.iter().sum::<usize>();
        let wanted = all(before) + count;
        eventually("more answers", || all(self.answers()) + self.failed() >= wanted).await;
        let after = self.answers();
        [0, 1, 2].map(|place| after[place] - before[place])
    }

    /// Ends it; how many requests failed.
    pub fn end(mut self) -> usize {
        self.load.is_over.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.failed()
    }
}

impl Drop for Clients {
    /// A test that fails must not leave its load to the others.
    fn drop(&mut self) {
        self.load.is_over.store(true, Ordering::SeqCst);
    }
}

impl Load {
    fn ask(&self, front: SocketAddr, method: &str, path: &str) {
        while !self.is_over.load(Ordering::SeqCst) {
            let started = Instant::now();
            match http::request(front, method, path, "", b"") {
                Ok(answer) if answer.status == 200 => {
                    let number: usize = answer.text()[1..].parse().unwrap();
                    self.counts[number - 1].fetch_add(1, Ordering::SeqCst);
                }
                _ => _ = self.failed.fetch_add(1, Ordering::SeqCst),
            }
            let took = u64::try_from(started.elapsed().as_millis()).unwrap();
            self.slowest.fetch_max(took, Ordering::SeqCst);
        }
    }
}
