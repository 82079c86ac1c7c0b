//! Places that follow from the configuration: one function per place, so that nobody spells a path twice.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Config, GALERA, Mount, Port};

impl Config {
    pub fn portal_root(&self) -> PathBuf {
        match self.storage.mount() {
            _ if !self.portal.root.as_os_str().is_empty() => self.portal.root.clone(),
            // A folder of its own: the root of the files is not PHP's, and an installation needs room beside the document root.
            Mount::Kernel | Mount::Fuse => self.mount_point().join("portal"),
            Mount::None => self.node.data_dir.join("portal"),
        }
    }

    /// Generated passwords and tokens, readable by root and, where named so, by one user.
    pub fn secrets(&self) -> PathBuf {
        self.node.data_dir.join("secrets")
    }

    /// The key of the backups, for root alone.
    pub fn backup_key(&self) -> PathBuf {
        self.secrets().join("backup.key")
    }

    /// Held by whoever makes a backup on this node.
    pub fn backup_lock(&self) -> PathBuf {
        self.node.data_dir.join("backup.lock")
    }

    /// It is there while a backup has MariaDB here step aside. Gone with a boot, as that is.
    pub fn backup_aside(&self) -> PathBuf {
        self.node.run_dir.join("backup.aside")
    }

    /// Which backup was put onto this node, while its files are missing.
    pub fn restored(&self) -> PathBuf {
        self.node.data_dir.join("restored.json")
    }

