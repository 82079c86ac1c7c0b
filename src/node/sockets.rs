//! Listening sockets: bound once by the supervisor, handed down by name. A module that dies loses no connection attempt,
//! because the kernel queues them here until its successor accepts. Ends of pairs with the supervisor go the same way.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use nix::sys::socket::sockopt::{self, AcceptConn};
use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt};
use socket2::SockRef;
use tracing::warn;

use crate::config::{Config, Engine, Port};
use crate::host::account::Account;
use crate::host::child::above_reserved;
use crate::net::listen;

/// Open sockets with their names.
#[derive(Default)]
pub struct Sockets {
    open: Vec<(&'static str, OwnedFd)>,
    /// Left by a predecessor and not yet taken; what nobody takes is closed.
    inherited: Vec<(String, OwnedFd)>,
}

impl Sockets {
    /// Binds everything that the configuration names and that was not `inherited`. Root does this before it starts anything.
    pub fn bind(config: &Config, user: &Account, inherited: Vec<(String, OwnedFd)>) -> anyhow::Result<Self> {
        let mut sockets = Sockets {
            open: Vec::new(),
            inherited,
        };
        sockets.tcp_list("http", "proxy.http", &config.proxy.http)?;
        sockets.tcp_list("https", "proxy.https", &config.proxy.https)?;
        sockets.unix("proxy-control", &config.proxy_control(), user)?;
        if config.proxy.http3 {
            sockets.udp_if_free("http3", "proxy.https", &config.proxy.https);
        }
        sockets.tcp("cache", "cache.listen", config.cache.listen)?;
        for address in &config.cache.composite {
            sockets.tcp("cache-composite", "cache.composite", *address)?;
        }
        sockets.tcp("push", "push.listen", config.push.listen)?;
        sockets.unix("push-unix", &config.push_socket(), user)?;
        sockets.unix("push-control", &config.push_control(), user)?;
        sockets.if_free("push-http", "proxy.push_http", &config.proxy.push_http);
        sockets.if_free("push-https", "proxy.push_https", &config.proxy.push_https);
        if !config.db.run || config.db.galera {
            sockets.tcp("db", "db.listen", config.db.listen)?;
        }
        let reads: Vec<SocketAddr> = config.db.reads().into_iter().collect();
        sockets.if_free("db-reads", "db.reads", &reads);
        sockets.tcp("admin", "admin.listen", config.admin.listen)?;
        if config.storage.engine == Engine::Replicated {
            sockets.tcp("nfs", "storage.listen", config.storage.listen)?;
            sockets.unix("nfs-unix", &config.nfs_socket(), user)?;
            sockets.unix("storage", &config.storage_socket(), user)?;
            if let Some(address) = config.storage_mesh() {
                sockets.tcp("storage-mesh", "cluster.address", address)?;
            }
        }
        for (name, module) in [
            ("agent-mesh", Port::Agent),
            ("cache-mesh", Port::Cache),
            ("push-mesh", Port::Push),
            ("proxy-mesh", Port::Proxy),
            ("db-mesh", Port::Db),
        ] {
            if let Some(address) = config.mesh(module) {
                sockets.tcp(name, "cluster.address", address)?;
            }
        }
        sockets.unix("view", &config.view_socket(), user)?;
        sockets.unix("control", &config.control_socket(), user)?;
        sockets.unix("feed", &config.feed_socket(), user)?;
        sockets.inherited.clear();
        Ok(sockets)
    }

    /// One end of a pair; the other one stays with the supervisor.
    pub fn add(&mut self, name: &'static str, end: &OwnedFd) -> io::Result<()> {
        self.open.push((name, above_reserved(end)?));
        Ok(())
    }

    /// The descriptors that a child shall get.
    pub fn named(&self, names: &[&str]) -> Vec<(String, RawFd)> {
        let wanted = self.open.iter().filter(|(name, _)| names.contains(name));
        wanted
            .map(|(name, descriptor)| (name.to_string(), descriptor.as_raw_fd()))
            .collect()
    }

    /// The same sockets once more, for the supervisor itself.
    pub fn copies(&self, names: &[&str]) -> io::Result<Vec<OwnedFd>> {
        let wanted = self.open.iter().filter(|(name, _)| names.contains(name));
        wanted.map(|(_, socket)| socket.try_clone()).collect()
    }

