//! A stream to a server of this machine over its Unix socket, for conversations of question and answer.
//!
//! The kernel tells the writer each time that its peer took what was written (`unix_write_space`), whether there was too little room
//! before or not. Who waits for room all the time is woken twice for each question. This stream waits only for what is to be read, and
//! for room while it lacks it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{SendFlags, Shutdown, send, shutdown};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

/// Tokio's streams always wait for both, its ends of pipes for one; to read and write these, a socket is the same.
pub struct Local {
    stream: Receiver,
    /// The same socket, while there is too little room.
    room: Option<Sender>,
}

impl Local {
    /// At once, or not at all: `WouldBlock` where the server's queue is full.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Self::new(socket.into())
    }

    /// Of a stream that does not block.
    fn new(stream: OwnedFd) -> io::Result<Self> {
        Ok(Local {
            stream: Receiver::from_owned_fd_unchecked(stream)?,
            room: None,
        })
    }
}

impl AsyncRead for Local {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Local {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.room.is_none() {
            match send(&self.stream, bytes, SendFlags::NOSIGNAL).map_err(io::Error::from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
        let me = &mut *self;
        let room = match &mut me.room {
            Some(room) => room,
            none => {
                let same = me.stream.as_fd().try_clone_to_owned()?;
                none.insert(Sender::from_owned_fd_unchecked(same)?)
            }
        };
        let sent = Pin::new(room).poll_write(cx, bytes);
        if sent.is_ready() {
            self.room = None;
        }
        sent
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.stream, Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (Local, tokio::net::UnixStream) {
        let (near, far) = UnixStream::pair().expect("sockets");
        near.set_nonblocking(true).expect("set");
        far.set_nonblocking(true).expect("set");
        let far = tokio::net::UnixStream::from_std(far).expect("registered");
        (Local::new(near.into()).expect("registered"), far)
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_for_room_and_loses_nothing() {
        let (near, mut far) = pair();
        let (mut reader, mut writer) = tokio::io::split(near);
        let sent: Vec<u8> = (0..4_000_000u32).map(|number| (number % 251) as u8).collect();
        let write = async {
            writer.write_all(&sent).await.expect("the reader reads");
            writer.shutdown().await.expect("open");
        };
        let mirror = async {
            let (mut read, mut write) = far.split();
            tokio::io::copy(&mut read, &mut write).await.expect("both open");
            write.shutdown().await.expect("open");
        };
        let mut heard = Vec::new();
        let (_, _, read) = tokio::join!(write, mirror, reader.read_to_end(&mut heard));
        assert_eq!(read.expect("open"), sent.len());
        assert_eq!(heard, sent);
    }

    #[tokio::test]
    async fn the_end_is_read_behind_the_last_words() {
        let (mut near, mut far) = pair();
        let mut words = [0; 64];
        let reading = async { near.read(&mut words).await.expect("open") };
        let (count, ()) = tokio::join!(reading, async { far.write_all(b"last").await.expect("open") });
        assert_eq!(&words[..count], b"last");
        drop(far);
        assert_eq!(near.read(&mut words).await.expect("an end is no error"), 0);
    }

    #[tokio::test]
    async fn a_missing_server_is_told_at_once() {
        let folder = tempfile::tempdir().expect("temp dir");
        let error = Local::connect(&folder.path().join("none"))
            .err()
            .expect("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