    /// PEM chain and key that the front serves with.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        if self.proxy.certificate.as_os_str().is_empty() {
            let folder = self.node.data_dir.join("tls");
            (folder.join("portal.crt"), folder.join("portal.key"))
        } else {
            (self.proxy.certificate.clone(), self.proxy.key.clone())
        }
    }

    /// Commands and numbers of the agent, for root and the module user.
    pub fn control_socket(&self) -> PathBuf {
        self.node.run_dir.join("control.sock")
    }

    /// Status of the modules, to the agent.
    pub fn feed_socket(&self) -> PathBuf {
        self.node.run_dir.join("feed.sock")
    }

    /// What the agent knows of the cluster, for root and the module user.
    pub fn view_socket(&self) -> PathBuf {
        self.node.run_dir.join("view.sock")
    }

    /// The storage's NFS door for root and the module user, the registry's tree included.
    pub fn nfs_socket(&self) -> PathBuf {
        self.node.run_dir.join("nfs.sock")
    }

    /// Calls and commands of the storage module, for root and the module user.
    pub fn storage_socket(&self) -> PathBuf {
        self.node.run_dir.join("storage.sock")
    }

    /// Questions of an operator to the front.
    pub fn proxy_control(&self) -> PathBuf {
        self.node.run_dir.join("proxy-control.sock")
    }

    /// The push server's door for clients, to which the front leads.
    pub fn push_socket(&self) -> PathBuf {
        self.node.run_dir.join("push.sock")
    }

    /// Questions of an operator to the push server.
    pub fn push_control(&self) -> PathBuf {
        self.node.run_dir.join("push-control.sock")
    }

    /// What the portal signs channels with, and the push server checks.
    pub fn push_key(&self) -> PathBuf {
        self.secrets().join("push.key")
    }

    /// Ports that something of this node listens on, or may.
    pub fn ports(&self) -> BTreeSet<u16> {
        let (proxy, cache, db) = (&self.proxy, &self.cache, &self.db);
        let lists = [
            &proxy.http,
            &proxy.https,
            &proxy.push_http,
            &proxy.push_https,
            &cache.composite,
        ];
        let single = [
            cache.listen,
            db.listen,
            self.push.listen,
            self.admin.listen,
            self.storage.listen,
        ];
        let lists = lists.into_iter().flatten().copied();
        let addresses = lists.chain(single).chain(db.reads()).chain(cache.backend());
        let mesh = Port::ALL.into_iter().filter_map(|module| self.mesh(module));
        let galera = GALERA.into_iter().filter(|_| db.galera || !db.arbiter.is_empty());
        let ports = addresses.chain(mesh).map(|address| address.port()).chain(galera);
        // 0: the kernel picks one.
        ports.filter(|port| *port > 0).collect()
    }

    /// Where other nodes reach the storage of this one; `None`: there are no others.
    pub fn storage_mesh(&self) -> Option<SocketAddr> {
        self.mesh(Port::Storage)
    }

    /// Where other nodes reach a module of this one; `None`: there are no others.
    pub fn mesh(&self, module: Port) -> Option<SocketAddr> {
        let address: IpAddr = self.cluster.address.parse().ok()?;
        module.counted_from(SocketAddr::new(address, self.cluster.port))
    }

    /// The authority's certificate, and this node's with its key.
    pub fn trust(&self) -> PathBuf {
        self.node.data_dir.join("trust")
    }

    /// The replica's log and state.
    pub fn storage(&self) -> PathBuf {
        self.node.data_dir.join("storage")
    }

    /// The registry as this node saw it last.
    pub fn view(&self) -> PathBuf {
        self.node.data_dir.join("view")
    }

    /// Where the agent lays another version of this executable, for root to look at.
    pub fn staging(&self) -> PathBuf {
        self.node.data_dir.join("upgrade")
    }

    /// PHP-FPM's door.
    pub fn php_socket(&self) -> PathBuf {
        self.node.run_dir.join("php").join("fpm.sock")
    }

    /// MariaDB's door for root. In a folder of its own, which `mysql` owns.
    pub fn db_socket(&self) -> PathBuf {
        self.node.run_dir.join("db").join("mariadb.sock")
    }

    /// What Galera says of its state while MariaDB runs.
    pub fn db_galera_status(&self) -> PathBuf {
        self.node.run_dir.join("db").join("galera.json")
    }

    /// The authority's certificate and this node's with its key once more, for MariaDB's user.
    pub fn db_trust(&self) -> PathBuf {
        self.node.run_dir.join("db").join("trust")
    }

    /// Under which election MariaDB was started here last.
    pub fn db_epoch(&self) -> PathBuf {
        self.node.data_dir.join("db.epoch")
    }

    /// The right to one start of MariaDB as a unit; it is there only until that start.
    pub fn db_ticket(&self) -> PathBuf {
        self.node.run_dir.join("db.start")
    }

    /// It is there while MariaDB here is the writer.
    pub fn db_writer(&self) -> PathBuf {
        self.node.run_dir.join("db.writer")
    }

    /// MariaDB's data folder where bitrix-node runs it itself.
    pub fn db_data(&self) -> PathBuf {
        if self.db.data_dir.as_os_str().is_empty() {
            self.node.data_dir.join("db")
        } else {
            self.db.data_dir.clone()
        }
    }

    /// PHP's temporary files and uploads under way: outside the document root, the portal user's own.
    pub fn portal_temporary(&self) -> PathBuf {
        self.node.data_dir.join("portal-tmp")
    }

    /// MariaDB's temporary files. Its own: a starting MariaDB removes what looks like a temporary table of another.
    pub fn db_temporary(&self) -> PathBuf {
        self.node.data_dir.join("db-tmp")
    }

    /// `None`: no access log.
    pub fn access_log(&self) -> Option<PathBuf> {
        if self.proxy.access_log.as_os_str().is_empty() {
            return None;
        }
        Some(self.node.log_dir.join(&self.proxy.access_log))
    }

    /// `None`: what the firewall finds is only counted.
    pub fn audit_log(&self) -> Option<PathBuf> {
        if self.waf.audit_log.as_os_str().is_empty() {
            return None;
        }
        Some(self.node.log_dir.join(&self.waf.audit_log))
    }

    /// The node's own log where there is no journal.
    pub fn node_log(&self) -> PathBuf {
        self.node.log_dir.join("bitrix-node.log")
    }
}
