//! Open descriptors of large files that are asked for again and again: opening one is a walk over folders, and on replicated files a
//! question to the storage. Bounded in number, and closed when nobody asked for a while: a removed file keeps its place on the disk, and a
//! file system cannot be unmounted, as long as one is open.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::Scope;

/// Most of them; a further one takes the place of the one that was used least lately.
const MOST: usize = 256;

/// Closed after this time without use.
const IDLE: Duration = Duration::from_secs(5);

/// How often idle ones are looked for, while there are any.
const SWEEP: Duration = Duration::from_secs(1);

pub struct Handles {
    shelf: Arc<Mutex<Shelf>>,
    scope: Scope,
}

#[derive(Default)]
struct Shelf {
    /// By path below the root, and when each was used last.
    files: HashMap<Box<str>, (Instant, Arc<File>)>,
    is_swept: bool,
}

impl Handles {
    /// `scope` owns the task that closes idle ones.
    pub fn new(scope: Scope) -> Self {
        Handles {
            shelf: Arc::default(),
            scope,
        }
    }

    /// The caller compares it with what it asks for.
    pub fn get(&self, path: &str) -> Option<Arc<File>> {
        let mut shelf = lock(&self.shelf);
        let (used, file) = shelf.files.get_mut(path)?;
        *used = Instant::now();
        Some(file.clone())
    }

    pub fn put(&self, path: &str, file: Arc<File>) {
        if self.scope.is_draining() {
            return;
        }
        let mut shelf = lock(&self.shelf);
        if shelf.files.len() >= MOST && !shelf.files.contains_key(path) {
            let oldest = shelf.files.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                shelf.files.remove(&oldest);
            }
        }
        shelf.files.insert(path.into(), (Instant::now(), file));
        if !shelf.is_swept {
            shelf.is_swept = true;
            self.scope.spawn(sweep(self.shelf.clone(), self.scope.clone()));
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        lock(&self.shelf).files.len()
    }
}

/// Closes idle ones until there is none; all when draining.
async fn sweep(shelf: Arc<Mutex<Shelf>>, scope: Scope) {
    loop {
        tokio::select! {
            () = scope.draining() => return lock(&shelf).files.clear(),
            () = tokio::time::sleep(SWEEP) => {}
        }
        let mut shelf = lock(&shelf);
        shelf.files.retain(|_, (used, _)| used.elapsed() < IDLE);
        if shelf.files.is_empty() {
            shelf.is_swept = false;
            return;
        }
    }
}

/// A panic elsewhere leaves the shelf whole: nothing is called while it is half changed.
fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().expect("temp file"))
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ones_are_closed_and_busy_ones_are_not() {
        let handles = Handles::new(Scope::new());
        let (idle, busy) = (file(), file());
        handles.put("idle", idle.clone());
        handles.put("busy", busy.clone());
        for _ in 0..2 * IDLE.as_secs() {
            tokio::time::sleep(SWEEP).await;
            assert!(handles.get("busy").is_some());
        }
        assert!(handles.get("idle").is_none());
        assert_eq!(Arc::strong_count(&idle), 1);
        tokio::time::sleep(2 * IDLE).await;
        assert_eq!((handles.len(), Arc::strong_count(&busy)), (0, 1));
        handles.put("again", idle.clone());
        tokio::time::sleep(2 * IDLE).await;
        assert_eq!(handles.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded_and_an_end_closes_all() {
        let scope = Scope::new();
        let handles = Handles::new(scope.clone());
        for number in 0..MOST + 3 {
            handles.put(&number.to_string(), file());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(handles.len(), MOST);
        assert!(handles.get("2").is_none() && handles.get("3").is_some());
        scope.stop(Duration::from_secs(1)).await;
        handles.put("late", file());
        assert_eq!(handles.len(), 0);
    }
}
