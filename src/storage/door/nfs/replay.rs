//! Replies of changes, kept for clients that did not get them and ask again (the duplicate request cache).
//! One node's memory of what its clients asked; across nodes the request's key goes on to the replicated state.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::rpc::Record;
use crate::storage::door::RequestKey;

/// Replies kept. A client asks again after its time-out with at most its open requests, a few hundred.
/// When full, the oldest goes.
const KEPT: usize = 8192;
/// Replies of changes carry attributes and a handle, no data: about 300 bytes. With KEPT: at most 8 MiB.
const REPLY_MAX: usize = 1024;
/// A kernel client gives a request up or repeats it within its time-out of 60 s; twice that.
const AGE_MAX: Duration = Duration::from_secs(120);

/// Executes each request once.
#[derive(Default)]
pub struct Replays {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    requests: HashMap<RequestKey, Arc<OnceCell<Record>>>,
    /// Those that are answered, oldest first.
    answered: VecDeque<(Instant, RequestKey)>,
}

/// How a request ended.
pub enum Outcome {
    /// The same request is to be answered like this from now on.
    Final(Record),
    /// It may go better next time.
    Transient(Record),
}

impl Replays {
    /// Answers from memory, or executes. A request that is repeated while it runs waits for the first one's reply.
    pub async fn once(&self, key: RequestKey, execute: impl Future<Output = Outcome>) -> Record {
        let cell = self.lock().cell(key);
        let answer = cell.get_or_try_init(|| async {
            let outcome = execute.await;
            self.lock().ended(key, &outcome);
            match outcome {
                Outcome::Final(record) => Ok(record),
                Outcome::Transient(record) => Err(record),
            }
        });
        match answer.await {
            Ok(record) => record.clone(),
            Err(record) => record,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics under this lock")
    }
}

impl Inner {
    fn cell(&mut self, key: RequestKey) -> Arc<OnceCell<Record>> {
        self.forget_old();
        self.requests.entry(key).or_default().clone()
    }

    fn ended(&mut self, key: RequestKey, outcome: &Outcome) {
        match outcome {
            Outcome::Final(record) if record.len() <= REPLY_MAX => self.answered.push_back((Instant::now(), key)),
            _ => {
                self.requests.remove(&key);
            }
        }
        self.forget_old();
    }

    fn forget_old(&mut self) {
        while let Some((at, key)) = self.answered.front() {
            if self.answered.len() <= KEPT && at.elapsed() <= AGE_MAX {
                break;
            }
            self.requests.remove(key);
            self.answered.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::rpc;
    use super::*;

    fn key(xid: u32) -> RequestKey {
        RequestKey {
            client: 1,
            xid,
            checksum: 2,
        }
    }

    fn reply(value: u8) -> Record {
        rpc::success(1, &[value; 4], bytes::Bytes::new())
    }

    #[tokio::test]
    async fn repetitions_get_the_first_reply_also_while_it_is_under_way() {
        let (replays, runs) = (Replays::default(), AtomicUsize::new(0));
        let (release, gate) = tokio::sync::oneshot::channel();
        let first = replays.once(key(1), async {
            runs.fetch_add(1, Ordering::Relaxed);
            gate.await.expect("released");
            Outcome::Final(reply(1))
        });
        let second = replays.once(key(1), async { panic!("executed again") });
        let (first, second, ()) = tokio::join!(first, second, async { release.send(()).expect("waited for") });
        let third = replays.once(key(1), async { panic!("executed again") }).await;
        assert_eq!([&first, &second, &third], [&reply(1); 3]);
        assert_eq!(runs.into_inner(), 1);
    }

    #[tokio::test]
    async fn transient_replies_are_not_kept() {
        let replays = Replays::default();
        replays.once(key(1), async { Outcome::Transient(reply(1)) }).await;
        assert_eq!(replays.once(key(1), async { Outcome::Final(reply(2)) }).await, reply(2));
        assert_eq!(replays.lock().requests.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_in_number_size_and_time() {
        let replays = Replays::default();
        for xid in 0..KEPT as u32 + 10 {
            replays.once(key(xid), async { Outcome::Final(reply(1)) }).await;
        }
        assert_eq!(replays.lock().requests.len(), KEPT);
        assert_eq!(replays.lock().answered.len(), KEPT);
        let large = rpc::success(1, &[0; REPLY_MAX], bytes::Bytes::new());
        replays.once(key(u32::MAX), async { Outcome::Final(large) }).await;
        assert_eq!(replays.lock().requests.len(), KEPT);
        tokio::time::advance(AGE_MAX + Duration::from_secs(1)).await;
        assert_eq!(
            replays.once(key(KEPT as u32), async { Outcome::Final(reply(2)) }).await,
            reply(2)
        );
        assert_eq!(replays.lock().requests.len(), 1);
    }
}
