//! The batcher: many operations into one log entry, for openraft 0.9 writes and syncs each entry by itself.
//!
//! It takes what has queued, up to a bound, and proposes; it never waits for more. Two proposals are in flight: the
//! leader writes one while followers write the other, and a third would only make smaller batches (measured).

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::call::DATA_MAX;
use super::types::{NodeId, Replies};
use crate::base::{Pieces, Scope};

/// Longest operation, and what one entry gathers: the largest write with its head, which holds a caller of up to 1000 groups.
pub const MAX_BYTES: usize = DATA_MAX + (8 << 10);
/// Operations in one entry: one transaction of the state machine stays short.
pub const MAX_OPERATIONS: usize = 1000;
const IN_FLIGHT: usize = 2;
/// Bytes that wait or are in flight. When full, `submit` waits: that is the back-pressure to the doors.
const WAITING_BYTES: usize = 32 << 20;
/// Operations that wait: as many small ones as the doors have calls open at once. When full, `submit` waits.
const WAITING_OPERATIONS: usize = 8192;
/// What a small operation costs beside its bytes.
const OVERHEAD: usize = 256;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    #[error("an operation of {0} bytes is longer than an entry may be")]
    TooLong(usize),
    /// To be repeated there, with the same number: it may be in the log all the same.
    #[error("another node leads")]
    NotLeader { leader: Option<NodeId> },
    /// It may be in the log or not; only a repeated call with the same number can tell.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    #[error("the storage is stopping")]
    Stopping,
}

struct Waiting {
    operation: Pieces,
    reply: oneshot::Sender<Result<Bytes, Refused>>,
    /// Given back when the operation was answered.
    _room: OwnedSemaphorePermit,
}

/// The place of one proposal in flight; free again when dropped.
pub struct Flight {
    _place: OwnedSemaphorePermit,
}

/// Takes operations from the doors. Clones feed the same batcher.
#[derive(Clone)]
pub struct Batcher {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

impl Batcher {
    /// Starts the batcher. `propose` writes one entry, drops the flight when it is committed, and returns when it is safe
    /// to acknowledge, with one answer per operation.
    pub fn start<P, F>(scope: &Scope, propose: P) -> Self
    where
        P: Fn(Vec<Pieces>, Flight) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Replies, Refused>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(WAITING_OPERATIONS);
        scope.spawn(run(scope.clone(), waiting, Arc::new(propose)));
        Batcher {
            queue,
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
        }
    }

    /// Has `operation` applied once, or says why not. Operations of one caller that awaits each keep their order.
    /// Cancelling does not take the operation back.
    pub async fn submit(&self, operation: impl Into<Pieces>) -> Result<Bytes, Refused> {
        let operation = operation.into();
        let length = operation.len();
        if length > MAX_BYTES {
            return Err(Refused::TooLong(length));
        }
        let room = u32::try_from(length + OVERHEAD).expect("MAX_BYTES fits");
        let room = self.room.clone().acquire_many_owned(room).await;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            operation,
            reply,
            _room: room.map_err(|_| Refused::Stopping)?,
        };
        self.queue.send(waiting).await.map_err(|_| Refused::Stopping)?;
        answer
            .await
            .unwrap_or(Err(Refused::Unknown("the storage was stopped".into())))
    }
}

async fn run<P, F>(scope: Scope, mut queue: mpsc::Receiver<Waiting>, propose: Arc<P>)
where
    P: Fn(Vec<Pieces>, Flight) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Replies, Refused>> + Send + 'static,
{
    let flights = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut kept = None;
    loop {
        // First the permit, then the batch: what queues while two are in flight goes into the next.
        let Ok(flight) = flights.clone().acquire_owned().await else {
            return;
        };
        let first = match kept.take() {
            Some(first) => first,
            None => tokio::select! {
                first = queue.recv() => match first {
                    Some(first) => first,
                    None => return,
                },
                () = scope.draining() => return,
            },
        };
        let (batch, next) = gather(first, || queue.try_recv().ok());
        kept = next;
        let propose = propose.clone();
        scope.spawn(async move {
            let (operations, replies): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|waiting| (waiting.operation, (waiting.reply, waiting._room)))
                .unzip();
            answer(replies, propose(operations, Flight { _place: flight }).await);
        });
    }
}

/// `first` and what has queued behind it, up to the bounds; and the one that no longer fitted.
fn gather(first: Waiting, mut queued: impl FnMut() -> Option<Waiting>) -> (VecDeque<Waiting>, Option<Waiting>) {
    let mut bytes = first.operation.len();
    let mut batch = VecDeque::from([first]);
    while batch.len() < MAX_OPERATIONS && bytes < MAX_BYTES {
        let Some(next) = queued() else { break };
        if bytes + next.operation.len() > MAX_BYTES {
            return (batch, Some(next));
        }
        bytes += next.operation.len();
        batch.push_back(next);
    }
    (batch, None)
}

type Reply = (oneshot::Sender<Result<Bytes, Refused>>, OwnedSemaphorePermit);

