//! One request over one connection: `Session` drives both directions from a single task, `Answer` is the response's body.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Response};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use tokio_util::io::poll_read_buf;

use super::complaint::Complaints;
use super::head::{self, Head, is_bodiless};
use super::outgoing::{Outgoing, Sending};
use super::pool::{Connection, Pool};
use super::record::{self, Piece, Protocol};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::id::Id;

/// Room for one read: small at first, large once a read filled it. Bounds what a session holds of an answer.
const READ: (usize, usize) = (16 * 1024, 64 * 1024);

pub struct Session {
    pool: Arc<Pool>,
    /// `None` once it went back to the pool.
    connection: Option<Connection>,
    outgoing: Outgoing,
    complaints: Complaints,
    /// Taken from the buffer ahead of its turn.
    ahead: Option<Bytes>,
    /// Bytes sent when we last looked.
    sent: u64,
    /// The last read filled its room.
    is_bulk: bool,
    has_answered: bool,
    /// PHP closed the connection.
    is_closed: bool,
}

impl Session {
    pub fn new(pool: Arc<Pool>, mut connection: Connection, mut outgoing: Outgoing, id: Id) -> Self {
        outgoing.begin(connection.is_kept());
        connection.silence.broken();
        Session {
            pool,
            connection: Some(connection),
            outgoing,
            complaints: Complaints::new(id),
            ahead: None,
            sent: 0,
            is_bulk: false,
            has_answered: false,
            is_closed: false,
        }
    }

    /// Whether a dead connection may be replaced.
    pub fn may_repeat(&self, may_run_twice: bool) -> bool {
        let may_run_twice = may_run_twice && self.outgoing.is_bodiless();
        self.is_closed && !self.has_answered && (self.outgoing.is_untouched() || may_run_twice)
    }

    /// The request, for another connection. Closes this one.
    pub fn into_outgoing(mut self) -> Outgoing {
        self.connection = None;
        std::mem::take(&mut self.outgoing)
    }

    /// Sends the request and reads up to the end of the answer's head; the body's first bytes come with it.
    pub async fn head(&mut self) -> Result<(Head, Bytes), Error> {
        let mut reader = head::Reader::default();
        loop {
            let Some(bytes) = self.stdout().await? else {
                return Err(Error::new(Kind::Upstream, "PHP ended without a header"));
            };
            let pushed = reader
                .push(bytes)
                .map_err(|error| Error::new(Kind::Upstream, error.to_string()))?;
            if let Some(done) = pushed {
                return Ok(done);
            }
        }
    }

