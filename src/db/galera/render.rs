//! MariaDB as one node of a Galera cluster: where its provider is, what it listens on, and its part of the configuration. Pure but
//! for `provider`.
//!
//! Everything between the nodes is TLS with the cluster's own certificates, both ways: replication, its catching up, and the copying
//! of whole data folders.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::template::{self, Error, render as fill};
use crate::config::Config;

const TEMPLATE: &str = include_str!("../../../assets/templates/galera.cnf");

pub use crate::config::GALERA as PORTS;

/// Of Debian's package, Red Hat's, and MariaDB's own.
const PROVIDERS: [&str; 3] = [
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
];

/// Of all that are in the group. With less than these times the group took a busy node for a lost one at its start. A node that sees
/// nobody gives up after so long and is started anew by a decision. A new view waits for the next join messages of all: ten times a
/// second, not once.
const MEETING: [&str; 7] = [
    "evs.keepalive_period=PT0.3S",
    "evs.inactive_check_period=PT0.3S",
    "evs.suspect_timeout=PT1S",
    "evs.inactive_timeout=PT3S",
    "evs.install_timeout=PT3S",
    "evs.join_retrans_period=PT0.1S",
    "pc.wait_prim_timeout=PT20S",
];

/// The group has dropped a member that died by then: it is suspected after a second, and the others agree on it. One that knocks before
/// that, as another one from the same address, can end the others' part in it: "exception from gcomm, backend must be restarted: element
/// not found" on each of them (Galera 26.4.23).
pub const DROPPED: Duration = Duration::from_secs(5);

/// What a node that was away for a while needs is kept, also over a crash.
const KEEPING: [&str; 3] = ["pc.recovery=TRUE", "gcache.size=256M", "gcache.recover=yes"];

/// Trust, as each node has it: the authority, its own certificate, its key.
pub const FILES: [&str; 3] = ["authority.pem", "node.pem", "node.key"];

/// What a node of the group depends on.
pub struct Facts<'a> {
    pub config: &'a Config,
    pub provider: &'a Path,
    pub cluster: &'a str,
    pub node: &'a str,
    /// Where the others reach it.
    pub address: IpAddr,
}

/// The installed provider.
pub fn provider() -> Option<PathBuf> {
    PROVIDERS.map(PathBuf::from).into_iter().find(|path| path.is_file())
}

/// The lines behind those of a single server.
pub fn render(facts: &Facts) -> Result<String, Error> {
    let [_, catching_up, copying] = PORTS.map(|port| SocketAddr::new(facts.address, port));
    let files = facts.config.db_trust();
    let [authority, certificate, key] = FILES.map(|name| files.join(name));
    let (authority, certificate, key) = (
        template::path(&authority)?,
        template::path(&certificate)?,
        template::path(&key)?,
    );
    let mut options = meeting(facts.address, &files)?;
    options.push(format!("ist.recv_addr=ssl://{catching_up}"));
    options.extend(KEEPING.map(str::to_owned));
    let status = facts.config.db_galera_status();
    fill(
        TEMPLATE,
        &[
            ("provider", template::path(facts.provider)?),
            ("cluster", facts.cluster),
            ("node", facts.node),
            ("host", &host(facts.address)),
            ("status", template::path(&status)?),
            ("sst", &copying.to_string()),
            ("options", &options.join(";")),
            ("authority", authority),
            ("certificate", certificate),
            ("key", key),
        ],
    )
}

/// How a node meets the others, by the trust in that folder.
fn meeting(address: IpAddr, files: &Path) -> Result<Vec<String>, Error> {
    let mut options = vec![format!(
        "gmcast.listen_addr=ssl://{}",
        SocketAddr::new(address, PORTS[0])
    )];
    for (option, name) in ["ca", "cert", "key"].into_iter().zip(FILES) {
        options.push(format!("socket.ssl_{option}={}", template::path(&files.join(name))?));
    }
    options.extend(MEETING.map(str::to_owned));
    Ok(options)
}

