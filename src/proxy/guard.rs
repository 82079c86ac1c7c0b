//! The client's byte stream as hyper sees it: every byte passed by `framing`, every wait bounded.
//!
//! Bytes are read straight into hyper's buffer and looked at there; only a head that came in pieces, or what lies behind
//! one that is not to be read yet, waits in a buffer here. A refused head is replaced by a small valid request, which the service
//! recognises by its number: so the answer keeps its place behind earlier ones and is made and logged where all are. Nothing after it
//! is read. A body that breaks its framing ends in an error that carries the `Refusal`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::io::poll_read_buf;

use super::connection::{Connection, Refused};
use super::error::Kind;
use super::framing::{Framing, Limits, Part, Refusal};

/// Stands in for a refused request. hyper closes after its answer, because it says so.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// Bytes read ahead of the answer to an upgrade: the first frames of an eager client.
const HELD_BYTES: usize = 16 << 10;

/// How much of a request's first line the log keeps.
const LOGGED_LINE: usize = 2 << 10;

/// A closed connection is read on so long, that the client can read our answer before the kernel resets the connection
/// for bytes that nobody read (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(5);
/// And so far: a client that sends this much in spite of the answer will not stop.
const LINGER_BYTES: usize = 16 << 20;

/// Room for one read into the own buffer.
const READ_STEP: usize = 4 << 10;

/// How long a client may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a head to its end; also from the connection to the first byte.
    pub header: Duration,
    /// Between the end of an answer and the next request.
    pub idle: Duration,
    /// Between two reads of a body, and while an answer does not drain.
    pub body: Duration,
}

impl Patience {
    pub fn shortest(&self) -> Duration {
        self.header.min(self.idle).min(self.body)
    }
}

/// The stream of one client. `H` is kept as long as the stream lives, also across an upgrade.
pub struct Guard<S, H> {
    inner: S,
    framing: Framing,
    connection: Arc<Connection>,
    patience: Patience,
    /// Bytes that were read and not handed on yet.
    input: BytesMut,
    /// How many of them are examined and may be.
    ready: usize,
    /// Nothing more is read: a request was refused.
    is_ended: bool,
    reading: Option<(Wait, Instant)>,
    writing: Option<Instant>,
    closing: Option<(Instant, usize)>,
    alarm: Alarm,
    _held: H,
}

/// What a read waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    First,
    Next,
    Head,
    Body,
}