fn answer(replies: Vec<Reply>, result: Result<Replies, Refused>) {
    let mut answers = match result {
        Ok(Replies(answers)) => answers.into_iter().map(Ok).collect::<VecDeque<_>>(),
        Err(refused) => vec![Err(refused); replies.len()].into(),
    };
    for (reply, _room) in replies {
        let missing = || Err(Refused::Unknown("the state machine gave too few answers".into()));
        // A caller that is gone does not want to know.
        let _ = reply.send(answers.pop_front().unwrap_or_else(missing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::task::JoinSet;

    /// Proposals that have arrived and wait for the test to answer them.
    type Proposals = mpsc::UnboundedReceiver<(Vec<Bytes>, oneshot::Sender<Result<Replies, Refused>>)>;

    fn started(scope: &Scope) -> (Batcher, Proposals) {
        let (arrived, proposals) = mpsc::unbounded_channel();
        let batcher = Batcher::start(scope, move |operations: Vec<Pieces>, flight| {
            let operations = operations.into_iter().map(Pieces::join).collect();
            let (done, outcome) = oneshot::channel();
            arrived.send((operations, done)).unwrap();
            async move {
                let outcome = outcome.await.unwrap();
                drop(flight);
                outcome
            }
        });
        (batcher, proposals)
    }

    #[allow(clippy::disallowed_methods)]
    fn submit(tasks: &mut JoinSet<Result<Bytes, Refused>>, batcher: &Batcher, operation: Bytes) {
        let batcher = batcher.clone();
        tasks.spawn(async move { batcher.submit(operation).await });
    }

    fn echo((operations, done): (Vec<Bytes>, oneshot::Sender<Result<Replies, Refused>>)) -> Vec<Bytes> {
        done.send(Ok(Replies(operations.clone()))).unwrap();
        operations
    }

    #[tokio::test]
    async fn what_queues_behind_two_proposals_goes_into_one() {
        let scope = Scope::new();
        let (batcher, mut proposals) = started(&scope);
        let mut tasks = JoinSet::new();
        let mut flying = Vec::new();
        for number in 0..2u8 {
            submit(&mut tasks, &batcher, Bytes::from(vec![number]));
            flying.push(proposals.recv().await.unwrap());
        }
        for number in 2..50u8 {
            submit(&mut tasks, &batcher, Bytes::from(vec![number]));
        }
        tokio::task::yield_now().await;
        assert!(proposals.try_recv().is_err(), "no third proposal");
        assert_eq!(flying.drain(..).map(|flight| echo(flight).len()).sum::<usize>(), 2);
        let mut sizes = Vec::new();
        while !tasks.is_empty() {
            tokio::select! {
                proposal = proposals.recv() => sizes.push(echo(proposal.unwrap()).len()),
                answer = tasks.join_next() => assert!(answer.unwrap().unwrap().is_ok()),
            }
        }
        assert_eq!(sizes, [48], "all others in one entry");
    }

    #[tokio::test]
    async fn an_entry_stays_under_its_bounds_and_in_order() {
        let scope = Scope::new();
        let (batcher, mut proposals) = started(&scope);
        let mut tasks = JoinSet::new();
        let count = 24;
        for number in 0..count {
            submit(&mut tasks, &batcher, Bytes::from(vec![number; 300_000]));
        }
        let mut seen = Vec::new();
        while seen.len() < usize::from(count) {
            let operations = echo(proposals.recv().await.unwrap());
            assert!(operations.iter().map(Bytes::len).sum::<usize>() <= MAX_BYTES);
            seen.extend(operations.iter().map(|operation| operation[0]));
        }
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
        let long = batcher.submit(vec![0; MAX_BYTES + 1]).await;
        assert_eq!(long, Err(Refused::TooLong(MAX_BYTES + 1)));
    }

    #[tokio::test]
    async fn bytes_beyond_the_bound_wait_outside() {
        let scope = Scope::new();
        let (batcher, mut proposals) = started(&scope);
        let mut tasks = JoinSet::new();
        for _ in 0..40 {
            submit(&mut tasks, &batcher, vec![0; MAX_BYTES].into());
        }
        let first = proposals.recv().await.unwrap();
        let second = proposals.recv().await.unwrap();
        tokio::task::yield_now().await;
        assert!(
            batcher.room.available_permits() < MAX_BYTES + OVERHEAD,
            "32 MiB are taken"
        );
        echo(first);
        echo(second);
        let mut answered = 0;
        while answered < 40 {
            tokio::select! {
                proposal = proposals.recv() => drop(echo(proposal.unwrap())),
                answer = tasks.join_next() => {
                    answer.unwrap().unwrap().unwrap();
                    answered += 1;
                }
            }
        }
        assert_eq!(
            batcher.room.available_permits(),
            WAITING_BYTES,
            "all room is given back"
        );
    }

    #[tokio::test]
    async fn each_caller_gets_its_own_answer_or_the_refusal() {
        let scope = Scope::new();
        let turn = Arc::new(Mutex::new(0));
        let batcher = Batcher::start(&scope, move |operations: Vec<Pieces>, _| {
            let mut turn = turn.lock().unwrap();
            *turn += 1;
            let result = match *turn {
                1 => Ok(Replies(operations.into_iter().map(Pieces::join).collect())),
                2 => Err(Refused::NotLeader { leader: Some(3) }),
                _ => Ok(Replies(Vec::new())),
            };
            std::future::ready(result)
        });
        assert_eq!(
            batcher.submit(Bytes::from_static(b"a")).await,
            Ok(Bytes::from_static(b"a"))
        );
        assert_eq!(
            batcher.submit(Bytes::new()).await,
            Err(Refused::NotLeader { leader: Some(3) })
        );
        assert!(
            matches!(batcher.submit(Bytes::new()).await, Err(Refused::Unknown(_))),
            "too few answers"
        );
        scope.stop(std::time::Duration::from_secs(5)).await;
        assert_eq!(batcher.submit(Bytes::new()).await, Err(Refused::Stopping));
    }
}
