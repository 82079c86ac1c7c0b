//! Recalls of the leader, passed on to the kernel.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::door::Door;
use crate::base::clock;
use crate::storage::call::{Inode, Mutation, Query};
use crate::storage::promise::Recalls;

/// How long a recall waits for the kernel to forget: a folder or a page may be locked by a call that waits for the same leader.
const FORGET: Duration = Duration::from_millis(50);
/// Between two looks at a file that is open here and was not promised.
const LOOK: Duration = Duration::from_millis(100);

impl Door {
    /// What was promised is true no longer. Returns when the kernel has forgotten it, or will soon.
    pub async fn recalled(self: &Arc<Self>, recalls: &Recalls) {
        let (mut inodes, mut told) = (recalls.inodes.clone(), Vec::new());
        if recalls.all {
            self.pages.forget_all();
            inodes.extend(self.opens.all());
            told = self.told.take(clock::boot());
        }
        inodes.iter().for_each(|inode| self.notifier.attributes(*inode));
        recalls.locks.iter().for_each(|inode| self.locks.look_again(*inode));
        // All are on their way before any is waited for.
        let looks: Vec<_> = inodes.into_iter().filter_map(|inode| self.look(inode)).collect();
        let forgotten = async {
            if recalls.all || !recalls.names.is_empty() {
                self.notifier.names(&recalls.names, &told).await;
            }
            for look in looks {
                let _ = look.await;
            }
        };
        let _ = tokio::time::timeout(FORGET, forgotten).await;
    }

    /// A file changed of which the kernel may have pages, or which is open here. Resolves, by an error too, when no page of an older
    /// version is left.
    fn look(self: &Arc<Self>, inode: Inode) -> Option<oneshot::Receiver<()>> {
        if !self.opens.is_open(inode) && !self.pages.is_known(inode) {
            return None;
        }
        let (door, (sender, seen)) = (self.clone(), oneshot::channel());
        self.scope.spawn(async move { door.follow(inode, sender).await });
        Some(seen)
    }

    /// Pages of an older version go, the leader hears of an open file that has no name any more, and promises again to say what
    /// becomes of it.
    async fn follow(&self, inode: Inode, seen: oneshot::Sender<()>) {
        let mut seen = Some(seen);
        loop {
            let Ok(attributes) = self.ask.attributes(inode).await else {
                return;
            };
            if self.pages.are_old(&attributes) {
                self.notifier.pages(inode).await;
                self.pages.are(&attributes);
            }
            drop(seen.take());
            if attributes.links == 0 && self.opens.tell(inode) {
                self.hold(inode).await;
            }
            let is_promised = self.ask.recall(&Query::Attributes { inode }).is_some();
            if is_promised || attributes.links == 0 || !self.opens.is_open(inode) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The leader keeps an inode without a name while it is open here.
    async fn hold(&self, inode: Inode) {
        let _ = self.ask.change(self.ask.fresh(), Mutation::Open { inode }).await;
        if !self.opens.is_open(inode) {
            // It was closed meanwhile, and the leader may have heard of that first.
            let _ = self.ask.change(self.ask.fresh(), Mutation::Close { inode }).await;
        }
    }
}
