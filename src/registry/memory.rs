//! `MemoryRegistry`: the same contract within one process, for tests and simulations. All that share it see one registry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::change::Change;
use super::view::{Stamp, View};
use super::{Error, Registry, Revision, VERSIONS_KEPT};
use crate::base::{BoxFuture, clock};

#[derive(Clone)]
pub struct MemoryRegistry {
    author: String,
    newest: Arc<Mutex<Arc<View>>>,
}

impl MemoryRegistry {
    pub fn new(author: &str) -> Self {
        MemoryRegistry {
            author: author.to_string(),
            newest: Arc::default(),
        }
    }

    /// The same registry as another node has it.
    pub fn of(&self, author: &str) -> Self {
        MemoryRegistry {
            author: author.to_string(),
            newest: self.newest.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<View>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: &Change) -> Result<Arc<View>, Error> {
        let mut newest = self.lock();
        let stamp = Stamp {
            author: self.author.clone(),
            time: clock::unix_millis(),
            // Any number that no other version has.
            attempt: newest.revision + 1,
            kept: VERSIONS_KEPT,
        };
        let next = Arc::new(newest.apply(change, &stamp)?);
        *newest = next.clone();
        Ok(next)
    }
}

impl Registry for MemoryRegistry {
    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(std::future::ready(Ok(self.lock().revision)))
    }

    fn read(&self) -> BoxFuture<'_, Result<Arc<View>, Error>> {
        Box::pin(std::future::ready(Ok(self.lock().clone())))
    }

    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Arc<View>, Error>> {
        Box::pin(async move { self.change(&change) })
    }
}
