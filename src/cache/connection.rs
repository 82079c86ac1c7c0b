//! A session on a socket: read what is there, execute all of it, write all replies at once, in their order.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use super::engine::Engine;
use super::output::SLICES;
use super::router::Patience;
use super::session::{OUTPUT_HIGH, Session};
use super::stats;
use crate::base::Scope;

/// One read: a hundred pipelined commands, or what a socket holds of a value. On the stack and only while reading, so that
/// ten thousand idle connections cost no buffers.
const READ: usize = 32 << 10;

/// A page of the portal asks again within moments: closed between two of its requests, it would fail.
const SILENCE: Duration = Duration::from_millis(500);

/// Serves a client until it leaves, breaks the protocol, or the scope drains, no request is half read and none comes any more.
pub async fn serve<S>(mut stream: S, engine: &Engine, scope: Scope) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session::default();
    let mut patience = Patience::default();
    let mut draining = pin!(scope.draining());
    let mut is_draining = false;
    loop {
        let mut has_moved = false;
        if let Some(orders) = session.orders() {
            // Boxed: an idle connection shall not hold the room for it.
            Box::pin(engine.perform(orders, OUTPUT_HIGH, &mut patience)).await;
            session.settle();
            has_moved = true;
        }
        while !session.output.is_empty() {
            poll_fn(|cx| poll_write(&mut stream, &mut session, engine, cx)).await?;
            has_moved = true;
        }
        if session.orders().is_some() {
            continue;
        }
        if has_moved && session.is_waiting() {
            session.resume(engine, engine.clock.moment());
            continue;
        }
        if session.is_closed() {
            return Ok(());
        }
        let count = tokio::select! {
            biased;
            count = poll_fn(|cx| poll_read(&mut stream, &mut session, engine, cx)) => count?,
            () = &mut draining, if !is_draining => {
                is_draining = true;
                continue;
            }
            // In a future of its own: `select` makes it even if it is not asked for, and a timer costs more than to look at the others.
            () = async { sleep(SILENCE).await }, if is_draining && session.is_idle() => return Ok(()),
        };
        if count == 0 {
            return Ok(());
        }
    }
}

/// Reads once, into the value that is being received or onto the stack, and lets the session execute it.
fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    session: &mut Session,
    engine: &Engine,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let count = if let Some(room) = session.room() {
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        session.filled(count, engine, engine.clock.moment());
        count
    } else {
        let mut bytes = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        session.receive(buffer.filled(), engine, engine.clock.moment());
        buffer.filled().len()
    };
    stats::count(&engine.traffic.bytes_read, count as u64);
    Poll::Ready(Ok(count))
}

fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
    engine: &Engine,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = session.output.slices(&mut slices);
    let stream = Pin::new(stream);
    let written = match slices.get(..count) {
        Some([one]) => ready!(stream.poll_write(cx, one))?,
        Some(many) => ready!(stream.poll_write_vectored(cx, many))?,
        None => 0,
    };
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    session.output.advance(written);
    stats::count(&engine.traffic.bytes_written, written as u64);
    Poll::Ready(Ok(()))
}
