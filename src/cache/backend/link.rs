//! One connection to a server: requests leave as they come, many are under way, answers come in their order.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{self, Answer, Expected};

/// Requests that wait to be sent. Full: who asks waits, within his patience.
const QUEUE: usize = 1024;
/// Requests under way. No more are sent before some are answered, so that a slow server does not fill our memory.
const UNDER_WAY_MAX: usize = 1024;
/// So much is gathered into one write.
const WRITE_MAX: usize = 64 << 10;

/// A request as it is sent, and who waits for its answer. Dropping the sender says that the answer is lost.
struct Call {
    bytes: Vec<u8>,
    expected: Expected,
    answer: oneshot::Sender<Answer>,
}

/// The way to one connection. Clones lead to the same one; it closes when all are gone.
#[derive(Clone, Debug)]
pub struct Link {
    calls: mpsc::Sender<Call>,
    patience: Duration,
}

impl Link {
    /// The second part must be run. A request that is not answered within `patience` is lost, and the connection with it.
    pub fn new(stream: TcpStream, patience: Duration) -> (Self, Running) {
        let (calls, queue) = mpsc::channel(QUEUE);
        // Requests are whole when they are written: waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        let open = Open {
            stream,
            output: BytesMut::new(),
            input: BytesMut::new(),
            under_way: VecDeque::new(),
            patience,
            deadline: Instant::now(),
        };
        (Link { calls, patience }, Running { open, queue })
    }

    /// The answer; `None` when it is not known whether the request was carried out. Calls at the same time have no order, whichever is
    /// polled first: a task that has had its share of turns is sent back from any of its waits. A request that was sent is carried
    /// out, whether its answer is waited for or not.
    pub async fn call(&self, bytes: Vec<u8>, expected: Expected) -> Option<Answer> {
        let (answer, told) = oneshot::channel();
        let call = Call {
            bytes,
            expected,
            answer,
        };
        let exchange = async {
            self.calls.send(call).await.ok()?;
            told.await.ok()
        };
        timeout(self.patience, exchange).await.ok().flatten()
    }
}

pub struct Running {
    open: Open,
    queue: mpsc::Receiver<Call>,
}

impl Running {
    /// Until the connection breaks, the server is silent, or nobody can ask any more. All that is under way is lost with it.
    pub async fn run(mut self) -> io::Result<()> {
        self.open.run(&mut self.queue).await
    }
}

struct Open {
    stream: TcpStream,
    output: BytesMut,
    input: BytesMut,
    under_way: VecDeque<(Expected, oneshot::Sender<Answer>)>,
    patience: Duration,
    /// When the oldest request under way is lost.
    deadline: Instant,
}

impl Open {
    fn take(&mut self, call: Call) {
        if self.under_way.is_empty() {
            self.deadline = Instant::now() + self.patience;
        }
        self.output.extend_from_slice(&call.bytes);
        self.under_way.push_back((call.expected, call.answer));
    }

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
                // Also when nothing was asked: a server that closes is noticed.
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

    /// Hands out every answer that is whole.
    fn answer(&mut self) -> io::Result<()> {
        while let Some((expected, _)) = self.under_way.front() {
            let taken = wire::decode(*expected, &mut self.input);
            let Some(answer) = taken.map_err(|_| ErrorKind::InvalidData)? else {
                return Ok(());
            };
            if let Some((_, told)) = self.under_way.pop_front() {
                // Who gave up has dropped its end.
                let _ = told.send(answer);
            }
            self.deadline = Instant::now() + self.patience;
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
