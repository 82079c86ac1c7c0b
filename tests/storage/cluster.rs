//! Three replicas in network namespaces: made, watched, and put back in order.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use bitrix_node::host::child;
use bitrix_node::storage::command::{Command, Report, Role};
use tempfile::TempDir;
use tokio::time::Instant;

use super::disk::{self, Disk};
use super::machine::Machine;
use crate::support::netns::{Host, Network};

/// No step takes longer on the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

const PREFIX: &str = "bitrix-node-storage-";

pub struct Cluster {
    // In this order: they run in the network and on the disks, and these are in the folder.
    pub machines: Vec<Machine>,
    pub disks: Vec<Disk>,
    network: Network,
    folder: Option<TempDir>,
    _reserved: Vec<OwnedFd>,
}

impl Cluster {
    /// Three voters in sync; each on a disk of so many megabytes if that is given.
    pub async fn start(megabytes: Option<u64>) -> Self {
        disk::sweep(PREFIX);
        let reserved = child::reserve().unwrap();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in("/tmp").unwrap();
        let mut cluster = Cluster {
            machines: Vec::new(),
            disks: Vec::new(),
            network: Network::new(3),
            folder: Some(folder),
            _reserved: reserved,
        };
        for at in 0..3 {
            let own = cluster.path().join(format!("n{}", at + 1));
            std::fs::create_dir_all(own.join("data")).unwrap();
            cluster
                .disks
                .extend(megabytes.map(|size| Disk::mount(&own.join("data"), size)));
            let machine = Machine::new(at + 1, &own, cluster.host(at), cluster.machines.first());
            cluster.machines.push(machine);
        }
        cluster.machines.iter_mut().for_each(Machine::start);
        cluster.join().await;
        cluster
    }

    async fn join(&self) {
        let first = &self.machines[0];
        self.until("the first leads", async || {
            self.report(0).await.filter(|report| report.role == Role::Leader)
        })
        .await;
        for at in 1..3 {
            let waits = async || self.report(at).await.filter(|report| report.role == Role::Waiting);
            self.until("the others wait", waits).await;
            let add = Command::Add {
                name: self.machines[at].name.clone(),
                address: self.machines[at].address.clone(),
                witness: false,
            };
            first.command::<()>(&add, PATIENCE).await.unwrap();
        }
        self.whole().await;
    }

    pub fn host(&self, at: usize) -> &Host {
        self.network.host(at)
    }

    /// The sockets of a machine are opened again after its power came back.
    pub fn reopen(&mut self, at: usize) {
        let host = self.network.host(at);
        self.machines[at].open(host);
    }

    pub async fn report(&self, at: usize) -> Option<Report> {
        self.machines[at].report().await
    }

    /// Waits until all three vote, are in sync and know the same leader; its place and term.
    pub async fn whole(&self) -> (usize, u64) {
        self.until("three copies in sync", async || {
            let mut leaders = Vec::new();
            for at in 0..3 {
                let report = self.report(at).await?;
                let in_sync = report
                    .members
                    .iter()
                    .filter(|member| member.votes && member.in_sync)
                    .count();
                if report.copies < 3 || in_sync < 3 {
                    return None;
                }
                leaders.push((report.leader?, report.term));
            }
            let (leader, term) = leaders.first()?.clone();
            let is_agreed = leaders.iter().all(|other| *other == (leader.clone(), term));
            let at = self.machines.iter().position(|machine| machine.name == leader)?;
            is_agreed.then_some((at, term))
        })
        .await
    }

    /// Looks until there is something to see.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            if start.elapsed() > PATIENCE {
                let mut reports = Vec::new();
                for at in 0..3 {
                    reports.push(self.report(at).await);
                }
                panic!("never: {what}: {reports:#?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.as_ref().expect("kept until the end").path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not asked for by a failed test: a replica that panics instead of failing in order.
        let panicked: Vec<_> = self
            .machines
            .iter()
            .filter(|machine| machine.log().contains("panicked at"))
            .collect();
        let names: Vec<_> = panicked.iter().map(|machine| machine.name.clone()).collect();
        if (std::thread::panicking() || !names.is_empty())
            && let Some(folder) = self.folder.take()
        {
            println!("the machines' files are kept in {}", folder.keep().display());
        }
        assert!(names.is_empty() || std::thread::panicking(), "{names:?} panicked");
    }
}