    /// Those that listen or take datagrams, for a successor. Ends of pairs are not among them.
    pub fn listening(&self) -> impl Iterator<Item = (&'static str, &OwnedFd)> {
        let listens = |socket: &OwnedFd| getsockopt(socket, AcceptConn).unwrap_or(false) || is_datagram(socket);
        let open = self.open.iter().filter(move |(_, socket)| listens(socket));
        open.map(|(name, socket)| (*name, socket))
    }

    /// The inherited socket of that name for which it holds.
    fn take(&mut self, name: &str, is_it: impl Fn(&SockaddrStorage) -> bool) -> Option<OwnedFd> {
        let found = self.inherited.iter().position(|(known, socket)| {
            let address = getsockname::<SockaddrStorage>(socket.as_raw_fd());
            known == name && address.is_ok_and(|address| is_it(&address))
        })?;
        let (_, socket) = self.inherited.swap_remove(found);
        // An address that was leaving meanwhile may have shut it; who it was does not know of that any more.
        let _ = SockRef::from(&socket).detach_filter();
        Some(socket)
    }

    /// A machine without IPv6 serves the other addresses.
    fn tcp_list(&mut self, name: &'static str, key: &str, addresses: &[SocketAddr]) -> anyhow::Result<()> {
        for address in addresses {
            match self.tcp(name, key, *address) {
                Err(error) if has_no_family(&error) && addresses.len() > 1 => {
                    warn!(%address, "not listening there: this machine has no such address family");
                }
                bound => bound?,
            }
        }
        anyhow::ensure!(
            addresses.is_empty() || self.open.iter().any(|(bound, _)| *bound == name),
            "none of {key} can be listened on; name an address of this machine"
        );
        Ok(())
    }

    /// Further addresses, without which the node is whole, too.
    fn if_free(&mut self, name: &'static str, key: &str, addresses: &[SocketAddr]) {
        for address in addresses {
            match self.tcp(name, key, *address) {
                Err(error) if has_no_family(&error) => {}
                Err(error) => warn!(error = format!("{error:#}"), "left out"),
                Ok(()) => {}
            }
        }
    }

    /// As `if_free`, beside the TCP listeners of these addresses.
    fn udp_if_free(&mut self, name: &'static str, key: &str, addresses: &[SocketAddr]) {
        for address in addresses {
            let kept = self.take(name, |bound| *bound == SockaddrStorage::from(*address));
            let bind = || listen::udp(*address).and_then(|socket| above_reserved(&socket));
            match kept.map_or_else(bind, Ok) {
                Ok(socket) => self.open.push((name, socket)),
                Err(error) => warn!(%address, %error, key, "no UDP socket there, so no HTTP/3"),
            }
        }
    }

    fn tcp(&mut self, name: &'static str, key: &str, address: SocketAddr) -> anyhow::Result<()> {
        if let Some(socket) = self.take(name, |bound| *bound == SockaddrStorage::from(address)) {
            self.open.push((name, socket));
            return Ok(());
        }
        let listener = listen::tcp(address).with_context(|| match address.port() {
            0 => format!("cannot listen on {key} {address}"),
            port => format!("cannot listen on {key} {address} (`ss -ltnp sport = :{port}` shows who holds the port)"),
        })?;
        self.open.push((name, above_reserved(&listener)?));
        Ok(())
    }

    fn unix(&mut self, name: &'static str, path: &Path, user: &Account) -> anyhow::Result<()> {
        let is_there = path.exists();
        let is_it = |bound: &SockaddrStorage| bound.as_unix_addr().is_some_and(|bound| bound.path() == Some(path));
        if let Some(socket) = self.take(name, is_it).filter(|_| is_there) {
            self.open.push((name, socket));
            return Ok(());
        }
        let bind = || -> io::Result<OwnedFd> {
            let listener = listen::unix(path)?;
            // Root, and the modules through their group. Set before the first accept; until then nobody answers.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            std::os::unix::fs::chown(path, None, Some(user.gid))?;
            above_reserved(&listener)
        };
        self.open.push((
            name,
            bind().with_context(|| format!("cannot listen on {}", path.display()))?,
        ));
        Ok(())
    }
}

fn is_datagram(socket: &OwnedFd) -> bool {
    matches!(getsockopt(socket, sockopt::SockType), Ok(SockType::Datagram))
}

fn has_no_family(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    matches!(code, Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL))
}