    /// The response. Its body carries the session on, unless PHP is done already.
    pub async fn answer(mut self, (head, first): (Head, Bytes), method: &Method) -> Result<Response<Body>, Error> {
        let mut headers = head.headers;
        let body = if method == Method::HEAD || is_bodiless(head.status) {
            // Nobody will read a body, so PHP is seen through to its end here.
            while self.stdout().await?.is_some() {}
            if method != Method::HEAD {
                headers.remove(CONTENT_LENGTH);
            }
            Empty::new().map_err(|never| match never {}).boxed_unsync()
        } else if head.length.is_none_or(|length| length == first.len() as u64) && self.has_ended()? {
            // The usual page: whole in one read, so that its length is known.
            Full::new(first).map_err(|never| match never {}).boxed_unsync()
        } else {
            let answer = Answer {
                session: self,
                first,
                left: head.length,
                is_over: false,
            };
            answer.boxed_unsync()
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// The next bytes of STDOUT; `None` after END_REQUEST, with the connection back in the pool. Cancel safe.
    async fn stdout(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll_stdout(cx)).await
    }

    fn poll_stdout(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        if let Some(bytes) = self.ahead.take() {
            return Poll::Ready(Ok(Some(bytes)));
        }
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(Ok(None));
            };
            // Sending comes first, so that PHP never waits for what we already have.
            let sending = self.outgoing.poll(&mut connection.stream, cx)?;
            if self.outgoing.sent() > self.sent {
                self.sent = self.outgoing.sent();
                connection.silence.broken();
            }
            if let Some(done) = self.decode()? {
                return Poll::Ready(Ok(done));
            }
            if let Poll::Ready(read) = self.poll_read(cx) {
                read?;
                continue;
            }
            let Some(connection) = &mut self.connection else {
                continue;
            };
            match sending {
                Sending::Client => {
                    connection.silence.broken();
                    return Poll::Pending;
                }
                Sending::Php | Sending::Done => {
                    ready!(connection.silence.poll_over(cx));
                    return Poll::Ready(Err(Error::new(Kind::UpstreamSlow, "PHP is silent")));
                }
            }
        }
    }

    /// Takes what the buffer holds: `Some(None)` after END_REQUEST, `None` when more is to be read.
    fn decode(&mut self) -> Result<Option<Option<Bytes>>, Error> {
        let broken = |detail: String| Error::new(Kind::Upstream, detail);
        while let Some(connection) = &mut self.connection {
            let piece = connection.decoder.decode(&mut connection.buffer);
            let Some(piece) = piece.map_err(|error| broken(error.to_string()))? else {
                return Ok(None);
            };
            connection.silence.broken();
            match piece {
                Piece::Stdout(bytes) => return Ok(Some(Some(bytes))),
                Piece::Stderr(bytes) => self.complaints.add(&bytes),
                Piece::End {
                    protocol: Protocol::Complete,
                    ..
                } => self.recycle(),
                Piece::End {
                    protocol: Protocol::Overloaded,
                    ..
                } => {
                    return Err(Error::new(Kind::Unavailable, "PHP is overloaded").unsent());
                }
                Piece::End { protocol, .. } => return Err(broken(format!("PHP refuses the request: {protocol:?}"))),
                Piece::Unknown(kind) => return Err(broken(format!("PHP does not know record type {kind}"))),
            }
        }
        Ok(Some(None))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(()));
        };
        let room = if self.is_bulk { READ.1 } else { READ.0 };
        connection.buffer.reserve(room);
        let read = ready!(poll_read_buf(
            Pin::new(&mut connection.stream),
            cx,
            &mut connection.buffer
        ));
        match read {
            Ok(0) => {
                self.is_closed = true;
                Poll::Ready(Err(Error::new(
                    Kind::Upstream,
                    "PHP closed the connection before its answer was complete",
                )))
            }
            Ok(count) => {
                self.is_bulk = count >= room;
                self.has_answered = true;
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                self.is_closed = true;
                Poll::Ready(Err(Error::with(Kind::Upstream, "the connection to PHP broke", error)))
            }
        }
    }

    /// Whether END_REQUEST is already here. Looks at nothing but the buffer.
    fn has_ended(&mut self) -> Result<bool, Error> {
        match self.decode()? {
            Some(None) => Ok(true),
            Some(Some(bytes)) => {
                self.ahead = Some(bytes);
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// END_REQUEST came. The connection can serve again if nothing of this request is under way on it.
    fn recycle(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if self.outgoing.is_done() && connection.buffer.is_empty() && connection.decoder.is_between_records() {
            self.pool.give(connection);
        }
    }

    /// The answer is delivered, END_REQUEST is not here yet.
    fn leave(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.outgoing.is_done()
        {
            self.pool.give_unfinished(connection);
        }
    }
}

impl Drop for Session {
    /// Best effort: the close that follows tells PHP as well.
    fn drop(&mut self) {
        if let Some(connection) = &self.connection
            && !self.is_closed
            && self.outgoing.is_between_records()
        {
            let _ = connection.stream.try_write(&record::abort());
        }
    }
}

/// The body of an answer that was not complete with its head.
struct Answer {
    session: Session,
    first: Bytes,
    /// Bytes to come by the script's `Content-Length`.
    left: Option<u64>,
    is_over: bool,
}

impl Answer {
    /// Holds the script to its `Content-Length`: what exceeds it is dropped.
    fn clip(&mut self, mut bytes: Bytes) -> Bytes {
        if let Some(left) = &mut self.left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        bytes
    }

    fn is_delivered(&self) -> bool {
        self.left == Some(0) && self.first.is_empty()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            let bytes = if self.first.is_empty() {
                match ready!(self.session.poll_stdout(cx))? {
                    Some(bytes) => bytes,
                    None => break,
                }
            } else {
                std::mem::take(&mut self.first)
            };
            let bytes = self.clip(bytes);
            if !bytes.is_empty() {
                return Poll::Ready(Ok(Some(bytes)));
            }
        }
        match self.left {
            None | Some(0) => Poll::Ready(Ok(None)),
            Some(left) => {
                let detail = format!("PHP ended {left} bytes before its Content-Length");
                Poll::Ready(Err(Error::new(Kind::Upstream, detail)))
            }
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
        let next = ready!(self.poll_next(cx));
        match next {
            Ok(Some(bytes)) => {
                // The reader may stop at the length; then the end must be seen now or in the pool.
                self.is_over = self.is_delivered() && self.session.has_ended().unwrap_or(false);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Ok(None) => {
                self.is_over = true;
                Poll::Ready(None)
            }
            Err(error) => {
                self.is_over = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.is_delivered() {
            self.session.leave();
        }
    }
}
