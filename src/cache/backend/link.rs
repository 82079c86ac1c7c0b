//! One connection to a server: commands leave as they come, many are under way, replies come in their order.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{self, Decoded, Expected};
use crate::base::Scope;
use crate::cache::command::Reply;

/// A server that has not answered within this is lost; the clients' own patience is some seconds, ours must leave room for a second try.
pub const PATIENCE: Duration = Duration::from_millis(400);
/// Commands that wait to be sent. Full: the caller waits, within its patience.
const QUEUE: usize = 1024;
/// Commands under way. No more are sent before some are answered, so that a slow server does not fill our memory.
const UNDER_WAY_MAX: usize = 1024;
/// So much is gathered into one write.
const WRITE_MAX: usize = 64 << 10;

/// A command as it is sent, and who waits for its reply. Dropping the sender says that the reply is lost.
pub struct Call {
    pub bytes: Vec<u8>,
    pub expected: Expected,
    pub answer: oneshot::Sender<Reply>,
}

/// The way to a connection that is made when it is needed, and anew after it broke.
#[derive(Clone)]
pub struct Link {
    calls: mpsc::Sender<Call>,
}

impl Link {
    /// Its task is a task of `scope`.
    pub fn new(address: SocketAddr, scope: &Scope) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE);
        scope.spawn(run(address, queue, scope.clone()));
        Link { calls }
    }

    /// The reply; `None` when it is not known whether the command was executed. Cancel safe: a reply nobody waits for is dropped.
    pub async fn call(&self, bytes: Vec<u8>, expected: Expected) -> Option<Reply> {
        let (answer, reply) = oneshot::channel();
        let call = Call {
            bytes,
            expected,
            answer,
        };
        let exchange = async {
            self.calls.send(call).await.ok()?;
            reply.await.ok()
        };
        timeout(PATIENCE, exchange).await.ok().flatten()
    }
}

async fn run(address: SocketAddr, mut queue: mpsc::Receiver<Call>, scope: Scope) {
    loop {
        let first = tokio::select! {
            () = scope.draining() => return,
            call = queue.recv() => call,
        };
        let Some(first) = first else { return };
        let stream = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            // The caller hears that its call is lost, and whoever queued behind it.
            Ok(Err(_)) | Err(_) => {
                drop(first);
                while queue.try_recv().is_ok() {}
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let mut open = Open::new(stream);
        open.take(first);
        tokio::select! {
            () = scope.draining() => return,
            // All that is under way is lost with it.
            _ = open.run(&mut queue) => {}
        }
    }
}

struct Open {
    stream: TcpStream,
    output: BytesMut,
    input: BytesMut,
    under_way: VecDeque<(Expected, oneshot::Sender<Reply>)>,
    /// When the oldest call under way is lost.
    deadline: Instant,
}

impl Open {
    fn new(stream: TcpStream) -> Self {
        Open {
            stream,
            output: BytesMut::new(),
            input: BytesMut::new(),
            under_way: VecDeque::new(),
            deadline: Instant::now(),
        }
    }

    fn take(&mut self, call: Call) {
        if self.under_way.is_empty() {
            self.deadline = Instant::now() + PATIENCE;
        }
        self.output.extend_from_slice(&call.bytes);
        self.under_way.push_back((call.expected, call.answer));
    }

    /// Until the connection breaks, the server is silent, or nobody calls any more.
    async fn run(&mut self, queue: &mut mpsc::Receiver<Call>) -> io::Result<()> {
        loop {
            while self.takes_more()
                && let Ok(call) = queue.try_recv()
            {
                self.take(call);
            }
            let takes_more = self.takes_more();
            let deadline = (!self.under_way.is_empty()).then_some(self.deadline);
            let (mut reader, mut writer) = self.stream.split();
            tokio::select! {
                written = writer.write(&self.output), if !self.output.is_empty() => self.output.advance(written?),
                // Also when nothing was asked: a server that closes is noticed, and the next call makes a new connection.
                read = within(deadline, reader.read_buf(&mut self.input)) => {
                    if read? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    self.answer()?;
                }
                call = queue.recv(), if takes_more => match call {
                    Some(call) => self.take(call),
                    None => return Ok(()),
                },
            }
        }
    }

    fn takes_more(&self) -> bool {
        self.under_way.len() < UNDER_WAY_MAX && self.output.len() < WRITE_MAX
    }

    /// Hands out every reply that is whole.
    fn answer(&mut self) -> io::Result<()> {
        while let Some((expected, _)) = self.under_way.front() {
            let (size, reply) = match wire::decode(expected, &self.input) {
                Decoded::Partial => return Ok(()),
                Decoded::Broken => return Err(ErrorKind::InvalidData.into()),
                Decoded::Whole { size, reply } => (size, reply),
            };
            self.input.advance(size);
            if let Some((_, answer)) = self.under_way.pop_front() {
                // Who gave up has said so by dropping its end.
                let _ = answer.send(reply);
            }
            self.deadline = Instant::now() + PATIENCE;
        }
        // More than was asked for.
        if self.input.is_empty() {
            Ok(())
        } else {
            Err(ErrorKind::InvalidData.into())
        }
    }
}

async fn within(deadline: Option<Instant>, read: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
    match deadline {
        Some(at) => timeout_at(at, read).await.map_err(|_| ErrorKind::TimedOut)?,
        None => read.await,
    }
}
