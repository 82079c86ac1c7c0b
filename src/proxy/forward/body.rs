//! Bodies on their way: `Upload` to the upstream, watched for who holds it up; `Answer` to the client, which gives the connection back.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::{Connection, Pool};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;

/// How the upload stands, for whoever waits for the answer.
#[derive(Debug, Default)]
pub struct Watch {
    has_moved: AtomicBool,
    waits_for_client: AtomicBool,
    is_over: AtomicBool,
    failed: Mutex<Option<Error>>,
}

impl Watch {
    /// Whether the upstream took something since the last look.
    pub fn moved(&self) -> bool {
        self.has_moved.swap(false, Ordering::Relaxed)
    }

    /// Whether the client owes the next piece.
    pub fn waits_for_client(&self) -> bool {
        self.waits_for_client.load(Ordering::Relaxed)
    }

    /// The error of the client's body, which hyper would tell as its own.
    pub fn failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A request's body.
pub struct Upload {
    body: Body,
    watch: Arc<Watch>,
}

impl Upload {
    pub fn new(body: Body) -> (Upload, Arc<Watch>) {
        let watch = Arc::new(Watch::default());
        watch.is_over.store(body.is_end_stream(), Ordering::Relaxed);
        let upload = Upload {
            body,
            watch: watch.clone(),
        };
        (upload, watch)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let watch = &self.watch;
        watch.waits_for_client.store(polled.is_pending(), Ordering::Relaxed);
        watch.has_moved.store(true, Ordering::Relaxed);
        let frame = ready!(polled);
        if frame.is_none() || self.body.is_end_stream() {
            watch.is_over.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                let told = Error::new(error.kind, "the client's body failed");
                *watch.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                told
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body.
pub struct Answer {
    body: Incoming,
    /// `None` once it went back to the pool.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    watch: Arc<Watch>,
    is_over: bool,
}

impl Answer {
    pub fn new(body: Incoming, connection: Connection, pool: Arc<Pool>, watch: Arc<Watch>) -> Self {
        let mut answer = Answer {
            body,
            connection: Some(connection),
            pool,
            watch,
            is_over: false,
        };
        if answer.body.is_end_stream() {
            answer.give_back();
        }
        answer
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let body = &mut self.body;
        let mut poll = |cx: &mut Context<'_>| Pin::new(&mut *body).poll_frame(cx);
        match &mut self.connection {
            Some(connection) => connection.motor.drive(cx, poll),
            None => poll(cx),
        }
    }

    /// A connection whose upload still runs cannot serve again.
    fn give_back(&mut self) {
        if self.watch.is_over.load(Ordering::Relaxed)
            && let Some(connection) = self.connection.take()
        {
            self.pool.give(connection);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = self.poll_body(cx) else {
            let me = &mut *self;
            if let Some(connection) = &mut me.connection {
                if me.watch.moved() || me.watch.waits_for_client() {
                    connection.silence.broken();
                }
                ready!(connection.silence.poll_over(cx));
            }
            self.is_over = true;
            return Poll::Ready(Some(Err(Error::new(Kind::UpstreamSlow, "the upstream is silent"))));
        };
        if let Some(connection) = &mut self.connection {
            connection.silence.broken();
        }
        self.is_over = !matches!(frame, Some(Ok(_)));
        // A reader that knows the length does not ask for the end, so it is looked for after each frame.
        if frame.is_none() || self.body.is_end_stream() {
            self.give_back();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| super::upstream::broken(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
