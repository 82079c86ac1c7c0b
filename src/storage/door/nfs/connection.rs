//! One connection: records in, calls side by side, replies out as they finish.
//!
//! One task reads, answers at once what can be answered without waiting, and writes; only calls that must wait get a task of
//! their own. So a look-up that is in memory costs one read and one write, and no change of thread.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::dispatch::{Door, Peer, weight};
use super::record::{Decoder, RECORD_MAX};
use super::rpc::{self, Call, Record, Refusal};
use crate::base::Scope;
use crate::storage::call::DATA_MAX;

/// Calls under way on one connection; the kernel client has up to 128 slots in practice. Beyond: not read.
const CALLS_MAX: usize = 128;
/// Bytes of their arguments and replies. Beyond: not read. At least one call of any kind fits.
const BYTES_MAX: usize = 16 << 20;
const _: () = assert!(BYTES_MAX > 2 * (RECORD_MAX + DATA_MAX) && BYTES_MAX < u32::MAX as usize);
/// A peer that takes none of its replies for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Small replies that are ready together leave in one write of about this size.
const BATCH: usize = 64 << 10;
/// Room for what is read next; grows with a long record.
const READ_ROOM: usize = 16 << 10;

/// A reply, and the room that is free again when it is written.
type Ready = (Record, Room);

/// A slot and the bytes of a call.
struct Room {
    _slot: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// What came in and is to be answered.
enum Request {
    Call(Call),
    Refused(Record),
}

impl Request {
    fn weight(&self) -> usize {
        match self {
            Request::Call(call) => weight(call),
            Request::Refused(record) => record.len(),
        }
    }
}

/// Serves until the peer leaves, sends what is no RPC, or the scope drains; calls under way are finished and answered.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    door: Arc<Door>,
    scope: Scope,
) {
    let calls = Calls {
        peer: Arc::new(peer),
        door,
        scope,
        slots: Arc::new(Semaphore::new(CALLS_MAX)),
        bytes: Arc::new(Semaphore::new(BYTES_MAX)),
    };
    if let Err(error) = calls.run(stream).await {
        debug!(peer = ?calls.peer.address, %error, "NFS connection lost");
    }
}

struct Calls {
    peer: Arc<Peer>,
    door: Arc<Door>,
    scope: Scope,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Calls {
    async fn run(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
        // As many calls as can be under way: nobody waits to put a reply in.
        let (sender, mut finished) = channel(CALLS_MAX);
        // Dropped when nothing is read any more: then the last call under way closes the channel.
        let mut replies = Some(sender);
        let mut input = Input::default();
        let mut output = Output::default();
        let mut next = None;
        loop {
            while let (Some(sender), None) = (&replies, &next) {
                match input.next() {
                    Ok(Some(request)) => next = self.try_start(request, sender, &mut output).await,
                    Ok(None) => break,
                    Err(why) => {
                        warn!(peer = ?self.peer.address, why, "NFS connection closed");
                        replies = None;
                    }
                }
            }
            output.flush(&mut stream).await?;
            let (is_reading, is_open) = (replies.is_some() && next.is_none(), replies.is_some());
            let wanted = next.as_ref().map_or(0, Request::weight);
            tokio::select! {
                ready = finished.recv() => match ready {
                    Some(ready) => output.take(ready, &mut finished),
                    None => break,
                },
                read = input.read(&mut stream), if is_reading => if read? == 0 {
                    replies = None;
                },
                room = self.room(wanted), if is_open && next.is_some() => {
                    if let (Some(sender), Some(request), Some(room)) = (&replies, next.take(), room) {
                        self.start(request, room, sender, &mut output).await;
                    }
                }
                () = self.scope.draining(), if is_open => replies = None,
            }
        }
        stream.shutdown().await
    }

    /// Starts what there is room for at once; else gives it back.
    async fn try_start(&self, request: Request, replies: &Sender<Ready>, output: &mut Output) -> Option<Request> {
        let weight = u32::try_from(request.weight()).unwrap_or(u32::MAX);
        let slot = self.slots.clone().try_acquire_owned();
        let bytes = self.bytes.clone().try_acquire_many_owned(weight);
        let (Ok(_slot), Ok(_bytes)) = (slot, bytes) else {
            return Some(request);
        };
        self.start(request, Room { _slot, _bytes }, replies, output).await;
        None
    }

    /// Answers at once if that takes no waiting, else beside the others.
    async fn start(&self, request: Request, room: Room, replies: &Sender<Ready>, output: &mut Output) {
        let call = match request {
            Request::Call(call) => call,
            Request::Refused(record) => return output.ready.push((record, room)),
        };
        let (peer, door) = (self.peer.clone(), self.door.clone());
        let mut answer: Pin<Box<dyn Future<Output = Record> + Send>> =
            Box::pin(async move { door.answer(&peer, call).await });
        if let Poll::Ready(record) = poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
            return output.ready.push((record, room));
        }
        let replies = replies.clone();
        self.scope.spawn(async move {
            let record = answer.await;
            // Fails when the peer is gone: a change is remembered for its next connection.
            let _ = replies.send((record, room)).await;
        });
    }

