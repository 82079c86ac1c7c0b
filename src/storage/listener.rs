//! Keeps the lease of a session's answers: one `Listen` after the other with whoever leads, and what that recalls is forgotten
//! before it is confirmed, here and by those who were answered from here (`Heed`).
//!
//! A lease that has run out says nothing of what was kept: what was promised is still recalled when the leader is reached again in
//! time. But who was answered from here cannot wait for that, and hears that all is over; and again before the lease is in
//! force anew, for what it was answered in between nobody has promised.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::client::{RETRY_CAP, Way, other_than};
use super::operation::Session;
use super::promise::{Heed, Kept, Recalls};
use super::request::{Request, Response};
use super::types::NodeId;
use crate::base::{Scope, clock};

/// One `Listen`: the leader answers it within 150 ms.
const TRY: Duration = Duration::from_secs(1);

/// What is known of the lease, for those who were answered under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    InForce,
    /// All was heeded, but the lease was over by then. If the very next `Listen` succeeds, that need not be done again.
    Late,
    Over,
}

pub struct Listener {
    way: Arc<dyn Way>,
    kept: Arc<Mutex<Kept>>,
    heed: Option<Arc<dyn Heed>>,
    begun: watch::Receiver<Option<Session>>,
    scope: Scope,
    lease: Lease,
}

/// Why waiting has ended.
enum Woken {
    By(Option<(Recalls, Duration)>),
    Elsewhere,
    Lapsed,
    Draining,
}

impl Listener {
    pub fn new(
        way: Arc<dyn Way>,
        kept: Arc<Mutex<Kept>>,
        heed: Option<Arc<dyn Heed>>,
        begun: watch::Receiver<Option<Session>>,
        scope: Scope,
    ) -> Self {
        let lease = Lease::Over;
        Listener {
            way,
            kept,
            heed,
            begun,
            scope,
            lease,
        }
    }

    /// Until the scope drains.
    pub async fn run(mut self) {
        let mut leader = self.way.leader();
        while !self.scope.is_draining() {
            let node = *leader.borrow_and_update();
            let node = node.filter(|node| self.heed.is_some() || self.way.is_remote(*node));
            let session = *self.begun.borrow_and_update();
            let woken = match node.zip(session) {
                Some((node, session)) => self.listen((node, session), &mut leader).await,
                None => {
                    let (mut begun, lapsed) = (self.begun.clone(), self.lapsed());
                    tokio::select! {
                        Ok(()) = leader.changed() => Woken::Elsewhere,
                        Ok(()) = begun.changed() => Woken::Elsewhere,
                        () = lapsed => Woken::Lapsed,
                        () = self.scope.draining() => Woken::Draining,
                    }
                }
            };
            match woken {
                Woken::By(Some((recalls, until))) => self.listened(recalls, until).await,
                Woken::By(None) => self.pause(&mut leader).await,
                Woken::Lapsed => self.lapse().await,
                Woken::Elsewhere => {}
                Woken::Draining => return,
            }
        }
    }

    /// One `Listen`; what it recalls, and the end of the lease that it gives.
    async fn listen(&self, (node, session): (NodeId, Session), leader: &mut watch::Receiver<Option<NodeId>>) -> Woken {
        let (sent, (epoch, confirmed)) = (clock::boot(), self.kept().heard());
        let request = Request::Listen {
            session,
            epoch,
            confirmed,
        };
        let listened = tokio::select! {
            listened = self.way.ask(node, request, TRY) => listened,
            () = other_than(leader, node) => return Woken::Elsewhere,
            () = self.lapsed() => return Woken::Lapsed,
            () = self.scope.draining() => return Woken::Draining,
        };
        Woken::By(match listened {
            Ok(Response::Listened { recalls, lease }) if !lease.is_zero() => {
                self.kept().answered(clock::boot());
                Some((recalls, sent + lease))
            }
            _ => None,
        })
    }

    /// Before the next try.
    async fn pause(&mut self, leader: &mut watch::Receiver<Option<NodeId>>) {
        if self.lease == Lease::Late {
            self.lease = Lease::Over;
        }
        let is_lapsed = tokio::select! {
            () = tokio::time::sleep(RETRY_CAP) => false,
            Ok(()) = leader.changed() => false,
            () = self.lapsed() => true,
            () = self.scope.draining() => false,
        };
        if is_lapsed {
            self.lapse().await;
        }
    }

    /// What is recalled is forgotten; then the lease is longer, and the next `Listen` confirms.
    async fn listened(&mut self, mut recalls: Recalls, until: Duration) {
        {
            let mut kept = self.kept();
            recalls.all |= kept.heard().0 != recalls.epoch;
            kept.recall(&recalls);
        }
        if let Some(heed) = &self.heed {
            let mut told = recalls.clone();
            told.all |= self.lease == Lease::Over;
            heed.recalled(&told).await;
        }
        self.kept().listened(&recalls, until);
        self.lease = match clock::boot() < until {
            true => Lease::InForce,
            false => Lease::Late,
        };
    }

    /// Resolves when the lease that is in force has run out.
    async fn lapsed(&self) {
        let left = match self.heed {
            Some(_) if self.lease == Lease::InForce => self.kept().left(clock::boot()),
            _ => std::future::pending().await,
        };
        tokio::time::sleep(left).await;
    }

    async fn lapse(&mut self) {
        self.lease = Lease::Over;
        if let Some(heed) = &self.heed {
            heed.recalled(&Recalls::of_all()).await;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock panics")
    }
}
