//! A WebSocket over its stream: what the client says, and whole frames to it. Holds no buffer while nothing is under way: what comes is
//! read to the stack, what goes is written from the bytes that all clients share.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::frame::websocket::{self, Decoder, Fault, Said};

/// Read at once: requests are short.
const READ: usize = 4 << 10;
/// For a client to hear why it is left.
const FAREWELL: Duration = Duration::from_secs(2);
/// What a client that is left may still send to reach its end.
const DISMISSAL_BYTES: u64 = 8 << 20;

/// Why nothing more is heard.
#[derive(Debug, Error)]
pub enum Broken {
    #[error(transparent)]
    Stream(#[from] io::Error),
    #[error(transparent)]
    Fault(#[from] Fault),
}

pub struct Line<S> {
    stream: S,
    decoder: Decoder,
    /// Decoded and not yet taken; what came in one piece.
    heard: VecDeque<Result<Said, Fault>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// A stream after its handshake; `read`: what came behind the request.
    pub fn new(stream: S, read: &[u8]) -> Self {
        let mut line = Line {
            stream,
            decoder: Decoder::default(),
            heard: VecDeque::new(),
        };
        line.decode(read);
        line
    }

    /// What the client says next; `None`: it has gone. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Said>, Broken> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Said>, Broken>> {
        loop {
            if let Some(said) = self.heard.pop_front() {
                return Poll::Ready(said.map(Some).map_err(Broken::Fault));
            }
            let mut space = [MaybeUninit::uninit(); READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(None));
            }
            self.decode(buffer.filled());
        }
    }

    fn decode(&mut self, mut bytes: &[u8]) {
        while let Some(said) = self.decoder.decode(&mut bytes).transpose() {
            let is_over = said.is_err() || matches!(said, Ok(Said::Close(_)));
            self.heard.push_back(said);
            if is_over {
                return;
            }
        }
    }

    /// Writes what can be written at once; returns how much.
    pub async fn try_send(&mut self, frame: &[u8]) -> io::Result<usize> {
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut self.stream).poll_write(cx, frame))).await {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(0),
        }
    }

    /// Writes the whole of it, or what was left of it.
    pub async fn send(&mut self, rest: &[u8]) -> io::Result<()> {
        self.stream.write_all(rest).await
    }

    /// Says why, and waits a little for the client to end: closed at once, the last words could be lost on the way. What it still
    /// sends is thrown away, so that it comes to read.
    pub async fn farewell(&mut self, code: u16, reason: &str) {
        let said = async {
            self.stream.write_all(&websocket::close(code, reason)).await?;
            self.stream.shutdown().await?;
            let mut rest = (&mut self.stream).take(DISMISSAL_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // Whether it was heard changes nothing.
        let _ = timeout(FAREWELL, said).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn what_came_behind_the_request_is_heard_first() {
        let (mut near, far) = duplex(1024);
        let mut line = Line::new(far, &[0x8a, 0x80, 0, 0, 0, 0, 0x81]);
        near.write_all(&[0x81, 0, 0, 0, 0, b'a']).await.expect("sent");
        assert_eq!(line.next().await.expect("well formed"), Some(Said::Pong));
        assert_eq!(line.next().await.expect("well formed"), Some(Said::Text("a".into())));
        drop(near);
        assert_eq!(line.next().await.expect("over"), None);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_left() {
        let (mut near, far) = duplex(8);
        let mut line = Line::new(far, &[]);
        assert_eq!(line.try_send(b"0123456789").await.expect("open"), 8);
        assert_eq!(line.try_send(b"89").await.expect("open"), 0, "full");
        let (sent, read) = tokio::join!(line.send(b"89"), async {
            let mut all = [0; 10];
            near.read_exact(&mut all).await.map(|_| all)
        });
        sent.expect("open");
        assert_eq!(&read.expect("open"), b"0123456789");
    }
}
