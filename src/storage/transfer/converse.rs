//! Two sides of a transfer that block on their disks, over a stream that must not: each works in a thread of its own with
//! a short queue either way, and one future moves messages between the queues and the stream.
//!
//! A side that has nothing to say says so, for syncing and linking can take minutes; one that is silent all the same is gone.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::codec::{self, Message};

/// Messages in each queue, at most a chunk each. Full: the side that fills it waits.
const QUEUE: usize = 4;
/// How often a side shows that it is there, and how long the other may be silent.
const ALIVE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(30);

/// The queues of one side.
pub struct Ends {
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
}

/// The stream or the other side's work has ended.
pub fn cut() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "the transfer was cut")
}

/// What the other side said does not belong there.
pub fn unexpected(message: &Message) -> io::Error {
    let kind = match message {
        Message::Data(_) => "data",
        Message::Wants(_) => "wants",
        Message::Hello { .. } => "hello",
        _ => "message",
    };
    io::Error::new(ErrorKind::InvalidData, format!("unexpected {kind} in a transfer"))
}

impl Ends {
    /// Blocks.
    pub fn next(&mut self) -> io::Result<Message> {
        self.inbox.blocking_recv().ok_or_else(cut)
    }

    /// Blocks while the queue is full.
    pub fn say(&self, message: Message) -> io::Result<()> {
        self.outbox.blocking_send(message).map_err(|_| cut())
    }

    /// For who does not block.
    pub async fn say_later(&self, message: Message) -> io::Result<()> {
        self.outbox.send(message).await.map_err(|_| cut())
    }
}

/// Does `work` with the queues while the stream is served. Dropped, it cuts the queues, and the work's thread ends at its
/// next word.
pub async fn converse<S, W, T>(stream: S, work: impl FnOnce(Ends) -> W) -> io::Result<T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    W: Future<Output = io::Result<T>>,
{
    let (arrived, inbox) = mpsc::channel(QUEUE);
    let (outbox, leaving) = mpsc::channel(QUEUE);
    let (pumped, done) = tokio::join!(pump(stream, arrived, leaving), work(Ends { inbox, outbox }));
    match (done, pumped) {
        // The stream's failure is why it was cut.
        (Err(error), Err(cause)) if error.kind() == ErrorKind::ConnectionAborted => Err(cause),
        (done, _) => done,
    }
}

/// Ends well when the work has dropped its queue and all was written.
async fn pump<S: AsyncRead + AsyncWrite>(
    stream: S,
    arrived: mpsc::Sender<Message>,
    mut leaving: mpsc::Receiver<Message>,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut lost = None;
    let reading = async {
        let error = read_all(&mut reader, arrived).await;
        if error.kind() == ErrorKind::TimedOut {
            return error;
        }
        // The work may have all that it needs, and something to say still.
        lost = Some(error);
        std::future::pending().await
    };
    let writing = async {
        loop {
            let message = match timeout(ALIVE, leaving.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => Message::Alive,
            };
            writer.write_all(&message.encode()).await?;
            if leaving.is_empty() {
                writer.flush().await?;
            }
        }
        writer.flush().await
    };
    let written = tokio::select! {
        error = reading => return Err(error),
        written = writing => written,
    };
    match lost {
        Some(error) if written.is_ok() => Err(error),
        _ => written,
    }
}

/// Reads until it cannot; says why. Drops the queue then.
async fn read_all(reader: &mut (impl AsyncRead + Unpin), arrived: mpsc::Sender<Message>) -> io::Error {
    loop {
        match timeout(SILENCE, read_one(reader)).await {
            Err(_) => return io::Error::new(ErrorKind::TimedOut, "the other side of the transfer is silent"),
            Ok(Err(error)) => return error,
            Ok(Ok(Message::Alive)) => {}
            Ok(Ok(message)) => {
                if arrived.send(message).await.is_err() {
                    return cut();
                }
            }
        }
    }
}

async fn read_one(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let mut head = [0; codec::HEAD];
    reader.read_exact(&mut head).await?;
    let mut body = vec![0; codec::length(head)?];
    reader.read_exact(&mut body).await?;
    Ok(Message::decode(body.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::Inode;
    use crate::storage::replica::blocking;

    #[tokio::test]
    async fn words_pass_and_the_last_one_arrives_before_the_end() {
        let (one, other) = tokio::io::duplex(64);
        let asks = converse(one, async |mut ends| {
            blocking(move || {
                ends.say(Message::Content(Inode(1)))?;
                ends.next()
            })
            .await
        });
        let answers = converse(other, async |mut ends| {
            blocking(move || {
                let asked = ends.next()?;
                ends.say(Message::Done)?;
                Ok(asked)
            })
            .await
        });
        let (answer, asked) = tokio::join!(asks, answers);
        assert_eq!(
            (answer.unwrap(), asked.unwrap()),
            (Message::Done, Message::Content(Inode(1)))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_side_is_given_up_and_one_that_only_works_is_not() {
        let (one, silent) = tokio::io::duplex(64);
        let waits = |stream| {
            converse(stream, async |mut ends| {
                // Not `next`: paused time does not see threads.
                ends.inbox.recv().await.ok_or_else(cut)
            })
        };
        let given_up = waits(one).await.unwrap_err();
        assert_eq!(given_up.kind(), ErrorKind::TimedOut);
        drop(silent);
        let (one, other) = tokio::io::duplex(64);
        let works = converse(other, async |ends| {
            tokio::time::sleep(10 * SILENCE).await;
            ends.say_later(Message::Done).await
        });
        let (answer, worked) = tokio::join!(waits(one), works);
        assert_eq!((answer.unwrap(), worked.unwrap()), (Message::Done, ()));
    }

    #[tokio::test]
    async fn a_cut_stream_and_garbage_end_the_work() {
        let (one, other) = tokio::io::duplex(64);
        drop(other);
        let cut = converse(one, async |mut ends| blocking(move || ends.next()).await).await;
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let (one, mut other) = tokio::io::duplex(64);
        other.write_all(&[0xff; 9]).await.unwrap();
        let garbage = converse(one, async |mut ends| blocking(move || ends.next()).await).await;
        assert_eq!(garbage.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
