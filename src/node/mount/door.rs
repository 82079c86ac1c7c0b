//! What the supervisor keeps of a FUSE mount: its open device and its memory, for one storage process after another.
//!
//! While the supervisor has the device open, callers wait for a storage that died, and its successor answers them. Nothing else
//! of the supervisor's, and of no child's, touches the mount: a process that hangs on it could not start the storage.
//! Closed at last, after the storage has ended, the device ends the connection: whoever still waits is told so by the kernel, and
//! nobody needs to abort anything.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::watch;

use crate::host::mount::{Estate, Trustee, fuse};

pub struct Door {
    estate: watch::Sender<Estate>,
}

/// The other parts of a door.
pub struct Parts {
    /// Runs until the storage has ended.
    pub trustee: Trustee,
    /// For every storage process, as "fuse".
    pub end: OwnedFd,
}

impl Door {
    /// Must be called inside a runtime.
    pub fn new() -> io::Result<(Self, Parts)> {
        let (estate, receiver) = watch::channel(None);
        let (trustee, end) = Trustee::new(receiver)?;
        Ok((Door { estate }, Parts { trustee, end }))
    }

    /// Offers a new mount to the storage in place of the last one; returns its device, to be mounted.
    pub fn renew(&self) -> Result<OwnedFd, String> {
        let fresh = fuse::fresh()?;
        let device = fresh.device.try_clone().map_err(|error| error.to_string())?;
        self.estate.send_replace(Some(Arc::new(fresh)));
        Ok(device)
    }

    /// What was offered is not mounted.
    pub fn withdraw(&self) {
        self.estate.send_replace(None);
    }
}
