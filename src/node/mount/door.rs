//! What the supervisor keeps of a FUSE mount: its open device and its memory, for one storage process after another.
//!
//! While the supervisor has the device open, callers wait for a storage that died, and its successor answers them. Nothing else
//! of the supervisor's, and of no child's, touches the mount: a process that hangs on it could not start the storage.
//! Closed at last, after the storage has ended, the device ends the connection: whoever still waits is told so by the kernel. Only a
//! thread of a storage that hangs in the kernel itself could keep it open; `Closing` ends the connection then.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use tracing::warn;

use super::keeper::DETACH;
use crate::host::mount::{Answer, Estate, Handed, Order, Trustee, Worker, fuse};

pub struct Door {
    estate: watch::Sender<Estate>,
    /// The kernel's number of the connection; 0: it is not known.
    connection: Arc<AtomicU32>,
}

/// What outlives this executable, for the one that comes next.
pub struct Legacy {
    /// Both ends of the pair with the storage.
    pub ours: OwnedFd,
    pub theirs: OwnedFd,
    estate: watch::Receiver<Estate>,
    connection: Arc<AtomicU32>,
}

impl Legacy {
    /// What is mounted, with the kernel's number of its connection.
    pub fn mount(&self) -> Option<(Arc<Handed>, u32)> {
        let handed = self.estate.borrow().clone()?;
        Some((handed, self.connection.load(Ordering::Relaxed)))
    }
}

/// As the predecessor left it.
pub struct Inherited {
    pub ours: OwnedFd,
    pub theirs: OwnedFd,
    pub mount: Option<(Handed, u32)>,
}

/// The other parts of a door.
pub struct Parts {
    /// Runs until the storage has ended.
    pub trustee: Trustee,
    /// For every storage process, as "fuse".
    pub end: OwnedFd,
    pub closing: Closing,
    pub legacy: Legacy,
}

impl Door {
    /// `executable`: this program. `inherited`: what there is to go on with. Must be called inside a runtime.
    pub fn new(executable: PathBuf, inherited: Option<Inherited>) -> io::Result<(Self, Parts)> {
        let (estate, receiver) = watch::channel(None);
        let connection: Arc<AtomicU32> = Arc::default();
        let (trustee, end) = match inherited {
            None => Trustee::new(receiver.clone())?,
            Some(inherited) => {
                if let Some((handed, number)) = inherited.mount {
                    estate.send_replace(Some(Arc::new(handed)));
                    connection.store(number, Ordering::Relaxed);
                }
                let end = inherited.theirs.try_clone()?;
                (Trustee::adopt(inherited.ours, inherited.theirs, receiver.clone())?, end)
            }
        };
        let (ours, theirs) = trustee.ends()?;
        let legacy = Legacy {
            ours,
            theirs,
            estate: receiver.clone(),
            connection: connection.clone(),
        };
        let closing = Closing {
            estate: receiver,
            connection: connection.clone(),
            worker: Worker::new(executable),
        };
        let parts = Parts {
            trustee,
            end,
            closing,
            legacy,
        };
        Ok((Door { estate, connection }, parts))
    }

    /// Something is offered to the storage.
    pub fn has_mount(&self) -> bool {
        self.estate.borrow().is_some()
    }

    /// Offers a new mount to the storage in place of the last one; returns its device, to be mounted.
    pub fn renew(&self) -> Result<OwnedFd, String> {
        let fresh = fuse::fresh()?;
        let device = fresh.device.try_clone().map_err(|error| error.to_string())?;
        self.connection.store(0, Ordering::Relaxed);
        self.estate.send_replace(Some(Arc::new(fresh)));
        Ok(device)
    }

    /// It is mounted, under this number of the kernel's.
    pub fn is_mounted(&self, connection: u32) {
        self.connection.store(connection, Ordering::Relaxed);
    }

    /// What was offered is not mounted.
    pub fn withdraw(&self) {
        self.estate.send_replace(None);
    }
}

/// The last hand on the device.
pub struct Closing {
    estate: watch::Receiver<Estate>,
    connection: Arc<AtomicU32>,
    worker: Worker,
}

impl Closing {
    /// Lets nobody hang on the mount, whatever became of its storage. To be called when that has ended.
    pub async fn close(mut self) {
        let Some(handed) = self.estate.borrow().clone() else {
            return;
        };
        let connection = self.connection.load(Ordering::Relaxed);
        if connection == 0 || fuse::is_over(&handed.device).unwrap_or(true) {
            return;
        }
        let ended = match handed.device.try_clone() {
            Ok(device) => {
                let order = Order::Abort { connection };
                self.worker.ask_with(Some(device), &order, DETACH).await
            }
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(Answer::Aborted(true)) => {
                warn!("the files were still in use; whoever waits for them is told that they are gone")
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "who still waits for the files may hang"),
        }
    }
}
