//! Compressed forms of small files, made once and kept with the file: without them each answer would be compressed anew.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use super::entry::Versions;
use crate::base::Scope;
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
    turns: Arc<Semaphore>,
    scope: Scope,
}

impl Packer {
    /// `scope` owns what makes them.
    pub fn new(compression: Compression, scope: Scope) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Packer {
            compression,
            turns: Arc::new(Semaphore::new(processors)),
            scope,
        }
    }

    /// The coding in which a client gets a file that has no copy for it. `None`: as it is.
    pub fn coding(&self, headers: &http::HeaderMap, file: &Versions) -> Option<Coding> {
        let is_worth = file.plain.size() >= self.compression.min_size && is_text(file.content_type.as_bytes());
        is_worth.then(|| conditional::choose(headers, self.compression.codings.iter().copied()))?
    }

    /// Makes the form of a content. Requests that come meanwhile wait for the same one. `None`: all turns are taken, or it fails;
    /// then it is compressed as it is sent. `made` runs when there is a new form.
    pub async fn make<F>(&self, forms: &Forms, content: &Bytes, coding: Coding, made: F) -> Option<Bytes>
    where
        F: FnOnce() + Send + 'static,
    {
        let (forms, content, turns) = (forms.clone(), content.clone(), self.turns.clone());
        // A task of its own: who asks and leaves would have it begun again and again.
        let task = self.scope.spawn(async move {
            let mut is_new = false;
            let make = async {
                is_new = true;
                in_turn(&turns, move || pack(coding, &content)).await
            };
            let form = forms.cell(coding).get_or_try_init(|| make).await.ok()?.clone();
            if is_new {
                made();
            }
            Some(form)
        });
        task.await.ok()??
    }
}

/// Runs work that cannot be broken off, so that its turn lasts as long as it, whoever still waits for it.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let turn = turns.clone().try_acquire_owned().map_err(io::Error::other)?;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.map_err(io::Error::other).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn work_keeps_its_turn_when_nobody_waits_for_it_any_more() {
        const BOUND: usize = 3;
        let turns = Arc::new(Semaphore::new(BOUND));
        let mut gates = Vec::new();
        let mut refused = 0;
        for _ in 0..20 {
            let (gate, shut) = channel::<()>();
            gates.push(gate);
            let work = move || Ok(shut.recv().is_ok());
            refused += usize::from(in_turn(&turns, work).now_or_never().is_some());
        }
        assert_eq!(refused, 20 - BOUND);
        drop(gates);
        let all = u32::try_from(BOUND).expect("few");
        let _all = turns.acquire_many(all).await.expect("the turns come back");
    }

    #[tokio::test]
    async fn a_form_is_made_once_though_whoever_asked_left() {
        let scope = Scope::new();
        let compression = Compression {
            codings: vec![Coding::Brotli],
            min_size: 0,
        };
        let packer = Packer::new(compression, scope.clone());
        let (forms, content) = (Forms::default(), Bytes::from(vec![b'x'; 10_000]));
        let made = Arc::new(AtomicUsize::new(0));
        for _ in 0..20 {
            let made = made.clone();
            let made = move || _ = made.fetch_add(1, Ordering::Relaxed);
            let form = packer.make(&forms, &content, Coding::Brotli, made);
            assert!(form.now_or_never().is_none(), "it takes its time");
        }
        assert!(scope.stop(Duration::from_secs(600)).await);
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let form = forms.get(Coding::Brotli).expect("a form");
        assert_eq!(forms.size(), form.len());
        assert!(form.len() < content.len());
    }
}
