//! The new executable's side: takes up what its predecessor left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use tracing::{info, warn};

use super::estate::{Estate, Found, Pair, Running};
use crate::base::Scope;
use crate::config;
use crate::host::child::Child;
use crate::host::inheritance::{self, VARIABLE};
use crate::host::mount::{Handed, Pipe, fuse};
use crate::host::process;
use crate::node::mount;
use crate::node::succession::Inherited;
use crate::node::upgrade::Guard;

/// What there is to go on with; empty after an ordinary start.
#[derive(Default)]
pub struct Inheritance {
    /// Version of the predecessor; `None`: there was none.
    pub version: Option<String>,
    pub lock: Option<File>,
    /// Of the change.
    pub guard: Option<Guard>,
    pub sockets: Vec<(String, OwnedFd)>,
    pub pairs: BTreeMap<String, (OwnedFd, OwnedFd)>,
    /// Of one name the newest is the last.
    pub children: BTreeMap<String, Vec<Inherited>>,
    mount: Option<(Handed, u32)>,
}

/// Must be called before this process starts anything, inside a runtime.
pub fn inherit(scope: &Scope) -> Inheritance {
    let Some(number) = config::var(VARIABLE) else {
        return Inheritance::default();
    };
    let taken = inheritance::text(&number).and_then(|text| match Estate::parse(&text)? {
        Found::Known(estate) => Inheritance::take(*estate),
        Found::Foreign { format, open } => {
            // Closed, they are free for an ordinary start.
            drop(open.into_iter().map(inheritance::take).collect::<Vec<_>>());
            Err(io::Error::other(format!("its format {format} is not known")))
        }
    });
    match taken {
        Ok(inheritance) => {
            inheritance.reap_strangers(scope);
            info!(
                from = inheritance.version,
                "goes on with what the executable before this one left"
            );
            inheritance
        }
        Err(error) => {
            warn!(%error, "what the executable before this one left is not used");
            Inheritance::default()
        }
    }
}

impl Inheritance {
    pub fn is_there(&self) -> bool {
        self.version.is_some()
    }

    /// The mount that goes on, with the pair that leads to its storage.
    pub fn mount(&mut self) -> Option<mount::Inherited> {
        let (ours, theirs) = self.pairs.remove("fuse")?;
        let mount = self.mount.take();
        Some(mount::Inherited { ours, theirs, mount })
    }

    fn take(estate: Estate) -> io::Result<Self> {
        let take = inheritance::take;
        let mut inheritance = Inheritance {
            version: Some(estate.version),
            lock: estate.lock.map(take).transpose()?.map(File::from),
            guard: estate.guard.map(take).transpose()?.map(Guard::inherited),
            ..Inheritance::default()
        };
        for socket in estate.sockets {
            inheritance.sockets.push((socket.name, take(socket.descriptor)?));
        }
        for Pair { name, ours, theirs } in estate.pairs {
            inheritance.pairs.insert(name, (take(ours)?, take(theirs)?));
        }
        if let Some(mount) = estate.mount {
            let pipes = mount
                .pipes
                .iter()
                .map(|[out, into]| Ok(Pipe::of(take(*out)?, take(*into)?)));
            let handed = Handed {
                device: take(mount.device)?,
                memory: take(mount.memory)?,
                pipes: match mount.pipes.is_empty() {
                    true => fuse::pipes(),
                    false => pipes.collect::<io::Result<_>>()?,
                },
                mount: mount.number,
            };
            inheritance.mount = Some((handed, mount.connection));
        }
        for child in estate.children {
            let name = child.name.clone();
            inheritance.children.entry(name).or_default().push(adopt(child)?);
        }
        Ok(inheritance)
    }

    /// Whatever else the predecessor had started ends by itself, and somebody must wait for it.
    fn reap_strangers(&self, scope: &Scope) {
        let known: Vec<u32> = self.children.values().flatten().map(|child| child.child.pid).collect();
        for pid in process::unreaped().into_iter().filter(|pid| !known.contains(pid)) {
            if let Ok(stranger) = Child::adopt(pid, None, None) {
                scope.spawn(stranger.outlive());
            }
        }
    }
}

fn adopt(child: Running) -> io::Result<Inherited> {
    let take = inheritance::take;
    Ok(Inherited {
        child: Child::adopt(
            child.pid,
            child.output.map(take).transpose()?,
            child.errors.map(take).transpose()?,
        )?,
        is_ready: child.is_ready,
        restarts: child.restarts,
    })
}
