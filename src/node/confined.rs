//! A module that has locked itself in, and when it needs a successor: what it may open cannot grow, so another configuration, or another
//! document root in the place of an old one, is for another process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use crate::host::confine::{Confinement, Grounds, confine, is_shut};

pub struct Confined {
    grounds: Grounds,
    /// What of it could be read.
    readable: Vec<PathBuf>,
    how: Confinement,
    /// What may be mounted anew.
    roots: Arc<[PathBuf]>,
    is_outgrown: Arc<AtomicBool>,
    is_looking: Arc<AtomicBool>,
}

impl Confined {
    /// Locks this process in; before it has other threads.
    pub fn lock_in(grounds: Grounds, roots: Vec<PathBuf>) -> Self {
        let readable = grounds.readable();
        let how = match confine(&grounds) {
            Ok(how) => how,
            Err(error) => {
                warn!(%error, "not locked in");
                Confinement::None
            }
        };
        match how {
            Confinement::Full => info!("locked in: it opens its own files and no others"),
            Confinement::Partial => info!("locked in, as far as this kernel can"),
            Confinement::None => warn!("not locked in: no Landlock is to be had here; the rights of its user hold it"),
        }
        Confined {
            grounds,
            readable,
            how,
            roots: roots.into(),
            is_outgrown: Arc::default(),
            is_looking: Arc::default(),
        }
    }

    /// What `status` adds.
    pub fn remark(&self) -> Option<&'static str> {
        match self.how {
            Confinement::Full => None,
            Confinement::Partial => Some("locked in as far as this kernel can"),
            Confinement::None => Some("not locked in"),
        }
    }

    /// Whether another configuration can be taken up here. If not, a successor is needed.
    pub fn takes(&self, wanted: &Grounds) -> bool {
        let is_enough = self.how == Confinement::None
            || (*wanted == self.grounds && !self.readable.iter().any(|path| is_shut(path)));
        if !is_enough {
            self.is_outgrown.store(true, Ordering::Relaxed);
        }
        is_enough
    }

    /// Looks, beside other work, whether a document root is another one than it was. One that hangs is waited for.
    pub fn look(&self) {
        if self.how == Confinement::None || self.is_looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let (roots, is_outgrown, is_looking) = (self.roots.clone(), self.is_outgrown.clone(), self.is_looking.clone());
        tokio::task::spawn_blocking(move || {
            if roots.iter().any(|root| is_shut(root)) {
                is_outgrown.store(true, Ordering::Relaxed);
            }
            is_looking.store(false, Ordering::Relaxed);
        });
    }

    /// Whether a successor is needed; said once.
    pub fn take_outgrown(&self) -> bool {
        self.is_outgrown.swap(false, Ordering::Relaxed)
    }
}
