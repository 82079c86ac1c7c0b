//! What the guard, the service and the log know together of one client connection.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::framing::Refusal;

/// One client connection. Requests are numbered from 1, in the order of their heads.
#[derive(Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    /// The address that the client reached.
    pub local: SocketAddr,
    /// Protocol version, like `TLSv1.3`; `None`: plain.
    pub tls: Option<&'static str>,
    since: Instant,
    taken: AtomicU64,
    finished: AtomicU64,
    /// When the last request was over: milliseconds after `since`.
    finished_at: AtomicU64,
    /// Number of the last answered request, shifted left by one; the low bit says that it was upgraded.
    settled: AtomicU64,
    /// Answers of which a piece was handed out and the next not asked for: the client has not taken it.
    untaken: AtomicU64,
    /// Pieces that were taken.
    moved: AtomicU64,
    /// The guard, while it waits for `settled`.
    waiting: AtomicWaker,
    refused: Mutex<Option<Refused>>,
}

/// A request that the guard did not let through.
#[derive(Clone, Debug)]
pub struct Refused {
    pub number: u64,
    pub refusal: Refusal,
    /// What came as its first line, for the log.
    pub line: String,
}

impl Connection {
    pub fn new(peer: SocketAddr, local: SocketAddr, tls: Option<&'static str>) -> Self {
        Connection {
            peer,
            local,
            tls,
            since: Instant::now(),
            taken: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            finished_at: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            untaken: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            waiting: AtomicWaker::new(),
            refused: Mutex::new(None),
        }
    }

    /// The service takes up the next request; returns its number.
    pub fn take(&self) -> u64 {
        self.taken.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The answer of a request went out, or nobody waits for it any more.
    pub fn finish(&self, now: Instant) {
        let now = now.duration_since(self.since).as_millis();
        self.finished_at
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.finished.fetch_add(1, Ordering::Release);
    }

    /// How many requests are over.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// Since when nothing is under way, if `begun` requests have come; `None` while one is.
    pub fn idle_since(&self, begun: u64) -> Option<Instant> {
        (self.finished() >= begun).then(|| self.since + Duration::from_millis(self.finished_at.load(Ordering::Relaxed)))
    }

    /// How many requests the service took up.
    pub fn begun(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// A piece of an answer waits for the client.
    pub fn hand_out(&self) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
    }

    /// The client took a piece that was handed out, or is not wanted to any more.
    pub fn take_back(&self) {
        self.untaken.fetch_sub(1, Ordering::Relaxed);
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// How many pieces were taken so far; `None`: none waits to be.
    pub fn untaken_after(&self) -> Option<u64> {
        (self.untaken.load(Ordering::Relaxed) > 0).then(|| self.moved.load(Ordering::Relaxed))
    }

    /// The service has decided on the answer to a request.
    pub fn settle(&self, number: u64, is_upgraded: bool) {
        self.settled
            .store(number << 1 | u64::from(is_upgraded), Ordering::Release);
        self.waiting.wake();
    }

    /// Whether that request was upgraded; `None` while it is not answered: then `waker` is woken by the answer.
    pub fn is_upgraded(&self, number: u64, waker: &Waker) -> Option<bool> {
        self.waiting.register(waker);
        let settled = self.settled.load(Ordering::Acquire);
        (settled >> 1 == number).then_some(settled & 1 == 1)
    }

    /// The guard puts a request of its own in place of the one that it refused.
    pub fn refuse(&self, refused: Refused) {
        *self.refused.lock().expect("nothing panics under this lock") = Some(refused);
    }

    /// Why that request was refused, if it was.
    pub fn refused(&self, number: u64) -> Option<Refused> {
        let refused = self.refused.lock().expect("nothing panics under this lock");
        refused.clone().filter(|refused| refused.number == number)
    }
}
