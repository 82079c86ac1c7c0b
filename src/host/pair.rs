//! A pair of sockets between the supervisor and its children that keeps messages apart and outlives the processes at the other end:
//! what one of them was writing when it died is there whole or not at all.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Two ends; neither blocks.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// One end. Tokio has no type for such sockets; of this one only the waiting is used.
pub struct End(UnixDatagram);

impl End {
    /// Must be called inside a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(End(UnixDatagram::from_std(socket.into())?))
    }

    /// Does an act that does not block as soon as it can be done. Cancel safe, for the act itself is not waited for.
    pub async fn act<T>(
        &self,
        interest: Interest,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.async_io(interest, || act(self.0.as_fd())).await
    }

    /// Cancel safe: it is sent whole or not at all. `EMSGSIZE` where it is longer than the kernel takes.
    pub async fn send(&self, message: &[u8]) -> io::Result<()> {
        let sent = |socket: BorrowedFd<'_>| Ok(rustix::net::send(socket, message, SendFlags::NOSIGNAL)?);
        self.act(Interest::WRITABLE, sent).await.map(drop)
    }

    /// The next message; empty: the other end is closed everywhere, or somebody sent nothing. One longer than `most` bytes is
    /// dropped with `InvalidData`. Cancel safe.
    pub async fn receive(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; most];
        // With TRUNC the kernel tells the whole length.
        let got = |socket: BorrowedFd<'_>| Ok(rustix::net::recv(socket, &mut buffer, RecvFlags::TRUNC)?.1);
        let length = self.act(Interest::READABLE, got).await?;
        if length > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        buffer.truncate(length);
        Ok(buffer)
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_stay_apart_and_a_long_one_is_dropped_alone() {
        let (near, far) = pair().expect("made");
        let (near, far) = (End::new(near).expect("an end"), End::new(far).expect("an end"));
        for message in ["one", "", "far too long", "four"] {
            near.send(message.as_bytes()).await.expect("sent");
        }
        assert_eq!(far.receive(8).await.expect("received"), b"one");
        assert_eq!(far.receive(8).await.expect("received"), b"");
        let error = far.receive(8).await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(far.receive(8).await.expect("received"), b"four");
        drop(near);
        assert_eq!(far.receive(8).await.expect("closed"), b"");
    }
}