impl<S, H> Guard<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub fn new(inner: S, connection: Arc<Connection>, limits: Limits, patience: Patience, held: H) -> Self {
        Guard {
            inner,
            framing: Framing::new(limits),
            connection,
            patience,
            input: BytesMut::new(),
            ready: 0,
            is_ended: false,
            reading: None,
            writing: None,
            closing: None,
            alarm: Alarm::default(),
            _held: held,
        }
    }

    /// One attempt to hand something on; `None`: something was read, but nothing can be handed on yet.
    fn read_on(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Option<io::Result<()>>> {
        if let Some(is_upgraded) = self.verdict(cx) {
            self.framing.settle(is_upgraded);
        }
        if self.input.is_empty() {
            return self.read_through(cx, buf);
        }
        if self.ready == 0 {
            match self.framing.advance(&self.input) {
                Ok(count) => self.ready = count,
                Err(refusal) => return Poll::Ready(Some(self.refuse(refusal, buf))),
            }
        }
        if self.ready > 0 {
            let count = self.ready.min(buf.remaining());
            buf.put_slice(self.input.get(..count).unwrap_or_default());
            self.input.advance(count);
            self.ready -= count;
            self.reading = None;
            if self.input.is_empty() {
                // Thousands of idle connections shall not each keep a buffer.
                self.input = BytesMut::new();
            }
            return Poll::Ready(Some(Ok(())));
        }
        if self.framing.part() == Part::Held && self.input.len() >= HELD_BYTES {
            return Poll::Pending;
        }
        self.input.reserve(READ_STEP);
        match poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.input) {
            Poll::Ready(Ok(0)) => Poll::Ready(Some(Ok(()))),
            Poll::Ready(Ok(_)) => self
                .check_time(cx, buf)
                .map_or(Poll::Ready(None), |end| Poll::Ready(Some(end))),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => self.wait(cx, buf),
        }
    }

    /// Reads into the caller's buffer and leaves there what may be handed on.
    fn read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Option<io::Result<()>>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            Poll::Pending => return self.wait(cx, buf),
        }
        let bytes = buf.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            return Poll::Ready(Some(Ok(())));
        }
        match self.framing.advance(bytes) {
            Ok(count) => {
                self.input.extend_from_slice(bytes.get(count..).unwrap_or_default());
                buf.set_filled(before + count);
                if count == 0 {
                    return Poll::Ready(None);
                }
                self.reading = None;
                Poll::Ready(Some(Ok(())))
            }
            Err(refusal) => {
                self.input.extend_from_slice(bytes);
                buf.set_filled(before);
                Poll::Ready(Some(self.refuse(refusal, buf)))
            }
        }
    }

    /// Whether the request that was held to see its answer got it.
    fn verdict(&self, cx: &Context<'_>) -> Option<bool> {
        if self.framing.part() != Part::Held {
            return None;
        }
        self.connection.is_upgraded(self.framing.heads(), cx.waker())
    }

    fn refuse(&mut self, refusal: Refusal, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        self.is_ended = true;
        if self.framing.part() != Part::Head {
            return Err(io::Error::new(io::ErrorKind::InvalidData, refusal));
        }
        self.connection.refuse(Refused {
            number: self.framing.heads() + 1,
            refusal,
            line: first_line(&self.input),
        });
        // What does not fit now is handed on by the next read.
        self.input = BytesMut::from(STAND_IN);
        let count = self.input.len().min(buf.remaining());
        buf.put_slice(&self.input.split_to(count));
        self.ready = self.input.len();
        Ok(())
    }

    /// The caller waits for the client. An error or the end of the stream comes when it was silent for too long.
    fn wait(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Option<io::Result<()>>> {
        self.check_time(cx, buf)
            .map_or(Poll::Pending, |end| Poll::Ready(Some(end)))
    }

    fn check_time(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let Some(wait) = self.waits_for() else {
            self.reading = None;
            return None;
        };
        let now = Instant::now();
        let deadline = match self.reading {
            // An answer may be under way; its end moves this deadline without waking us, so it is looked at each time.
            _ if wait == Wait::Next => {
                self.connection.idle_since(self.framing.heads()).unwrap_or(now) + self.patience.idle
            }
            Some((same, deadline)) if same == wait => deadline,
            _ => now + self.patience_for(wait),
        };
        self.reading = Some((wait, deadline));
        if !self.alarm.has_passed(now, deadline, cx) {
            return None;
        }
        Some(match wait {
            Wait::First | Wait::Next => Ok(()),
            Wait::Head => self.refuse(slow("a header that does not come to its end"), buf),
            Wait::Body => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                slow("a body that does not go on"),
            )),
        })
    }

    /// `None`: the next move is not the client's.
    fn waits_for(&self) -> Option<Wait> {
        match self.framing.part() {
            Part::Body => Some(Wait::Body),
            Part::Held | Part::Open => None,
            Part::Head if !self.input.is_empty() => Some(Wait::Head),
            Part::Head if self.framing.heads() == 0 => Some(Wait::First),
            Part::Head => Some(Wait::Next),
        }
    }

    fn patience_for(&self, wait: Wait) -> Duration {
        match wait {
            Wait::First | Wait::Head => self.patience.header,
            Wait::Next => self.patience.idle,
            Wait::Body => self.patience.body,
        }
    }

    /// Bounds the time in which the client takes nothing.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.writing = None;
            return result;
        }
        let now = Instant::now();
        let deadline = *self.writing.get_or_insert_with(|| now + self.patience.body);
        if self.alarm.has_passed(now, deadline, cx) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                slow("an answer that is not taken"),
            )));
        }
        Poll::Pending
    }

    /// Whether the client may still be sending what nobody reads.
    fn has_unread(&self) -> bool {
        self.is_ended || !self.input.is_empty() || self.framing.part() == Part::Body
    }

    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let (deadline, left) = *self.closing.get_or_insert_with(|| (now + LINGER, LINGER_BYTES));
            self.input.clear();
            self.input.reserve(READ_STEP);
            match poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.input) {
                Poll::Ready(Ok(count)) if count > 0 && count < left => self.closing = Some((deadline, left - count)),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.alarm.has_passed(now, deadline, cx) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S, H> AsyncRead for Guard<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.is_ended && me.ready == 0 {
            // Not the end of the stream: hyper would take that for a client that left, and drop the answer.
            return Poll::Pending;
        }
        loop {
            if let Some(result) = ready!(me.read_on(cx, buf)) {
                return Poll::Ready(result);
            }
        }
    }
}

impl<S, H> AsyncWrite for Guard<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_write(cx, bytes);
        me.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_write_vectored(cx, slices);
        me.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let result = Pin::new(&mut me.inner).poll_flush(cx);
        me.wrote(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.closing.is_none() {
            let result = Pin::new(&mut me.inner).poll_shutdown(cx);
            ready!(me.wrote(cx, result))?;
            if !me.has_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        me.linger(cx).map(Ok)
    }
}

/// One timer for all waits of a connection. It may ring early, for a wait that is over; then it is set again.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// If `deadline` has not passed, the task is woken when it has.
    fn has_passed(&mut self, mut now: Instant, deadline: Instant, cx: &mut Context<'_>) -> bool {
        while now < deadline {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.is_elapsed() || sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            now = Instant::now();
        }
        true
    }
}

fn slow(why: &'static str) -> Refusal {
    Refusal { kind: Kind::Slow, why }
}

fn first_line(bytes: &[u8]) -> String {
    let bytes = bytes.trim_ascii_start();
    let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes.get(..end.min(LOGGED_LINE)).unwrap_or_default();
    // One character per byte, so that the log can show each.
    line.iter().copied().map(char::from).collect()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
