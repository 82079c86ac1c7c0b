//! What a connection has to send, without I/O: signals first, then frames in their order, so many at a time as fit
//! one write. Everything that the reader causes is a flag or is bounded here, so that the reader never waits.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

use super::error::Fault;
use super::frame::{self, Head, Kind};
use crate::base::Pieces;
use crate::base::pieces::LARGE;

/// Bytes put together for one write. Bounds what stands before a PONG: 0.5 ms of a gigabit line.
const BATCH: usize = 64 * 1024;

/// Longest text of a fault: a sentence for people.
pub(super) const FAULT_TEXT: usize = 1024;

/// Empty places that are not worth a clean-up.
const SPARSE: usize = 64;

/// What a queued frame costs besides its body: its place here, and its entry in the table of calls.
const OVERHEAD: usize = 256;

/// What a frame with such a body takes of the connection's budget.
pub(super) fn cost(body_length: usize) -> usize {
    OVERHEAD + body_length
}

struct Waiting {
    head: Head,
    /// `None`: withdrawn.
    body: Option<Pieces>,
}

/// The frames and signals of one direction.
#[derive(Default)]
pub(super) struct Queue {
    ping: Option<u64>,
    pong: Option<u64>,
    drain: bool,
    /// Never more than calls that were taken: the caller's table bounds it.
    cancels: Vec<u64>,
    /// Bounded by the server, which cuts a connection that has too many.
    refusals: VecDeque<(Head, Fault)>,
    frames: VecDeque<Waiting>,
    /// Places in `frames` without a frame.
    withdrawn: usize,
    last_taken: Option<u64>,
    finish: bool,
}

/// What `Queue::take` took besides the batch.
#[derive(Default)]
pub(super) struct Taken {
    /// To be given back to the budget when it is written.
    pub cost: usize,
    /// Belongs behind the batch.
    pub large: Pieces,
}

impl Queue {
    pub fn ping(&mut self, number: u64) {
        self.ping = Some(number);
    }

    /// Only the latest ping is answered: any answer proves life.
    pub fn pong(&mut self, number: u64) {
        self.pong = Some(number);
    }

    pub fn drain(&mut self) {
        self.drain = true;
    }

    /// Close the connection when all is sent.
    pub fn finish(&mut self) {
        self.finish = true;
    }

    pub fn is_finished(&self) -> bool {
        self.finish && self.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.ping.is_none()
            && self.pong.is_none()
            && !self.drain
            && self.cancels.is_empty()
            && self.refusals.is_empty()
            && self.frames.is_empty()
    }

    pub fn cancel(&mut self, id: u64) {
        self.cancels.push(id);
    }

    /// Answers a call that was not begun, outside the budget. Returns how many such answers wait.
    pub fn refuse(&mut self, call: Head, fault: Fault) -> usize {
        let kind = Kind::Error;
        self.refusals.push_back((Head { kind, ..call }, fault));
        self.refusals.len()
    }

    /// Queues a frame whose cost was taken from the budget. Ids of calls must grow.
    pub fn push(&mut self, head: Head, body: impl Into<Pieces>) {
        let body = Some(body.into());
        self.frames.push_back(Waiting { head, body });
    }

    /// Whether a call has been taken for writing, so that the peer may have seen it.
    pub fn is_taken(&self, id: u64) -> bool {
        self.last_taken.is_some_and(|last| id <= last)
    }

    /// Takes back a call that was not taken yet. Returns the cost to give back to the budget.
    pub fn withdraw(&mut self, id: u64) -> Option<usize> {
        let place = self.frames.binary_search_by_key(&id, |waiting| waiting.head.id).ok()?;
        let body = self.frames.get_mut(place)?.body.take()?;
        self.withdrawn += 1;
        // Callers that come and give up while the writer is stuck must not grow the queue.
        if self.withdrawn > SPARSE && self.withdrawn * 2 > self.frames.len() {
            self.frames.retain(|waiting| waiting.body.is_some());
            self.withdrawn = 0;
        }
        Some(cost(body.len()))
    }

    /// Moves what comes next into `batch`.
    pub fn take(&mut self, batch: &mut BytesMut) -> Taken {
        self.take_signals(batch);
        let mut taken = Taken::default();
        while batch.len() < BATCH {
            let Some(Waiting { head, body }) = self.frames.pop_front() else {
                break;
            };
            let Some(body) = body else {
                self.withdrawn -= 1;
                continue;
            };
            self.last_taken = Some(head.id);
            let length = body.len();
            taken.cost += cost(length);
            frame::encode_head(head, length, batch);
            for piece in body.iter() {
                // A large one is written from where it lies: copying it would cost more than a further write.
                match piece.len() < LARGE && taken.large.is_empty() {
                    true => batch.put_slice(piece),
                    false => taken.large.push(piece.clone()),
                }
            }
            if !taken.large.is_empty() {
                break;
            }
        }
        taken
    }

