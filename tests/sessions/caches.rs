//! Three machines whose caches are one, and what can be done to one of them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitrix_node::base::Scope;
use bitrix_node::cluster::{self, Snapshot};
use bitrix_node::net::listen;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;

use super::machine::{Machine, Place, Setting};
use crate::support::netns::Network;

const COUNT: u8 = 3;
/// Where PHP of a machine asks, in a namespace of its own.
const OWN: Ipv4Addr = Ipv4Addr::LOCALHOST;
const CACHE: u16 = 11211;
const PATIENCE: Duration = Duration::from_secs(30);

/// What serves the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    /// Each over a memcached of its own.
    OursBacked,
    /// In front of three memcacheds.
    Nutcracker,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Kill,
    Freeze,
    Cut,
    /// Of the memcached alone.
    ServerKill,
    ServerFreeze,
}

pub struct Caches {
    pub kind: Kind,
    pub machines: Vec<Machine>,
    network: Network,
    _views: Vec<watch::Sender<Arc<Snapshot>>>,
    agents: Scope,
    folder: Option<TempDir>,
}

impl Caches {
    /// Each machine in a namespace of its own.
    pub async fn apart(kind: Kind, setting: Setting) -> Self {
        let network = Network::new(COUNT);
        let places = (0..usize::from(COUNT)).map(|at| Place {
            namespace: network.host(at).descriptor(),
            address: network.host(at).address,
            cache: (OWN, CACHE).into(),
        });
        let places = places.collect();
        Self::start(kind, setting, network, places).await
    }

    /// All on the loopback of one namespace.
    pub async fn together(kind: Kind, setting: Setting) -> Self {
        let network = Network::new(1);
        let places = (1..=COUNT).map(|number| {
            let address = Ipv4Addr::new(127, 0, 0, number);
            Place {
                namespace: network.host(0).descriptor(),
                address,
                cache: (address, CACHE).into(),
            }
        });
        let places = places.collect();
        Self::start(kind, setting, network, places).await
    }

    async fn start(kind: Kind, setting: Setting, network: Network, places: Vec<Place>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = places.iter().map(|place| place.address).collect();
        let mut machines: Vec<Machine> = Vec::new();
        for (number, place) in (1..).zip(places) {
            let own = folder.path().join(format!("n{number}"));
            machines.push(match kind {
                Kind::Ours | Kind::OursBacked => {
                    let is_backed = kind == Kind::OursBacked;
                    Machine::ours(number, &own, place, setting, machines.first(), is_backed)
                }
                Kind::Nutcracker => Machine::nutcracker(number, &own, place, setting, &addresses),
            });
        }
        let (agents, mut views) = (Scope::new(), Vec::new());
        for machine in &machines {
            let snapshot = Snapshot {
                revision: 1,
                own: machine.name.clone(),
                nodes: machines.iter().map(Machine::member).collect(),
                ..Snapshot::default()
            };
            let (view, snapshots) = watch::channel(Arc::new(snapshot));
            let socket = listen::unix(&machine.folder.join("view.sock")).unwrap();
            cluster::publish(socket, snapshots, &agents).unwrap();
            views.push(view);
        }
        for machine in &mut machines {
            machine.start();
        }
        let caches = Caches {
            kind,
            machines,
            network,
            _views: views,
            agents,
            folder: Some(folder),
        };
        caches.until_whole().await;
        caches
    }

    /// Until each of the three serves: ours a part of the shards, nutcracker its clients.
    pub async fn until_whole(&self) {
        let start = Instant::now();
        let (request, last) = match self.kind {
            Kind::Ours | Kind::OursBacked => ("stats cluster", ["END", "ERROR"]),
            Kind::Nutcracker => ("get nothing", ["END", "SERVER_ERROR"]),
        };
        loop {
            let said: Vec<_> = self
                .machines
                .iter()
                .map(|machine| machine.ask(request, &last))
                .collect();
            let serves = |lines: &std::io::Result<Vec<String>>| {
                let lines = lines.as_deref().unwrap_or_default();
                let owned = lines.iter().filter_map(|line| line.split_once(":shards_owned "));
                match self.kind {
                    Kind::Ours | Kind::OursBacked => {
                        owned.filter(|(_, count)| *count != "0").count() == usize::from(COUNT)
                    }
                    Kind::Nutcracker => lines == ["END"],
                }
            };
            if said.iter().all(serves) {
                return;
            }
            if start.elapsed() > PATIENCE {
                panic!("the caches are not whole: {said:#?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Does it to one of them for so long.
    pub async fn harm(&mut self, fault: Fault, at: usize, length: Duration) {
        match fault {
            Fault::Kill => {
                self.machines[at].kill();
                sleep(length).await;
                self.machines[at].start();
            }
            Fault::Freeze => {
                self.machines[at].signal(Signal::SIGSTOP);
                sleep(length).await;
                self.machines[at].signal(Signal::SIGCONT);
            }
            Fault::ServerKill => {
                self.machines[at].kill_first();
                sleep(length).await;
                self.machines[at].start_first();
            }
            Fault::ServerFreeze => {
                self.machines[at].signal_first(Signal::SIGSTOP);
                sleep(length).await;
                self.machines[at].signal_first(Signal::SIGCONT);
            }
            Fault::Cut => {
                self.network.host(at).cut(true);
                sleep(length).await;
                self.network.host(at).cut(false);
            }
        }
    }
}

impl Drop for Caches {
    fn drop(&mut self) {
        self.agents.drain();
        let panicked = self
            .machines
            .iter()
            .any(|machine| machine.log().contains("panicked at"));
        if (std::thread::panicking() || panicked)
            && let Some(folder) = self.folder.take()
        {
            println!("the machines' files are kept in {}", folder.keep().display());
        }
        assert!(!panicked || std::thread::panicking(), "a cache panicked");
    }
}
