//! A door's session whose leader falls silent, on a node that has no replica to ask instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::call::{Attributes, Caller, Error, Inode, Kind, PORTAL, Query, REGISTRY, Reply, Time};
use super::client::{Client, Way};
use super::door::Calls;
use super::network::Unreached;
use super::operation::Place;
use super::promise::{Heed, Recalls};
use super::request::{Request, Response};
use super::types::NodeId;
use crate::base::{BoxFuture, Scope};

const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};
const EPOCH: u64 = 7;
/// No step takes longer on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A leader that promises all it says, or says nothing.
#[derive(Default)]
struct Fickle {
    is_silent: AtomicBool,
    /// The next renewal finds the session ended.
    has_lost: AtomicBool,
}

impl Way for Fickle {
    fn leader(&self) -> watch::Receiver<Option<NodeId>> {
        watch::Sender::new(Some(1)).subscribe()
    }

    fn ask<'a>(
        &'a self,
        _node: NodeId,
        request: Request,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Response, Unreached>> {
        Box::pin(async move {
            if self.is_silent.load(Ordering::Acquire) {
                tokio::time::sleep(deadline).await;
                return Err(Unreached::Lost("no answer".into()));
            }
            Ok(match request {
                Request::Renew { .. } if self.has_lost.swap(false, Ordering::AcqRel) => {
                    Response::Answer(Err(Error::NoSession))
                }
                Request::Begin { .. } => Response::Answer(Ok(Reply::Begun { next: 1 })),
                Request::Query {
                    query: Query::Attributes { inode },
                    ..
                } => Response::Promised {
                    answer: Ok(Reply::Attributes(attributes(inode))),
                    epoch: EPOCH,
                },
                Request::Listen { .. } => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Response::Listened {
                        recalls: Recalls {
                            epoch: EPOCH,
                            ..Recalls::default()
                        },
                        lease: Duration::from_millis(400),
                    }
                }
                _ => Response::Answer(Ok(Reply::Done)),
            })
        })
    }
}

/// Hears nothing of recalls.
#[derive(Default)]
struct Deaf {
    /// How often it was told that a session has begun, and that one may be lost.
    begun: AtomicUsize,
    lost: AtomicUsize,
}

impl Heed for Deaf {
    fn begun(&self, has_nothing: bool) {
        assert!(has_nothing);
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    fn lost(&self) {
        self.lost.fetch_add(1, Ordering::AcqRel);
    }

    fn recalled<'a>(&'a self, _recalls: &'a Recalls) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Of some folder.
pub fn attributes(inode: Inode) -> Attributes {
    Attributes {
        inode,
        generation: 0,
        kind: Kind::Folder,
        mode: 0o755,
        links: 2,
        uid: 0,
        gid: 0,
        size: 0,
        used: 0,
        device: (0, 0),
        accessed: Time::default(),
        modified: Time::default(),
        changed: Time::default(),
    }
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_door_without_a_replica_answers_what_it_kept_when_nobody_leads() {
    let (way, scope) = (Arc::new(Fickle::default()), Scope::new());
    let door = Client::start_door(way.clone(), Place("n1/fuse".into()), &scope, Arc::new(Deaf::default()));
    door.go(false);
    let (known, unknown) = (
        Query::Attributes { inode: PORTAL },
        Query::Attributes { inode: REGISTRY },
    );
    let expected = Ok(Reply::Attributes(attributes(PORTAL)));
    eventually("it is kept", async || {
        assert_eq!(door.query(&CALLER, known.clone()).await, expected);
        door.recall(&CALLER, &known).is_some()
    })
    .await;
    way.is_silent.store(true, Ordering::Release);
    eventually("the lease is over", async || !door.lease()).await;
    assert_eq!(door.recall(&CALLER, &known), None);
    for _ in 0..3 {
        assert_eq!(door.query(&CALLER, known.clone()).await, expected);
    }
    assert_eq!(door.query(&CALLER, unknown.clone()).await, Err(Error::Unavailable));
    way.is_silent.store(false, Ordering::Release);
    eventually("it is led again", async || door.lease()).await;
    assert!(door.query(&CALLER, unknown).await.is_ok());
    scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_door_hears_when_what_it_holds_may_be_lost() {
    let (way, scope, told) = (Arc::new(Fickle::default()), Scope::new(), Arc::new(Deaf::default()));
    let door = Client::start_door(way.clone(), Place("n1/fuse".into()), &scope, told.clone());
    door.go(false);
    let told = || [&told.begun, &told.lost].map(|count| count.load(Ordering::Acquire));
    eventually("it has begun with nothing", async || told()[0] == 1).await;
    way.is_silent.store(true, Ordering::Release);
    eventually("it is cut off", async || told()[1] > 0).await;
    let cut_off = told()[1];
    // The leader goes on and knows nothing of it.
    way.has_lost.store(true, Ordering::Release);
    way.is_silent.store(false, Ordering::Release);
    eventually("it has begun anew", async || told()[0] == 2 && told()[1] > cut_off).await;
    scope.stop(Duration::ZERO).await;
}
