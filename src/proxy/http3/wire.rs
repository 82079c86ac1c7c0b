//! quinn's streams as h3 wants them. `h3-quinn` has the same, but panics when a stream is stopped while it waits to be read, tells nobody
//! that a client has lost interest, and lets an answer that breaks off look whole. Here a stream that is dropped says what it was:
//! half an answer is reset, and a body that nobody reads to its end is asked to stop.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, VarInt};

use super::frames::Frames;

/// Longest frame of a control stream; settings are a few dozen bytes.
const CONTROL_FRAME: u64 = 4 << 10;

/// Unidirectional streams that h3 gets to see: one to control, two of QPACK, and some for practice (RFC 9114 §6.2.3). It keeps a
/// place for each for ever; further ones are stopped here.
const UNIDIRECTIONAL: u32 = 16;

type Accept<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send + Sync>>;
type Pair = (quinn::SendStream, quinn::RecvStream);

/// Resolves when a client has lost interest in an answer, or has it all. Cancel safe.
pub type Stopped = Shared<BoxFuture<'static, End>>;

/// How an answer's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has all of it.
    Whole,
    /// It said that it wants no more, or is gone.
    Cut,
}

/// Of the last request's stream that h3 was given.
pub type Newest = Arc<Mutex<Option<Stopped>>>;

pub struct Connection {
    quic: quinn::Connection,
    bidirectional: Option<Accept<Pair>>,
    unidirectional: Option<Accept<quinn::RecvStream>>,
    accepted: u32,
    opening: Option<Accept<quinn::SendStream>>,
    /// Longest frame of a request that is no DATA.
    most: u64,
    newest: Newest,
}

impl Connection {
    pub fn new(quic: quinn::Connection, most: u64) -> Self {
        Connection {
            quic,
            bidirectional: None,
            unidirectional: None,
            accepted: 0,
            opening: None,
            most,
            newest: Newest::default(),
        }
    }

    /// To be looked at after each request that h3 accepts.
    pub fn newest(&self) -> Newest {
        self.newest.clone()
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = Incoming;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, ConnectionErrorIncoming>> {
        loop {
            let accept = self.unidirectional.get_or_insert_with(|| {
                let quic = self.quic.clone();
                Box::pin(async move { quic.accept_uni().await })
            });
            let stream = ready!(accept.as_mut().poll(cx));
            self.unidirectional = None;
            let stream = Incoming::new(stream.map_err(lost)?, Frames::of_control(CONTROL_FRAME));
            self.accepted = self.accepted.saturating_add(1);
            if self.accepted <= UNIDIRECTIONAL {
                return Poll::Ready(Ok(stream));
            }
        }
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        let accept = self.bidirectional.get_or_insert_with(|| {
            let quic = self.quic.clone();
            Box::pin(async move { quic.accept_bi().await })
        });
        let pair = ready!(accept.as_mut().poll(cx));
        self.bidirectional = None;
        let (send, receive) = pair.map_err(lost)?;
        let stopped = send.stopped();
        let stopped = async move {
            match stopped.await {
                Ok(None) => End::Whole,
                _ => End::Cut,
            }
        };
        *self.newest.lock().expect("nothing panics under this lock") = Some(stopped.boxed().shared());
        Poll::Ready(Ok(Both {
            send: Outgoing::new(send),
            receive: Incoming::new(receive, Frames::of_request(self.most)),
        }))
    }

    fn opener(&self) -> Opener {
        Opener(self.quic.clone())
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = Both;
    type SendStream = Outgoing;

    /// A server makes no requests.
    fn poll_open_bidi(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        Poll::Ready(Err(unasked()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, StreamErrorIncoming>> {
        let opening = self.opening.get_or_insert_with(|| {
            let quic = self.quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let stream = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(stream.map(Outgoing::new).map_err(of_stream))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(number(code.value()), reason);
    }
}

/// h3 wants one for each connection, and opens nothing by it.
pub struct Opener(quinn::Connection);

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Outgoing;

    fn poll_open_bidi(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        Poll::Ready(Err(unasked()))
    }

    fn poll_open_send(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Outgoing, StreamErrorIncoming>> {
        Poll::Ready(Err(unasked()))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.0.close(number(code.value()), reason);
    }
}

/// A request's stream, in both directions.
pub struct Both {
    send: Outgoing,
    receive: Incoming,
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Outgoing;
    type RecvStream = Incoming;

    fn split(self) -> (Outgoing, Incoming) {
        (self.send, self.receive)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receive.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// What a client sends on one stream.
pub struct Incoming {
    stream: quinn::RecvStream,
    frames: Frames,
    /// Read and not handed on.
    input: Bytes,
    is_over: bool,
}

impl Incoming {
    fn new(stream: quinn::RecvStream, frames: Frames) -> Self {
        Incoming {
            stream,
            frames,
            input: Bytes::new(),
            is_over: false,
        }
    }

    fn fail(&mut self, error: StreamErrorIncoming) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.is_over = true;
        Poll::Ready(Err(error))
    }
}

impl quic::RecvStream for Incoming {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            match self.frames.next(&mut self.input) {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(_) => {
                    let _ = self.stream.stop(number(Code::H3_EXCESSIVE_LOAD.value()));
                    return self.fail(StreamErrorIncoming::Unknown("a frame beyond the limit".into()));
                }
            }
            // Reading holds nothing that the next attempt would miss.
            let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
            match chunk {
                Ok(Some(chunk)) => self.input = chunk.bytes,
                Ok(None) if self.frames.is_between() => {
                    self.is_over = true;
                    return Poll::Ready(Ok(None));
                }
                Ok(None) => return self.fail(StreamErrorIncoming::Unknown("the end within a frame".into())),
                Err(error) => {
                    let error = match error {
                        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
                            error_code: code.into_inner(),
                        },
                        quinn::ReadError::ConnectionLost(error) => of_stream(error),
                        other => StreamErrorIncoming::Unknown(other.into()),
                    };
                    return self.fail(error);
                }
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.is_over = true;
        let _ = self.stream.stop(number(code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_over {
            // RFC 9114 §4.1: the answer does not depend on the rest.
            let _ = self.stream.stop(number(Code::H3_NO_ERROR.value()));
        }
    }
}

/// What a client is sent on one stream.
pub struct Outgoing {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    is_over: bool,
}

impl Outgoing {
    fn new(stream: quinn::SendStream) -> Self {
        Outgoing {
            stream,
            writing: None,
            is_over: false,
        }
    }
}

impl quic::SendStream<Bytes> for Outgoing {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(|data| data.has_remaining()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk()));
            data.advance(written.map_err(of_write)?);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        match self.writing {
            None => {
                self.writing = Some(data.into());
                Ok(())
            }
            Some(_) => Err(StreamErrorIncoming::Unknown("the last piece is not written".into())),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        self.is_over = true;
        Poll::Ready(
            self.stream
                .finish()
                .map_err(|error| StreamErrorIncoming::Unknown(error.into())),
        )
    }

    fn reset(&mut self, code: u64) {
        self.is_over = true;
        let _ = self.stream.reset(number(code));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.is_over {
            // quinn would end it in order, and the client would take what it has for all of it.
            let _ = self.stream.reset(number(Code::H3_INTERNAL_ERROR.value()));
        }
    }
}

pub fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("both have 62 bits")
}

fn unasked() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("nothing is opened here".into())
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn of_stream(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: lost(error),
    }
}

fn of_write(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        quinn::WriteError::ConnectionLost(error) => of_stream(error),
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}
