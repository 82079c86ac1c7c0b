//! Compressed forms of small files, made once and kept with the file: without them each answer would be compressed anew.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use super::entry::{Version, Versions};
use crate::config::Coding;
use crate::proxy::compress::{Compression, is_text, pack};
use crate::proxy::conditional;

/// Forms of one file, one for each coding. Shared by all that is known of one state of the file.
#[derive(Clone, Debug, Default)]
pub struct Forms(Arc<[OnceCell<Bytes>; 3]>);

impl Forms {
    pub fn get(&self, coding: Coding) -> Option<&Bytes> {
        self.cell(coding).get()
    }

    /// Bytes of all of them.
    pub fn size(&self) -> usize {
        self.0.iter().filter_map(OnceCell::get).map(Bytes::len).sum()
    }

    fn cell(&self, coding: Coding) -> &OnceCell<Bytes> {
        let [zstd, brotli, gzip] = &*self.0;
        match coding {
            Coding::Zstd => zstd,
            Coding::Brotli => brotli,
            Coding::Gzip => gzip,
        }
    }
}

/// Makes them.
pub struct Packer {
    compression: Compression,
    /// As many at a time as there are processors: a cold start must not take them from everybody else.
    turns: Semaphore,
}

impl Packer {
    pub fn new(compression: Compression) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Packer {
            compression,
            turns: Semaphore::new(processors),
        }
    }

    /// The coding in which a client gets a file that has no copy for it. `None`: as it is.
    pub fn coding(&self, headers: &http::HeaderMap, file: &Versions) -> Option<Coding> {
        let is_worth = file.plain.size() >= self.compression.min_size && is_text(file.content_type.as_bytes());
        is_worth.then(|| conditional::choose(headers, self.compression.codings.iter().copied()))?
    }

    /// The form of a file in memory. Requests that come meanwhile wait for the same one. `None`: all turns are taken, or it fails;
    /// then it is compressed as it is sent. The flag says that it is new.
    pub async fn form(&self, file: &Versions, content: &Bytes, coding: Coding) -> Option<(Version, bool)> {
        let mut is_new = false;
        let make = async {
            is_new = true;
            let _turn = self.turns.try_acquire().map_err(io::Error::other)?;
            let content = content.clone();
            let packed = tokio::task::spawn_blocking(move || pack(coding, &content)).await;
            packed.map_err(io::Error::other).flatten()
        };
        let content = file.forms.cell(coding).get_or_try_init(|| make).await.ok()?.clone();
        Some((file.plain.packed(coding, Some(content)), is_new))
    }
}