/// What garbd is told. It comes to a group that is there, and never is one by itself: it keeps no view, and is always told of others.
pub fn arbiter(facts: &Facts, files: &Path, work: &Path) -> Result<Vec<String>, Error> {
    let mut options = meeting(facts.address, files)?;
    options.push("pc.recovery=FALSE".to_owned());
    Ok(vec![
        format!("--name={}", facts.node),
        format!("--group={}", facts.cluster),
        format!("--address={}", group(&facts.config.db.arbiter)),
        format!("--options={}", options.join(";")),
        format!("--workdir={}", template::path(work)?),
    ])
}

/// Where a start looks for the others, this node among them.
pub fn group(addresses: &[IpAddr]) -> String {
    let places = addresses
        .iter()
        .map(|address| SocketAddr::new(*address, PORTS[0]).to_string());
    format!("gcomm://{}", places.collect::<Vec<_>>().join(","))
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn cnf(cluster: &str, address: &str) -> Result<String, Error> {
        let config = parse("", std::iter::empty()).unwrap().config;
        render(&Facts {
            config: &config,
            provider: Path::new(PROVIDERS[0]),
            cluster,
            node: "n1",
            address: address.parse().unwrap(),
        })
    }

    #[test]
    fn nothing_between_the_nodes_is_in_plain_text() {
        let text = cnf("portal-1", "10.0.0.1").unwrap();
        for part in [
            "gmcast.listen_addr=ssl://10.0.0.1:4567;",
            "ist.recv_addr=ssl://10.0.0.1:4568;",
            "socket.ssl_ca=/run/bitrix-node/db/trust/authority.pem;",
            "\nssl-mode = VERIFY_CA\n",
            "\nwsrep-sst-receive-address = 10.0.0.1:4444\n",
            "\nwsrep-node-address = 10.0.0.1\n",
            "\nskip-networking\n",
            "\nread-only = ON\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("tcp://") && !text.contains("wsrep-cluster-address"));
    }

    #[test]
    fn addresses_are_written_as_each_place_wants_them() {
        let text = cnf("portal-1", "fd00::1").unwrap();
        assert!(text.contains("gmcast.listen_addr=ssl://[fd00::1]:4567;"));
        assert!(text.contains("\nwsrep-node-address = [fd00::1]\n"));
        let all = ["10.0.0.1", "fd00::2"].map(|address| address.parse().unwrap());
        assert_eq!(group(&all), "gcomm://10.0.0.1:4567,[fd00::2]:4567");
    }

    #[test]
    fn an_arbiter_meets_the_others_as_they_do_and_keeps_nothing() {
        let text = "[cluster]\naddress = \"10.0.0.3\"\n[storage]\nengine = \"replicated\"\n[db]\nrun = false\narbiter = [\"10.0.0.1\", \"10.0.0.2\"]";
        let config = parse(text, std::iter::empty()).unwrap().config;
        let facts = Facts {
            config: &config,
            provider: Path::new(""),
            cluster: "portal-1",
            node: "n3",
            address: "10.0.0.3".parse().unwrap(),
        };
        let told = arbiter(&facts, Path::new("/trust"), Path::new("/run/garbd")).unwrap();
        assert_eq!(told[2], "--address=gcomm://10.0.0.1:4567,10.0.0.2:4567");
        let own = cnf("portal-1", "10.0.0.3").unwrap();
        let options = told[3].strip_prefix("--options=").unwrap();
        for option in options
            .split(';')
            .filter(|option| !option.contains("socket") && !option.contains("recovery"))
        {
            assert!(own.contains(&format!("{option};")), "{option} in\n{own}");
        }
        assert!(options.contains("socket.ssl_key=/trust/node.key;") && options.ends_with(";pc.recovery=FALSE"));
    }

    #[test]
    fn a_name_brings_no_line_of_its_own() {
        assert!(cnf("a\nplugin-load = x", "10.0.0.1").is_err());
    }
}
