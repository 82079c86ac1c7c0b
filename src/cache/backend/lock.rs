//! What must not happen at the same time. These locks may be held across an await; taken in this order: a stream's, everything's, a key's.

use tokio::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use super::{Backend, Name};

impl Backend {
    /// Held while a command is executed.
    pub async fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.still.read().await
    }

    /// Until this is dropped nothing is executed. Not in a task.
    pub fn stand_still(&self) -> RwLockWriteGuard<'_, ()> {
        self.still.blocking_write()
    }

    /// One stream's piece after the other.
    pub async fn intake(&self) -> MutexGuard<'_, ()> {
        self.intake.lock().await
    }

    /// Nobody changes the item meanwhile.
    pub async fn share(&self, name: &Name) -> RwLockReadGuard<'_, ()> {
        self.keys[name.stripe()].read().await
    }

    /// Nobody looks at the item meanwhile.
    pub async fn hold(&self, name: &Name) -> RwLockWriteGuard<'_, ()> {
        self.keys[name.stripe()].write().await
    }
}
