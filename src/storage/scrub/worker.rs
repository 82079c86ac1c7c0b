//! The worker: units of files, one after the other, with rests.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::judge::{Verdict, judge};
use super::{Counts, Replicas, UNIT_BYTES, UNIT_FILES};
use crate::base::Scope;
use crate::storage::call::Inode;
use crate::storage::replica::blocking;
use crate::storage::state::disk::Disk;
use crate::storage::state::{Checked, Failure, Machine, Shared};
use crate::storage::types::NodeId;

#[derive(Default)]
struct Counters {
    passes: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    mended: AtomicU64,
    unmended: AtomicU64,
    undecided: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// The scrub of one replica.
pub struct Scrub {
    pub(super) machine: Shared,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) replicas: Arc<dyn Replicas>,
    counters: Counters,
    start: Notify,
}

impl Scrub {
    pub fn new(machine: Shared, disk: Arc<dyn Disk>, replicas: Arc<dyn Replicas>) -> Self {
        Scrub {
            machine,
            disk,
            replicas,
            counters: Counters::default(),
            start: Notify::new(),
        }
    }

    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            passes: read(&self.counters.passes),
            files: read(&self.counters.files),
            bytes: read(&self.counters.bytes),
            mended: read(&self.counters.mended),
            unmended: read(&self.counters.unmended),
            undecided: read(&self.counters.undecided),
        }
    }

    /// Begins the next pass now.
    pub fn start_now(&self) {
        self.start.notify_one();
    }

    /// A pass every so often, until the scope drains.
    pub async fn run(&self, every: Duration, scope: Scope) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.start.notified() => {}
                () = scope.draining() => return,
            }
            tokio::select! {
                passed = self.pass() => if let Err(error) = passed {
                    tracing::warn!(%error, "the scrub stopped early; the next pass begins anew");
                },
                () = scope.draining() => return,
            }
        }
    }

    /// Every file once, with rests, and at the end the mirror if it is known to be broken.
    async fn pass(&self) -> io::Result<()> {
        let mut after = Inode(0);
        loop {
            let began = Instant::now();
            match self.unit(after).await? {
                Some(next) => after = next,
                None => break,
            }
            tokio::time::sleep(began.elapsed()).await;
        }
        let machine = self.machine.get();
        blocking(move || machine.mend_tree().map_err(io::Error::other)).await?;
        add(&self.counters.passes, 1);
        Ok(())
    }

    /// Looks at some files after `after`; returns the last of them, `None` at the end.
    pub async fn unit(&self, after: Inode) -> io::Result<Option<Inode>> {
        let machine = self.machine.get();
        let (own, last) = blocking(move || read(&machine, after).map_err(io::Error::other)).await?;
        let inodes: Vec<Inode> = own.iter().map(|checked| checked.fact.inode).collect();
        let others = self.ask(&inodes).await;
        for own in &own {
            add(&self.counters.files, 1);
            add(&self.counters.bytes, own.found);
            let of_same = others
                .iter()
                .filter_map(|(node, all)| Some((*node, *all.get(&own.fact.inode)?)));
            self.act(own, judge(own, &of_same.collect())).await?;
        }
        Ok(last)
    }

    /// By replica, what it says. One that does not answer says nothing.
    async fn ask(&self, inodes: &[Inode]) -> BTreeMap<NodeId, BTreeMap<Inode, Checked>> {
        let mut said = BTreeMap::new();
        if inodes.is_empty() {
            return said;
        }
        let nodes = self.replicas.others();
        let asked = nodes.iter().map(|node| self.replicas.checksums(*node, inodes.to_vec()));
        let answers = futures_util::future::join_all(asked).await;
        for (node, answer) in nodes.into_iter().zip(answers) {
            match answer {
                Ok(all) => {
                    let by_inode = all.into_iter().map(|checked| (checked.fact.inode, checked));
                    said.insert(node, by_inode.collect());
                }
                Err(error) => tracing::debug!(node, %error, "a replica gave no checksums"),
            }
        }
        said
    }

    async fn act(&self, own: &Checked, verdict: Verdict) -> io::Result<()> {
        let inode = own.fact.inode.0;
        match verdict {
            Verdict::Good | Verdict::Alone => {}
            Verdict::Others(nodes) => tracing::warn!(inode, ?nodes, "other replicas have a wrong content"),
            Verdict::Undecided => {
                tracing::error!(
                    inode,
                    "replicas have different contents of a file, and none can be told right"
                );
                add(&self.counters.undecided, 1);
            }
            Verdict::Mend { right, from } => {
                let is_mended = match self.mend(&own.fact, right, &from).await {
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
                    // What the disk says of one content must not keep the scrub from those behind it.
                    Err(error) => {
                        tracing::error!(inode, %error, "a wrong content could not be exchanged");
                        false
                    }
                    Ok(is_mended) => is_mended,
                };
                tracing::warn!(inode, is_mended, "a wrong content was found on this replica");
                let counter = if is_mended {
                    &self.counters.mended
                } else {
                    &self.counters.unmended
                };
                add(counter, 1);
            }
        }
        Ok(())
    }
}

/// Reads a unit's files: what they have, and the last one looked at.
fn read(machine: &Machine, after: Inode) -> Result<(Vec<Checked>, Option<Inode>), Failure> {
    let (mut own, mut last, mut bytes) = (Vec::new(), None, 0);
    for fact in machine.manifest(after, UNIT_FILES)? {
        if bytes > UNIT_BYTES {
            break;
        }
        own.extend(machine.verify(fact.inode)?);
        bytes += fact.size;
        last = Some(fact.inode);
    }
    Ok((own, last))
}
