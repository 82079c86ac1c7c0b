//! The body of a large file: pieces of it, and text between them for multipart answers.
//!
//! Reads go to the blocking pool. At most two chunks exist at a time: one with the connection, one being read ahead of it.
//! A chunk's memory is used again once the connection has let go of it.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::proxy::error::{Error, Kind};

/// Size of one read: large enough that a hop to the blocking pool costs little against the copy, small enough for the processor's cache.
const CHUNK: u64 = 256 * 1024;

pub enum Piece {
    Text(Bytes),
    File(Range<u64>),
}

impl Piece {
    pub fn size(&self) -> u64 {
        match self {
            Piece::Text(text) => text.len() as u64,
            Piece::File(range) => range.end.saturating_sub(range.start),
        }
    }
}

pub struct Stream {
    file: Arc<File>,
    pieces: VecDeque<Piece>,
    reading: Option<JoinHandle<io::Result<BytesMut>>>,
    /// Bytes not yet handed out.
    left: u64,
    /// The last chunk handed out; its memory is taken back when nobody else holds it.
    handed: Option<Bytes>,
}

impl Stream {
    pub fn new(file: Arc<File>, pieces: Vec<Piece>) -> Self {
        Stream {
            file,
            left: pieces.iter().map(Piece::size).sum(),
            pieces: pieces.into(),
            reading: None,
            handed: None,
        }
    }

    /// Starts the next read, if a piece of the file is next.
    fn read_ahead(&mut self) {
        let Some(Piece::File(range)) = self.pieces.front_mut() else {
            return;
        };
        let (start, size) = (range.start, CHUNK.min(range.end.saturating_sub(range.start)));
        range.start += size;
        if range.start >= range.end {
            self.pieces.pop_front();
        }
        let spare = self.handed.take().and_then(|bytes| bytes.try_into_mut().ok());
        let mut buffer = spare.unwrap_or_default();
        let file = self.file.clone();
        self.reading = Some(tokio::task::spawn_blocking(move || {
            buffer.resize(usize::try_from(size).unwrap_or_default(), 0);
            file.read_exact_at(&mut buffer, start).map(|()| buffer)
        }));
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.reading.is_none() {
            if let Some(Piece::Text(_)) = self.pieces.front()
                && let Some(Piece::Text(text)) = self.pieces.pop_front()
            {
                return Poll::Ready(Some(Ok(text)));
            }
            self.read_ahead();
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let read = read.map_err(io::Error::other).flatten();
        Poll::Ready(Some(match read {
            Ok(buffer) => {
                // Before this chunk is handed out, so that the one before it can be used again.
                self.read_ahead();
                let bytes = buffer.freeze();
                self.handed = Some(bytes.clone());
                Ok(bytes)
            }
            Err(error) => {
                self.pieces.clear();
                Err(Error::with(Kind::Internal, "cannot read on in a file", error))
            }
        }))
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = ready!(self.poll_next(cx));
        if let Some(Ok(bytes)) = &next {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use http_body::Body;
    use http_body_util::BodyExt;

    fn file(size: usize) -> Arc<File> {
        let file = tempfile::tempfile().expect("temp file");
        let content: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        file.write_all_at(&content, 0).expect("written");
        Arc::new(file)
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_whole() {
        let size = 3 * CHUNK as usize + 17;
        let pieces = vec![
            Piece::Text(Bytes::from_static(b"<")),
            Piece::File(0..size as u64),
            Piece::Text(Bytes::from_static(b"|")),
            Piece::File(250..253),
            Piece::Text(Bytes::from_static(b">")),
        ];
        let stream = Stream::new(file(size), pieces);
        assert_eq!(stream.size_hint().exact(), Some(size as u64 + 6));
        let bytes = stream.collect().await.expect("read").to_bytes();
        assert_eq!((bytes[0], bytes[1], bytes[size]), (b'<', 0, ((size - 1) % 251) as u8));
        assert_eq!(bytes[size + 1..], [b'|', 250, 0, 1, b'>']);
    }

    #[tokio::test]
    async fn memory_is_used_again() {
        let mut stream = Stream::new(file(6 * CHUNK as usize), vec![Piece::File(0..6 * CHUNK)]);
        let mut places = std::collections::BTreeSet::new();
        while let Some(frame) = stream.frame().await {
            places.insert(frame.expect("read").into_data().expect("data").as_ptr() as usize);
        }
        assert!(places.len() <= 2, "{places:?}");
    }

    #[tokio::test]
    async fn file_that_shrinks_is_an_error() {
        let file = file(2 * CHUNK as usize);
        file.set_len(CHUNK + 1).expect("cut");
        let stream = Stream::new(file, vec![Piece::File(0..2 * CHUNK)]);
        assert_eq!(stream.collect().await.expect_err("cut").kind, Kind::Internal);
    }
}
