//! One connection: records in, calls side by side, replies out as they finish.

use std::sync::Arc;
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

/// A reply, and the bytes that are free again when it is written.
type Ready = (Record, OwnedSemaphorePermit);

/// Serves until the peer leaves, sends what is no RPC, or the scope drains; calls under way are finished and answered.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Send + 'static, peer: Peer, door: Arc<Door>, scope: Scope) {
    let (input, output) = tokio::io::split(stream);
    // When it is full, finished calls wait and keep their slots.
    let (replies, queue) = channel(CALLS_MAX);
    let writer = scope.spawn(write(output, queue));
    let requests = Requests {
        peer: Arc::new(peer),
        door,
        scope: scope.clone(),
        slots: Arc::new(Semaphore::new(CALLS_MAX)),
        bytes: Arc::new(Semaphore::new(BYTES_MAX)),
        replies,
    };
    tokio::select! {
        () = requests.replies.closed() => {}
        () = requests.run(input) => {}
    }
    // The writer ends when the last call under way has sent its reply.
    drop(requests);
    if writer.await.is_err() {
        warn!("the writer of an NFS connection panicked");
    }
}

struct Requests {
    peer: Arc<Peer>,
    door: Arc<Door>,
    scope: Scope,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    replies: Sender<Ready>,
}

impl Requests {
    async fn run(&self, mut input: impl AsyncRead + Unpin) {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        loop {
            loop {
                let record = match decoder.decode(&mut buffer) {
                    Ok(Some(record)) => record,
                    Ok(None) => break,
                    Err(error) => return warn!(peer = ?self.peer.address, %error, "NFS connection closed"),
                };
                match rpc::parse(record) {
                    Ok(call) => self.start(call).await,
                    Err(Refusal::Denied(record)) => self.refuse(record).await,
                    Err(Refusal::Malformed) => {
                        return warn!(peer = ?self.peer.address, "NFS connection closed: not an RPC call");
                    }
                }
            }
            if buffer.is_empty() {
                // Idle connections shall not keep the room of their longest record.
                buffer = BytesMut::new();
            }
            buffer.reserve(READ_ROOM);
            let read = tokio::select! {
                () = self.scope.draining() => return,
                read = input.read_buf(&mut buffer) => read,
            };
            match read {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return debug!(peer = ?self.peer.address, %error, "NFS connection lost"),
            }
        }
    }

    /// Waits for room, then lets the call run beside the others.
    async fn start(&self, call: Call) {
        let Some((slot, bytes)) = self.room(weight(&call)).await else {
            return;
        };
        let (peer, door, replies) = (self.peer.clone(), self.door.clone(), self.replies.clone());
        self.scope.spawn(async move {
            let record = door.answer(&peer, call).await;
            // Fails when the peer is gone: a change is remembered for its next connection.
            let _ = replies.send((record, bytes)).await;
            drop(slot);
        });
    }

    async fn refuse(&self, record: Record) {
        if let Some((_slot, bytes)) = self.room(record.len()).await {
            let _ = self.replies.send((record, bytes)).await;
        }
    }

    async fn room(&self, weight: usize) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let weight = u32::try_from(weight).ok()?;
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(weight).await.ok()?;
        Some((slot, bytes))
    }
}

async fn write(mut output: impl AsyncWrite + Unpin, mut queue: Receiver<Ready>) {
    let mut batch = BytesMut::new();
    // Freed when their bytes are with the kernel.
    let mut written = Vec::new();
    while let Some((record, bytes)) = queue.recv().await {
        let mut next = Some((record, bytes));
        let mut result = Ok(());
        while let Some((record, bytes)) = next {
            written.push(bytes);
            batch.extend_from_slice(&record.head);
            if !record.data.is_empty() {
                let padding = record.data.len().next_multiple_of(4) - record.data.len();
                result = flush(&mut output, Buf::chain(&batch[..], record.data)).await;
                batch.clear();
                batch.extend_from_slice(&[0; 3][..padding]);
                written.clear();
            }
            if result.is_err() || batch.len() >= BATCH {
                break;
            }
            next = queue.try_recv().ok();
        }
        if result.is_ok() {
            result = flush(&mut output, &batch[..]).await;
        }
        if let Err(error) = result {
            return debug!(%error, "NFS replies cannot be written");
        }
        batch.clear();
        written.clear();
        if batch.capacity() > 2 * BATCH {
            batch = BytesMut::new();
        }
    }
    let _ = output.shutdown().await;
}

async fn flush(output: &mut (impl AsyncWrite + Unpin), mut bytes: impl Buf) -> std::io::Result<()> {
    while bytes.has_remaining() {
        let progress = tokio::time::timeout(WRITE_TIMEOUT, output.write_buf(&mut bytes)).await;
        if progress?? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}
