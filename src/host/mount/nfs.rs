//! An NFSv3 export as the kernel's client wants it told (nfs(5), without what mount.nfs adds). Pure.

use std::net::IpAddr;

use super::table::Entry;
use crate::config::Export;

/// What is mounted for it.
pub const KIND: &str = "nfs";

impl Export {
    /// As the table of mounts shows it.
    pub fn source(&self) -> String {
        format!("{}:{}", self.host, self.path)
    }

    /// `hard`: a server that is away makes callers wait; `soft` would make it an error that applications take for damage.
    pub fn options(&self, address: IpAddr) -> String {
        let protocol = if address.is_ipv6() { "tcp6" } else { "tcp" };
        let locks = if self.has_locks { "lock" } else { "nolock" };
        let mut options = format!(
            "vers=3,proto={protocol},mountproto={protocol},mountvers=3,hard,{locks},timeo=600,retrans=2,addr={address},\
             mountaddr={address}"
        );
        for (name, port) in [("port", self.nfs), ("mountport", self.mount)] {
            if let Some(port) = port {
                options += &format!(",{name}={port}");
            }
        }
        options
    }

    /// Whether a mount is one of this export, whoever made it.
    pub fn is(&self, entry: &Entry) -> bool {
        let shown = entry.options.split(',').find_map(|option| option.strip_prefix("port="));
        let is_same_port = self.nfs.is_none_or(|port| shown == Some(&port.to_string()));
        entry.kind == KIND && entry.source == self.source() && is_same_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(host: &str, port: Option<u16>) -> Export {
        Export {
            host: host.into(),
            path: "/portal".into(),
            nfs: port,
            mount: port,
            has_locks: false,
        }
    }

    #[test]
    fn own_door_needs_no_portmapper() {
        assert_eq!(
            export("127.0.0.1", Some(2049)).options("127.0.0.1".parse().expect("address")),
            "vers=3,proto=tcp,mountproto=tcp,mountvers=3,hard,nolock,timeo=600,retrans=2,addr=127.0.0.1,mountaddr=127.0.0.1,\
             port=2049,mountport=2049"
        );
    }

    #[test]
    fn a_named_server_over_ipv6_with_locks() {
        let mut export = export("nas", None);
        export.has_locks = true;
        let options = export.options("fd00::5".parse().expect("address"));
        assert_eq!(
            options,
            "vers=3,proto=tcp6,mountproto=tcp6,mountvers=3,hard,lock,timeo=600,retrans=2,addr=fd00::5,mountaddr=fd00::5"
        );
        assert_eq!(self::export("[fd00::5]", None).source(), "[fd00::5]:/portal");
    }

    #[test]
    fn only_a_mount_of_the_same_export_is_ours() {
        let entry = |kind: &str, source: &str, options: &str| Entry {
            target: "/srv".into(),
            kind: kind.into(),
            source: source.into(),
            options: options.into(),
            minor: 30,
        };
        let own = export("127.0.0.1", Some(2049));
        let shown = "rw,vers=3,hard,mountport=2049,port=2049";
        assert!(own.is(&entry("nfs", "127.0.0.1:/portal", shown)));
        assert!(!own.is(&entry(
            "nfs",
            "127.0.0.1:/portal",
            "rw,vers=3,hard,mountport=2049,port=2050"
        )));
        assert!(!own.is(&entry("nfs", "127.0.0.1:/portal", "rw,mountport=2049")));
        assert!(!own.is(&entry("nfs4", "127.0.0.1:/portal", shown)));
        assert!(!own.is(&entry("nfs", "127.0.0.1:/registry", shown)));
        assert!(export("127.0.0.1", None).is(&entry("nfs", "127.0.0.1:/portal", "rw")));
    }
}
