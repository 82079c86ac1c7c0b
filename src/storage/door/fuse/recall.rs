//! Recalls of the leader, passed on to the kernel.

use std::sync::Arc;
use std::time::Duration;

use super::door::Door;
use crate::storage::call::{Inode, Mutation, Query};
use crate::storage::promise::Recalls;

/// How long a recall waits for the kernel to forget a name: its folder may be locked by a call that waits for the same leader.
const FORGET: Duration = Duration::from_millis(50);
/// Between two looks at a file that is open here and was not promised.
const LOOK: Duration = Duration::from_millis(100);

impl Door {
    /// What was promised is true no longer. Returns when the kernel has forgotten it, or will soon.
    pub async fn recalled(self: &Arc<Self>, recalls: &Recalls) {
        for inode in &recalls.inodes {
            self.notifier.attributes(*inode);
            self.look(*inode);
        }
        if recalls.all {
            self.pages.forget_all();
            self.opens.all().into_iter().for_each(|inode| self.look(inode));
        }
        for inode in &recalls.locks {
            self.locks.look_again(*inode);
        }
        let forgotten = async {
            for (folder, name) in &recalls.names {
                self.notifier.name(*folder, name).await;
            }
        };
        let _ = tokio::time::timeout(FORGET, forgotten).await;
    }

    /// A file changed of which the kernel may have pages, or which is open here: pages of an older version go, the leader hears of an
    /// open file that has no name any more, and promises again to say what becomes of it.
    fn look(self: &Arc<Self>, inode: Inode) {
        if !self.opens.is_open(inode) && !self.pages.is_known(inode) {
            return;
        }
        let door = self.clone();
        self.scope.spawn(async move {
            loop {
                let Ok(attributes) = door.ask.attributes(inode).await else {
                    return;
                };
                if door.pages.are_old(&attributes) {
                    door.notifier.pages(inode).await;
                    door.pages.are(&attributes);
                }
                if attributes.links == 0 && door.opens.tell(inode) {
                    let _ = door.ask.change(door.ask.fresh(), Mutation::Open { inode }).await;
                    if !door.opens.is_open(inode) {
                        // It was closed meanwhile, and the leader may have heard of that first.
                        let _ = door.ask.change(door.ask.fresh(), Mutation::Close { inode }).await;
                    }
                }
                let is_promised = door.ask.recall(&Query::Attributes { inode }).is_some();
                if is_promised || attributes.links == 0 || !door.opens.is_open(inode) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }
}