    fn take_signals(&mut self, batch: &mut BytesMut) {
        let mut signal = |kind, id| {
            let head = Head { kind, service: 0, id };
            frame::encode_head(head, 0, batch);
        };
        self.pong
            .take()
            .into_iter()
            .for_each(|number| signal(Kind::Pong, number));
        self.ping
            .take()
            .into_iter()
            .for_each(|number| signal(Kind::Ping, number));
        if std::mem::take(&mut self.drain) {
            signal(Kind::Drain, 0);
        }
        self.cancels.drain(..).for_each(|id| signal(Kind::Cancel, id));
        while batch.len() < BATCH {
            let Some((head, fault)) = self.refusals.pop_front() else {
                break;
            };
            let body = fault.encode(FAULT_TEXT);
            frame::encode_head(head, body.len(), batch);
            batch.put_slice(&body);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn call(id: u64) -> Head {
        Head {
            kind: Kind::Call,
            service: 1,
            id,
        }
    }

    fn take(queue: &mut Queue) -> (Vec<(Kind, u64)>, Taken) {
        let mut batch = BytesMut::new();
        let taken = queue.take(&mut batch);
        taken.large.iter().for_each(|piece| batch.put_slice(piece));
        let mut frames = Vec::new();
        while let Some(frame) = frame::decode(&mut batch, frame::BODY_CEILING, frame::COPIED).expect("well formed") {
            frames.push((frame.head.kind, frame.head.id));
        }
        (frames, taken)
    }

    #[test]
    fn signals_overtake_frames() {
        let mut queue = Queue::default();
        queue.push(call(1), Bytes::from_static(b"x"));
        queue.cancel(0);
        queue.ping(7);
        queue.pong(8);
        queue.pong(9);
        let (frames, taken) = take(&mut queue);
        let expected = [(Kind::Pong, 9), (Kind::Ping, 7), (Kind::Cancel, 0), (Kind::Call, 1)];
        assert_eq!(frames, expected);
        assert_eq!(taken.cost, cost(1));
        assert!(queue.is_empty());
    }

    #[test]
    fn withdrawn_call_is_never_written() {
        let mut queue = Queue::default();
        for id in 1..=3 {
            queue.push(call(id), Bytes::from_static(b"xy"));
        }
        assert_eq!(queue.withdraw(2), Some(cost(2)));
        assert_eq!(queue.withdraw(2), None, "only once");
        assert!(!queue.is_taken(1));
        let (frames, taken) = take(&mut queue);
        assert_eq!(frames, [(Kind::Call, 1), (Kind::Call, 3)]);
        assert_eq!(taken.cost, 2 * cost(2));
        assert!(queue.is_taken(3) && !queue.is_taken(4));
        assert_eq!(queue.withdraw(3), None, "too late");
    }

    #[test]
    fn withdrawn_calls_leave_no_trace_behind_a_stuck_writer() {
        let mut queue = Queue::default();
        queue.push(call(0), Bytes::new());
        for id in 1..10_000 {
            queue.push(call(id), Bytes::new());
            assert!(queue.withdraw(id).is_some());
        }
        assert!(queue.frames.len() <= 2 * SPARSE + 2, "{}", queue.frames.len());
        assert_eq!(take(&mut queue).0, [(Kind::Call, 0)]);
    }

    #[test]
    fn of_a_body_in_pieces_the_large_ones_are_not_copied() {
        let mut queue = Queue::default();
        let large = Bytes::from(vec![1; LARGE]);
        let mut body = Pieces::from("head");
        body.push(large.clone());
        body.push(Bytes::from_static(b"tail"));
        queue.push(call(1), body.clone());
        queue.push(call(2), "next");
        let mut batch = BytesMut::new();
        let taken = queue.take(&mut batch);
        assert_eq!(taken.cost, cost(LARGE + 8));
        assert_eq!(taken.large.split_first().0.as_ptr(), large.as_ptr());
        taken.large.iter().for_each(|piece| batch.put_slice(piece));
        let frame = frame::decode(&mut batch, frame::BODY_CEILING, frame::COPIED);
        assert_eq!(Pieces::from(frame.expect("well formed").expect("whole").body), body);
        assert_eq!(take(&mut queue).0, [(Kind::Call, 2)]);
    }

    #[test]
    fn batch_is_bounded_and_large_bodies_go_alone() {
        let mut queue = Queue::default();
        queue.push(call(1), Bytes::from(vec![0; LARGE]));
        for id in 2..100 {
            queue.push(call(id), Bytes::from(vec![0; LARGE - 1]));
        }
        let (frames, taken) = take(&mut queue);
        assert_eq!(frames, [(Kind::Call, 1)]);
        assert_eq!(taken.large.len(), LARGE, "not copied");
        assert_eq!(take(&mut queue).0.len(), BATCH / LARGE);
    }

    #[test]
    fn finished_means_nothing_is_left() {
        let mut queue = Queue::default();
        queue.push(call(1), Bytes::new());
        queue.finish();
        assert!(!queue.is_finished());
        take(&mut queue);
        assert!(queue.is_finished());
    }
}
