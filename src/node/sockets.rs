//! Listening sockets: bound once by the supervisor, handed down by name. A module that dies loses no connection attempt,
//! because the kernel queues them here until its successor accepts. Ends of pairs with the supervisor go the same way.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use tracing::warn;

use crate::config::{Config, Engine, Port};
use crate::host::account::Account;
use crate::host::child::above_reserved;
use crate::net::listen;

/// Open sockets with their names.
pub struct Sockets(Vec<(&'static str, OwnedFd)>);

impl Sockets {
    /// Binds everything that the configuration names. Root does this before it starts anything.
    pub fn bind(config: &Config, user: &Account) -> anyhow::Result<Self> {
        let mut sockets = Sockets(Vec::new());
        sockets.tcp_list("http", "proxy.http", &config.proxy.http)?;
        sockets.tcp_list("https", "proxy.https", &config.proxy.https)?;
        sockets.tcp("cache", "cache.listen", config.cache.listen)?;
        for address in &config.cache.composite {
            sockets.tcp("cache-composite", "cache.composite", *address)?;
        }
        if !config.db.run {
            sockets.tcp("db", "db.listen", config.db.listen)?;
        }
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
        Ok(sockets)
    }

    /// One end of a pair; the other one stays with the supervisor.
    pub fn add(&mut self, name: &'static str, end: &OwnedFd) -> io::Result<()> {
        self.0.push((name, above_reserved(end)?));
        Ok(())
    }

    /// The descriptors that a child shall get.
    pub fn named(&self, names: &[&str]) -> Vec<(String, RawFd)> {
        let wanted = self.0.iter().filter(|(name, _)| names.contains(name));
        wanted
            .map(|(name, descriptor)| (name.to_string(), descriptor.as_raw_fd()))
            .collect()
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
            addresses.is_empty() || self.0.iter().any(|(bound, _)| *bound == name),
            "none of {key} can be listened on; name an address of this machine"
        );
        Ok(())
    }

    fn tcp(&mut self, name: &'static str, key: &str, address: SocketAddr) -> anyhow::Result<()> {
        let listener = listen::tcp(address).with_context(|| match address.port() {
            0 => format!("cannot listen on {key} {address}"),
            port => format!("cannot listen on {key} {address} (`ss -ltnp sport = :{port}` shows who holds the port)"),
        })?;
        self.0.push((name, above_reserved(&listener)?));
        Ok(())
    }

    fn unix(&mut self, name: &'static str, path: &Path, user: &Account) -> anyhow::Result<()> {
        let bind = || -> io::Result<OwnedFd> {
            let listener = listen::unix(path)?;
            // Root, and the modules through their group. Set before the first accept; until then nobody answers.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            std::os::unix::fs::chown(path, None, Some(user.gid))?;
            above_reserved(&listener)
        };
        self.0.push((
            name,
            bind().with_context(|| format!("cannot listen on {}", path.display()))?,
        ));
        Ok(())
    }
}

fn has_no_family(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    matches!(code, Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL))
}
