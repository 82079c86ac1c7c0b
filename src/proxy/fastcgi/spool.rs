//! A request body of unknown length, collected so that PHP can be told its length.

use std::io;
use std::mem;
use std::path::Path;

use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::fs::{self, File};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::gathered::Gathered;

/// Kept in memory up to here: forms and API calls never see the disk.
const IN_MEMORY: u64 = 256 * 1024;

/// Read size on the way back.
const CHUNK: usize = 128 * 1024;

/// Reads the body to its end; returns its length and the same bytes again. The body's own limits bound the file.
pub async fn collect(mut body: Body, folder: &Path, id: &str) -> Result<(u64, Body), Error> {
    let mut held = Gathered::default();
    let mut file = None;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len() as u64;
        if length <= IN_MEMORY {
            held.push(data);
            continue;
        }
        let file = match &mut file {
            Some(file) => file,
            None => file.insert(spill(mem::take(&mut held), folder, id).await.map_err(failed)?),
        };
        file.write_all(&data).await.map_err(failed)?;
    }
    let body = match file {
        None => Full::new(held.join()).map_err(|never| match never {}).boxed_unsync(),
        Some(mut file) => {
            file.rewind().await.map_err(failed)?;
            let chunks = ReaderStream::with_capacity(file, CHUNK);
            StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data).map_err(failed))).boxed_unsync()
        }
    };
    Ok((length, body))
}

/// A file that has no name any more, with what was held so far.
async fn spill(held: Gathered, folder: &Path, id: &str) -> io::Result<File> {
    let path = folder.join(format!("bitrix-node-{id}.body"));
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .await?;
    fs::remove_file(&path).await?;
    file.write_all(&held.join()).await?;
    Ok(file)
}

fn failed(error: io::Error) -> Error {
    Error::with(Kind::Internal, "cannot hold a request body of unknown length", error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use futures_util::stream;

    use super::*;
    use crate::proxy::fixture::{crumbled, crumbs, read};

    fn chunks(size: usize, count: usize) -> Body {
        let chunk = Bytes::from(vec![b'c'; size]);
        StreamBody::new(stream::iter((0..count).map(move |_| Ok(Frame::data(chunk.clone()))))).boxed_unsync()
    }

    #[tokio::test]
    async fn small_and_large_bodies_come_back_whole() {
        let folder = tempfile::tempdir().expect("temp dir");
        for count in [0, 1, 2, 3, 40] {
            let (length, body) = collect(chunks(100_000, count), folder.path(), "id")
                .await
                .expect("collected");
            assert_eq!(length, count as u64 * 100_000);
            assert_eq!(read(body).await.expect("read").len() as u64, length);
            let left = std::fs::read_dir(folder.path()).expect("listed").count();
            assert_eq!(left, 0, "the file has no name");
        }
    }

    #[tokio::test]
    async fn single_bytes_do_not_keep_what_they_were_read_into() {
        let buffers = Arc::new(());
        let (length, body) = collect(crumbled(10_000, &buffers), Path::new("/nonexistent"), "id")
            .await
            .expect("collected");
        assert!(
            Arc::strong_count(&buffers) < 5,
            "{} buffers",
            Arc::strong_count(&buffers)
        );
        assert_eq!(length, 10_000);
        assert_eq!(read(body).await.expect("read"), crumbs(10_000));
    }

    #[tokio::test]
    async fn missing_folder_is_our_fault() {
        let error = collect(chunks(300_000, 1), Path::new("/nonexistent"), "id").await.err();
        assert_eq!(error.map(|error| error.kind), Some(Kind::Internal));
    }
}
