//! Three replicas in network namespaces: made, watched, and put back in order.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use bitrix_node::host::child;
use bitrix_node::storage::command::{Command, Report, Role};
use tempfile::TempDir;
use tokio::time::Instant;

use super::machine::Machine;
use crate::support::netns::{Host, Network};

/// No step takes longer on the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

pub struct Cluster {
    // Before the network: they run in it.
    pub machines: Vec<Machine>,
    network: Network,
    folder: Option<TempDir>,
    _reserved: Vec<OwnedFd>,
}

impl Cluster {
    /// Three voters in sync. `prepare` is called with each machine's empty folder before anything is in it.
    pub async fn start(prepare: impl Fn(usize, &Path)) -> Self {
        let reserved = child::reserve().unwrap();
        let folder = tempfile::Builder::new()
            .prefix("bitrix-node-storage-")
            .tempdir_in("/tmp")
            .unwrap();
        let network = Network::new(3);
        let mut machines: Vec<Machine> = Vec::new();
        for at in 0..3 {
            let own = folder.path().join(format!("n{}", at + 1));
            std::fs::create_dir_all(own.join("data")).unwrap();
            prepare(at, &own);
            machines.push(Machine::new(at + 1, &own, network.host(at), machines.first()));
        }
        machines.iter_mut().for_each(Machine::start);
        let cluster = Cluster {
            machines,
            network,
            folder: Some(folder),
            _reserved: reserved,
        };
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
            first.command::<()>(&add).await.unwrap();
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

    /// Who leads as most machines see it, and its term.
    pub async fn leader(&self) -> (usize, u64) {
        self.until("a leader", async || {
            for at in 0..self.machines.len() {
                let report = self.report(at).await;
                if let Some(report) = report.filter(|report| report.role == Role::Leader && report.copies >= 2) {
                    return Some((at, report.term));
                }
            }
            None
        })
        .await
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
