//! The kernel's requests as calls: who asks, under which number, and patience without end. Whoever asked is interrupted by its own
//! signals; until then a leader is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::wire::abi::RESENT;
use crate::storage::call::{Attributes, Caller, Error, Inode, Mutation, Query, Reply};
use crate::storage::door::{Calls, RequestKey};

/// The kernel has checked permissions by what it was told of modes and owners; what is asked here is allowed.
const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

/// Without a leader a call takes its time itself; when this process ends it does not.
const AGAIN: Duration = Duration::from_millis(10);

/// Clones ask for the same mount.
#[derive(Clone)]
pub struct Asker {
    calls: Arc<dyn Calls>,
    mount: u64,
    /// Of changes that no request of the kernel stands for. Starts anywhere, so that processes have numbers of their own.
    fresh: Arc<AtomicU64>,
}

/// A change's own number, however often it is asked, and by whichever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The kernel's.
    pub unique: u64,
    /// Of several changes for one request.
    pub step: u32,
}

/// Stands in `step` for changes of the door's own.
const OWN: u32 = u32::MAX;

impl Number {
    /// Of a request, which may have been handed out before.
    pub fn of(unique: u64) -> Self {
        Number::step(unique, 0)
    }

    pub fn step(unique: u64, step: u32) -> Self {
        Number {
            unique: unique & !RESENT,
            step,
        }
    }
}

impl Asker {
    pub fn new(calls: Arc<dyn Calls>, mount: u64) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel gives random bytes");
        Asker {
            calls,
            mount,
            fresh: Arc::new(AtomicU64::new(u64::from_ne_bytes(random) >> 1)),
        }
    }

    /// A number for a change of the door's own.
    pub fn fresh(&self) -> Number {
        Number {
            unique: self.fresh.fetch_add(1, Ordering::Relaxed),
            step: OWN,
        }
    }

    /// The answer, if it was promised and is kept here.
    pub fn recall(&self, query: &Query) -> Option<Result<Reply, Error>> {
        self.calls.recall(&ROOT, query)
    }

    pub async fn query(&self, query: Query) -> Result<Reply, Error> {
        if let Some(answer) = self.recall(&query) {
            return answer;
        }
        loop {
            match self.calls.query(&ROOT, query.clone()).await {
                Err(Error::Unavailable) => tokio::time::sleep(AGAIN).await,
                answer => return answer,
            }
        }
    }

    /// For an owner of the group `gid`, which new things have unless their folder gives them another.
    pub async fn change_in(&self, gid: u32, number: Number, mutation: Mutation) -> Result<Reply, Error> {
        let caller = Caller { gid, ..ROOT };
        let key = RequestKey {
            client: self.mount,
            xid: number.step,
            checksum: number.unique,
        };
        loop {
            match self.calls.mutate(&caller, key, mutation.clone()).await {
                Err(Error::Unavailable) => tokio::time::sleep(AGAIN).await,
                answer => return answer,
            }
        }
    }

    pub async fn change(&self, number: Number, mutation: Mutation) -> Result<Reply, Error> {
        self.change_in(ROOT.gid, number, mutation).await
    }

    pub async fn attributes(&self, inode: Inode) -> Result<Attributes, Error> {
        match self.query(Query::Attributes { inode }).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            _ => Err(Error::Io),
        }
    }
}
