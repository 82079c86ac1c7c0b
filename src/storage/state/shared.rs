//! The machine that a replica has now: another takes its place when a received state is installed.
//!
//! Ask `get` anew for each piece of work: a machine that has given way refuses (`Failure::Stopped`, `Error::Unavailable`).

use std::sync::{Arc, RwLock};

use super::machine::Machine;
use super::{Failure, HELD};

/// Clones are the same.
#[derive(Clone)]
pub struct Shared(Arc<RwLock<Arc<Machine>>>);

impl Shared {
    pub fn new(machine: Machine) -> Self {
        Shared(Arc::new(RwLock::new(Arc::new(machine))))
    }

    pub fn get(&self) -> Arc<Machine> {
        self.0.read().expect(HELD).clone()
    }

    /// Has the complete state in `incoming` take the place of the machine. Blocks until the new one is open and its mirror is mended.
    /// After a failure the process must end.
    pub fn install(&self) -> Result<(), Failure> {
        let machine = self.get().give_way()?;
        *self.0.write().expect(HELD) = Arc::new(machine);
        Ok(())
    }
}
