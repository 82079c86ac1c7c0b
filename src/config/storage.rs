//! `[storage]`: what keeps the portal's files, and where PHP sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Config, External};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub engine: Engine,
    pub external: String,
    pub external_locks: bool,
    /// `None`: as the engine has it.
    #[serde(deserialize_with = "auto")]
    pub mount: Option<Mount>,
    pub mount_point: PathBuf,
    pub listen: SocketAddr,
    pub clients: Vec<IpNet>,
    pub copies: usize,
    pub min_copies: usize,
}

/// What keeps the portal's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    None,
    Replicated,
    External,
}

/// How PHP sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    None,
    /// By the kernel's NFSv3 client.
    Kernel,
    /// By the kernel's FUSE, from this node's own replicated storage.
    Fuse,
}

/// An NFSv3 export that this node can mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Name or address; an IPv6 address is in brackets.
    pub host: String,
    /// Absolute path.
    pub path: String,
    /// `None`: the server's portmapper knows.
    pub nfs: Option<u16>,
    pub mount: Option<u16>,
    /// Locks are asked of the server; else they hold on this node only.
    pub has_locks: bool,
}

/// The folder where this node has the portal's files from, as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// An NFS export that this node mounts.
    Mounted { export: Export, at: PathBuf },
    /// Served by this node's storage through the kernel's FUSE, and mounted by its supervisor.
    Door { at: PathBuf },
    /// Mounted by somebody else; only looked at.
    Watched(PathBuf),
}

impl Files {
    pub fn folder(&self) -> &Path {
        match self {
            Files::Mounted { at, .. } | Files::Door { at } => at,
            Files::Watched(path) => path,
        }
    }
}

/// "auto" among the ways to mount.
fn auto<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Mount>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Written {
        Auto,
        None,
        Kernel,
        Fuse,
    }
    Ok(match Written::deserialize(from)? {
        Written::Auto => None,
        Written::None => Some(Mount::None),
        Written::Kernel => Some(Mount::Kernel),
        Written::Fuse => Some(Mount::Fuse),
    })
}

impl Storage {
    /// How PHP sees the files. What only this node's storage has, nobody else mounts.
    pub fn mount(&self) -> Mount {
        self.mount.unwrap_or(match self.engine {
            Engine::Replicated => Mount::Fuse,
            Engine::None | Engine::External => Mount::None,
        })
    }

    /// What there is to mount; `None`: the engine has no export.
    pub fn export(&self) -> Option<Export> {
        match (self.engine, self.external()) {
            (Engine::Replicated, _) => Some(self.own_export()),
            (
                Engine::External,
                Some(External::Server {
                    host,
                    export,
                    nfs,
                    mount,
                }),
            ) => Some(Export {
                host,
                path: export,
                nfs,
                mount,
                has_locks: self.external_locks,
            }),
            _ => None,
        }
    }

    /// The door of this node's own storage, which answers NFS and MOUNT on one port.
    fn own_export(&self) -> Export {
        let host = match self.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            IpAddr::V6(ip) if ip.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let port = Some(self.listen.port());
        Export {
            host,
            path: "/portal".into(),
            nfs: port,
            mount: port,
            has_locks: false,
        }
    }
}

impl Config {
    pub fn mount_point(&self) -> PathBuf {
        if self.storage.mount_point.as_os_str().is_empty() {
            self.node.data_dir.join("files")
        } else {
            self.storage.mount_point.clone()
        }
    }

    /// `None`: the portal's files are on this machine's own disk.
    pub fn files(&self) -> Option<Files> {
        match (self.storage.engine, self.storage.external()) {
            (Engine::External, Some(External::Path(path))) => Some(Files::Watched(path)),
            _ => self.mounted(),
        }
    }

    fn mounted(&self) -> Option<Files> {
        let at = self.mount_point();
        match self.storage.mount() {
            Mount::None => None,
            Mount::Kernel => self.storage.export().map(|export| Files::Mounted { export, at }),
            Mount::Fuse => Some(Files::Door { at }),
        }
    }

    /// Whether the document root comes and goes with what `files` names. Such a folder may hang: only a process that can be
    /// killed may look at it.
    pub fn is_portal_on_files(&self) -> bool {
        self.files()
            .is_some_and(|files| self.portal_root().starts_with(files.folder()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn config(text: &str) -> Config {
        parse(text, std::iter::empty()).expect("valid").config
    }

    #[test]
    fn own_door_is_mounted_on_loopback_with_both_ports() {
        let config = config("[storage]\nengine = \"replicated\"\nmount = \"kernel\"\n");
        let Some(Files::Mounted { export, at }) = config.files() else {
            panic!("mounted")
        };
        assert_eq!((export.host.as_str(), export.path.as_str()), ("127.0.0.1", "/portal"));
        assert_eq!(
            (export.nfs, export.mount, export.has_locks),
            (Some(2049), Some(2049), false)
        );
        assert_eq!(at, Path::new("/var/lib/bitrix-node/files"));
        assert_eq!(config.portal_root(), Path::new("/var/lib/bitrix-node/files/portal"));
        assert!(config.is_portal_on_files());
    }

    #[test]
    fn the_storages_own_door_needs_no_export_and_is_taken_unless_told_else() {
        let config = config("[storage]\nengine = \"replicated\"\nmount_point = \"/srv/files\"\n");
        assert_eq!(
            config.files(),
            Some(Files::Door {
                at: "/srv/files".into()
            })
        );
        assert_eq!(config.portal_root(), Path::new("/srv/files/portal"));
        assert!(config.is_portal_on_files());
        for (text, mount) in [
            ("engine = \"replicated\"\nmount = \"auto\"", Mount::Fuse),
            ("engine = \"replicated\"\nmount = \"none\"", Mount::None),
            ("engine = \"external\"\nexternal = \"nfs://nas/a\"", Mount::None),
            ("", Mount::None),
        ] {
            assert_eq!(
                self::config(&format!("[storage]\n{text}\n")).storage.mount(),
                mount,
                "{text}"
            );
        }
    }

    #[test]
    fn an_unspecified_address_is_reached_on_loopback() {
        let text = "[storage]\nengine = \"replicated\"\nlisten = \"[::]:2050\"\nclients = [\"::/0\"]\n";
        let export = config(text).storage.export().expect("an export");
        assert_eq!((export.host.as_str(), export.nfs), ("[::1]", Some(2050)));
    }

    #[test]
    fn a_named_server_keeps_its_ports_to_itself() {
        let text = "[storage]\nengine = \"external\"\nexternal = \"nfs://nas/a/b\"\nmount = \"kernel\"\nexternal_locks = true\n\
                    mount_point = \"/srv/files\"\n[portal]\nroot = \"/srv/www\"\n";
        let config = config(text);
        let export = config.storage.export().expect("an export");
        assert_eq!((export.host.as_str(), export.path.as_str()), ("nas", "/a/b"));
        assert_eq!((export.nfs, export.mount, export.has_locks), (None, None, true));
        assert!(!config.is_portal_on_files());
    }

    #[test]
    fn a_path_is_watched_and_nothing_is_mounted() {
        let text =
            "[storage]\nengine = \"external\"\nexternal = \"/mnt/ceph\"\n[portal]\nroot = \"/mnt/ceph/portal\"\n";
        let config = config(text);
        assert_eq!(config.files(), Some(Files::Watched("/mnt/ceph".into())));
        assert!(config.is_portal_on_files() && config.storage.export().is_none());
        assert_eq!(self::config("").files(), None);
    }
}