    async fn room(&self, weight: usize) -> Option<Room> {
        let weight = u32::try_from(weight).ok()?;
        let _slot = self.slots.clone().acquire_owned().await.ok()?;
        let _bytes = self.bytes.clone().acquire_many_owned(weight).await.ok()?;
        Some(Room { _slot, _bytes })
    }
}

/// Bytes that were read, and the records in them.
#[derive(Default)]
struct Input {
    decoder: Decoder,
    buffer: BytesMut,
}

impl Input {
    /// The next request that is here whole; an error says why the stream cannot be trusted any more.
    fn next(&mut self) -> Result<Option<Request>, &'static str> {
        match self.decoder.decode(&mut self.buffer) {
            Ok(None) => Ok(None),
            Ok(Some(record)) => match rpc::parse(record) {
                Ok(call) => Ok(Some(Request::Call(call))),
                Err(Refusal::Denied(record)) => Ok(Some(Request::Refused(record))),
                Err(Refusal::Malformed) => Err("not an RPC call"),
            },
            Err(super::record::Error::TooLong) => Err("a record is too long"),
        }
    }

    /// Cancel safe.
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        if self.buffer.is_empty() {
            // Idle connections shall not keep the room of their longest record.
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(READ_ROOM);
        stream.read_buf(&mut self.buffer).await
    }
}

/// Replies that are to be written.
#[derive(Default)]
struct Output {
    ready: Vec<Ready>,
}

impl Output {
    /// Takes a reply, and those that are there with it.
    fn take(&mut self, first: Ready, finished: &mut Receiver<Ready>) {
        self.ready.push(first);
        while self.ready.len() < CALLS_MAX
            && let Ok(more) = finished.try_recv()
        {
            self.ready.push(more);
        }
    }

    /// Writes all. Heads that are ready together leave together; data is not copied.
    async fn flush(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let mut heads = BytesMut::new();
        // Free again when the bytes are with the kernel.
        let mut written = Vec::new();
        for (record, room) in self.ready.drain(..) {
            written.push(room);
            if record.data.is_empty() && record.head.len() >= BATCH {
                // A listing is not copied either.
                write(stream, Buf::chain(&heads[..], record.head)).await?;
                heads.clear();
                written.clear();
                continue;
            }
            heads.extend_from_slice(&record.head);
            if !record.data.is_empty() {
                let padding = record.data.len().next_multiple_of(4) - record.data.len();
                write(stream, Buf::chain(&heads[..], record.data)).await?;
                heads.clear();
                heads.extend_from_slice(&[0; 3][..padding]);
                written.clear();
            } else if heads.len() >= BATCH {
                write(stream, &heads[..]).await?;
                heads.clear();
                written.clear();
            }
        }
        write(stream, &heads[..]).await
    }
}

async fn write(output: &mut (impl AsyncWrite + Unpin), mut bytes: impl Buf) -> std::io::Result<()> {
    while bytes.has_remaining() {
        let progress = tokio::time::timeout(WRITE_TIMEOUT, output.write_buf(&mut bytes)).await;
        if progress?? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}
