//! The request on its way to PHP: BEGIN_REQUEST, PARAMS, and the body as STDIN records whose data are slices of its frames.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use tokio::net::UnixStream;
use tokio_util::io::poll_write_buf;

use super::record;
use crate::proxy::error::Error;
use crate::proxy::exchange::Body;

/// Another frame of the body is fetched while less than this waits to be written: enough for a good write,
/// little enough that a slow PHP holds the client back and not our memory.
const LOW: usize = 64 * 1024;

/// For BEGIN_REQUEST and the headers of PARAMS, as long as these are one record.
const ROOM: usize = 4 * record::HEADER;

#[derive(Default)]
pub struct Outgoing {
    /// Name-value pairs of PARAMS, kept for a second attempt.
    pairs: Vec<u8>,
    queue: Queue,
    /// `None` after its end.
    body: Option<Body>,
    /// A frame of the body was fetched.
    is_begun: bool,
    /// Bytes that PHP's socket took.
    sent: u64,
    /// PHP takes no more.
    is_broken: bool,
}

/// What holds the request up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Nothing: all of it is sent, or PHP takes no more.
    Done,
    /// PHP does not read.
    Php,
    /// The client sends nothing.
    Client,
}

impl Outgoing {
    pub fn new(pairs: Vec<u8>, body: Body) -> Self {
        Outgoing {
            pairs,
            queue: Queue::default(),
            body: Some(body),
            is_begun: false,
            sent: 0,
            is_broken: false,
        }
    }

    /// Puts BEGIN_REQUEST and PARAMS in front of the body. Call before the first `poll` on a connection.
    /// After a first attempt only where `is_untouched`, or `is_bodiless`.
    pub fn begin(&mut self, keep: bool) {
        if self.sent > 0 {
            self.queue = Queue::default();
            self.queue.push(Bytes::copy_from_slice(&record::stdin(0)));
        } else {
            // The head of the first attempt, of which nothing was sent.
            self.queue.drop_front();
        }
        let mut head = BytesMut::with_capacity(self.pairs.len() + ROOM);
        head.extend_from_slice(&record::begin(keep));
        record::params(&self.pairs, &mut head);
        self.queue.push_front(head.freeze());
        self.sent = 0;
        self.is_broken = false;
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        self.body.is_none() && self.queue.size == 0 && !self.is_broken
    }

    /// Whether the last byte sent was the last of a record.
    pub fn is_between_records(&self) -> bool {
        self.queue.size == 0
    }

    /// Bytes taken by the present connection.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether PHP took nothing of it.
    pub fn is_untouched(&self) -> bool {
        self.sent == 0
    }

    /// Whether the request has no body at all.
    pub fn is_bodiless(&self) -> bool {
        self.body.is_none() && !self.is_begun
    }

    /// Sends what can be sent now. An error is the body's own. Cancel safe.
    pub fn poll(&mut self, stream: &mut UnixStream, cx: &mut Context<'_>) -> Result<Sending, Error> {
        while !self.is_broken {
            let is_waiting = self.fetch(cx)?;
            if self.queue.size == 0 {
                return Ok(if is_waiting { Sending::Client } else { Sending::Done });
            }
            match poll_write_buf(Pin::new(&mut *stream), cx, &mut self.queue) {
                Poll::Ready(Ok(written)) if written > 0 => self.sent += written as u64,
                Poll::Pending => return Ok(Sending::Php),
                // PHP may have answered all the same; whoever reads decides.
                Poll::Ready(_) => self.is_broken = true,
            }
        }
        Ok(Sending::Done)
    }

    /// Fills the queue up to `LOW`. Returns whether the client holds it up.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        while self.queue.size < LOW {
            let Some(body) = &mut self.body else { return Ok(false) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers have no place in CGI.
                    if let Ok(data) = frame.into_data() {
                        self.is_begun = true;
                        self.queue.push_stdin(data);
                    }
                }
                Poll::Ready(None) => {
                    self.queue.push(Bytes::copy_from_slice(&record::stdin(0)));
                    self.body = None;
                }
            }
        }
        Ok(false)
    }
}

/// Bytes to write, in order.
#[derive(Default)]
struct Queue {
    parts: VecDeque<Bytes>,
    size: usize,
}

impl Queue {
    fn push(&mut self, part: Bytes) {
        self.size += part.len();
        self.parts.push_back(part);
    }

    fn push_front(&mut self, part: Bytes) {
        self.size += part.len();
        self.parts.push_front(part);
    }

    fn drop_front(&mut self) {
        if let Some(part) = self.parts.pop_front() {
            self.size -= part.len();
        }
    }

    fn push_stdin(&mut self, mut data: Bytes) {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(record::MAX_CONTENT));
            self.push(Bytes::copy_from_slice(&record::stdin(chunk.len() as u16)));
            self.push(chunk);
        }
    }
}

impl Buf for Queue {
    fn remaining(&self) -> usize {
        self.size
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.parts);
        pairs.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.size -= count;
        while let Some(front) = self.parts.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.parts.pop_front();
        }
    }
}
