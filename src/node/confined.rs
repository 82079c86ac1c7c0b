//! A module that has locked itself in, and when it needs a successor: what it may open cannot grow, so another configuration, another
//! document root in the place of an old one, or what was installed since, is for another process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use crate::host::confine::{Confinement, Grounds, confine, is_shut};

pub struct Confined {
    grounds: Grounds,
    /// What of it could be read, or was not there.
    reachable: Vec<PathBuf>,
    how: Confinement,
    /// What may be mounted anew.
    roots: Arc<[PathBuf]>,
    is_outgrown: Arc<AtomicBool>,
    is_looking: Arc<AtomicBool>,
}

impl Confined {
    /// Locks this process in; before it has other threads.
    pub fn lock_in(grounds: Grounds, roots: Vec<PathBuf>) -> Self {
        let reachable = grounds.reachable();
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
            reachable,
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
            || (*wanted == self.grounds && !self.reachable.iter().any(|path| is_shut(path)));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_was_not_there_is_for_a_successor() {
        let folder = tempfile::tempdir().expect("temp dir");
        let (there, late) = (folder.path().join("there"), folder.path().join("late"));
        std::fs::create_dir(&there).expect("made");
        let grounds = Grounds::default().read(there).read(&late);
        let (say, heard) = mpsc::channel();
        let (made, is_made) = mpsc::channel::<()>();
        // It holds for one thread alone.
        let confined = move || {
            let confined = Confined::lock_in(grounds.clone(), Vec::new());
            let before = confined.takes(&grounds);
            say.send(()).expect("heard");
            is_made.recv().expect("said");
            let is_free = confined.how == Confinement::None;
            (before, is_free, confined.takes(&grounds), confined.take_outgrown())
        };
        let (before, is_free, after, is_outgrown) = std::thread::scope(|scope| {
            let confined = scope.spawn(confined);
            heard.recv().expect("said");
            std::fs::create_dir(&late).expect("made");
            made.send(()).expect("heard");
            confined.join().expect("no panic")
        });
        assert!(before);
        assert_eq!((after, is_outgrown), (is_free, !is_free));
    }
}
