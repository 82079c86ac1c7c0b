//! `init`: makes this machine ready to be a node, and with `--address` the first one of a cluster. Shows its plan, asks once, can
//! be repeated.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use ipnet::IpNet;
use toml_edit::Value;

use super::settle::{self, Draft, is_agreed};
use super::{registry, require_root, token};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cluster::ADDRESSES;
use crate::config::{Config, Loaded};
use crate::host::account;
use crate::host::address::place;
use crate::host::package::{self, Family, Need};
use crate::net::mesh::trust::Trust;
use crate::node::prepare;
use crate::registry::{Change, Cluster, Guard, Key, Record, Registry, Setting, View, Write as Put};
use crate::{db, php};

/// A first start makes a database and a store.
const PATIENCE: Duration = Duration::from_secs(180);
pub const ADMIN_PORT: u16 = 8443;
/// Where what only reads finds a database of a Galera cluster.
pub const READS: &str = "127.0.0.1:3307";

/// Settings of the cluster that `init` makes, and `join` needs.
pub const DOMAIN: &str = "portal.domain";
/// Numbers of the portal's user and group, which own its files on every node.
pub const OWNER: &str = "portal.owner";

#[derive(Debug, Args)]
pub struct Init {
    /// Host name of the portal, as browsers use it
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// IP address of this machine at which other nodes shall reach it: makes it the first node of a cluster
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Floating address of the portal, which one of the nodes has at a time (10.0.0.10 or 10.0.0.10/24); can be given twice
    #[arg(long, value_name = "IP", requires = "address")]
    vip: Vec<String>,
    /// This node's name [default: the host's]
    #[arg(long, requires = "address")]
    name: Option<String>,
    /// The database is a MariaDB Galera cluster: further nodes that join with --galera have its data, too
    #[arg(long, requires = "address")]
    galera: bool,
    /// Databases, files, secrets [default: /var/lib/bitrix-node]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Init {
    pub async fn perform(self, loaded: Loaded, path: &Path) -> anyhow::Result<u8> {
        let draft = Draft::make(path, &loaded, self.wanted(&loaded)?)?;
        let config = &draft.config;
        let floating = self.floating()?;
        let plan = Plan::make(config).await?;
        let mut out = std::io::stdout();
        write!(out, "{}", plan.describe(config))?;
        if !draft.edits.is_empty() || self.address.is_some() {
            write!(out, "{}", draft.describe())?;
        }
        if let Some(addresses) = &floating {
            writeln!(out, "floating address:  {addresses}")?;
        }
        if self.dry_run {
            return Ok(EXIT_OK);
        }
        require_root()?;
        if self.address.is_some() {
            settle::require_fit(config)?;
        }
        if !self.yes && !is_agreed()? {
            writeln!(out, "nothing was changed")?;
            return Ok(EXIT_DEGRADED);
        }
        ready(config, &plan).await?;
        draft.write()?;
        if self.address.is_some() {
            return self.found(config, path, floating).await;
        }
        writeln!(
            out,
            "ready; next:\n  bitrix-node portal install --from DIR|ARCHIVE\n  systemctl enable --now bitrix-node"
        )?;
        Ok(EXIT_OK)
    }

    /// Keys of the configuration that must read so.
    fn wanted(&self, loaded: &Loaded) -> anyhow::Result<Vec<(&'static str, Value)>> {
        let mut wanted = Vec::new();
        if let Some(domain) = &self.domain {
            wanted.push(("portal.domain", domain.as_str().into()));
        }
        if let Some(folder) = &self.data_dir {
            let folder = folder.to_str().context("--data-dir is not UTF-8")?;
            wanted.push(("node.data_dir", folder.into()));
        }
        let Some(address) = self.address else { return Ok(wanted) };
        ensure!(
            !address.is_unspecified() && !address.is_multicast(),
            "--address must be one address of this machine"
        );
        let name = settle::node_name(self.name.as_deref(), &loaded.config)?;
        wanted.push(("node.name", name.into()));
        wanted.push(("cluster.address", address.to_string().into()));
        wanted.push(("storage.engine", "replicated".into()));
        if self.galera {
            wanted.push(("db.galera", true.into()));
            if settle::is_default(loaded, "db.reads") {
                wanted.push(("db.reads", READS.into()));
            }
        }
        if settle::is_default(loaded, "admin.listen") {
            let admin = SocketAddr::new(address, ADMIN_PORT);
            wanted.push(("admin.listen", admin.to_string().into()));
        }
        Ok(wanted)
    }

    /// As the setting is written.
    fn floating(&self) -> anyhow::Result<Option<String>> {
        let networks = networks()?;
        let addresses = self.vip.iter().map(|vip| with_prefix(vip, self.address, &networks));
        let addresses = addresses.collect::<anyhow::Result<Vec<IpNet>>>()?;
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        Ok((!texts.is_empty()).then(|| texts.join(",")))
    }

    /// The node runs: makes the cluster's records, and says what is next.
    async fn found(&self, config: &Config, path: &Path, floating: Option<String>) -> anyhow::Result<u8> {
        let mut out = std::io::stdout();
        if !settle::start(config, path).await? {
            return Ok(EXIT_OK);
        }
        writeln!(out, "waiting for the registry …")?;
        let own = config.node.name.clone();
        settle::wait_for(config, "the registry", PATIENCE, |snapshot| {
            !snapshot.is_stale && snapshot.node(&own).is_some()
        })
        .await?;
        let registry = registry::open(config).await?;
        let view = registry.read().await?;
        let trust = Trust::new(config.trust());
        let cluster = Cluster {
            name: trust.identity()?.cluster.to_string(),
            certificate: trust.authority_pem()?,
        };
        let owner = account::require(&config.portal.user)?;
        let settings = [
            (OWNER, Some(format!("{}:{}", owner.uid, owner.gid))),
            (DOMAIN, self.domain.clone()),
            (ADDRESSES, floating),
        ];
        if let Some(change) = records(&view, cluster, settings) {
            registry.commit(change).await?;
        }
        let token = token::create(config, &registry, token::TTL).await?;
        out.write_all(welcome(config, &token::join_line(config, &token)?).as_bytes())?;
        Ok(EXIT_OK)
    }
}

/// What is missing.
pub struct Plan {
    family: Option<Family>,
    packages: Vec<String>,
    users: Vec<String>,
}

impl Plan {
    pub async fn make(config: &Config) -> anyhow::Result<Self> {
        let mut needs = Vec::new();
        match php::find(config) {
            Some(php) => needs.extend(package::missing_extensions(&php).await?),
            None => {
                needs.push(Need::Php);
                needs.extend(package::PHP_EXTENSIONS.map(Need::PhpExtension));
            }
        }
        needs.extend(db::need::missing(config));
        let family = package::family();
        let packages: Vec<String> = match family {
            Some(family) => package::names(family, &needs),
            None if needs.is_empty() => Vec::new(),
            None => anyhow::bail!(
                "neither apt-get nor dnf is here: install PHP-FPM with its extensions and MariaDB (for db.galera with its \
                 Galera library, mariadb-backup and socat; for db.arbiter garbd) by hand"
            ),
        };
        let mut users = Vec::new();
        for name in [&config.node.user, &config.portal.user] {
            if account::find(name)?.is_none() {
                users.push(name.clone());
            }
        }
        Ok(Plan {
            family,
            packages,
            users,
        })
    }

    pub fn describe(&self, config: &Config) -> String {
        let listed = |names: &[String]| {
            if names.is_empty() {
                "none".to_string()
            } else {
                names.join(" ")
            }
        };
        format!(
            "install packages:  {}\nmake users:        {}\ndata, secrets:     {}\nportal files:      {}\n",
            listed(&self.packages),
            listed(&self.users),
            config.node.data_dir.display(),
            config.portal_root().display(),
        )
    }
}

/// Carries the plan out.
pub async fn ready(config: &Config, plan: &Plan) -> anyhow::Result<()> {
    install(plan).await?;
    prepare::folders(config)?;
    prepare::node(config, false).await?;
    Ok(())
}

/// Packages and users.
pub async fn install(plan: &Plan) -> anyhow::Result<()> {
    if let Some(family) = plan.family.filter(|_| !plan.packages.is_empty()) {
        println!("installing {} packages …", plan.packages.len());
        package::install(family, &plan.packages).await?;
    }
    for user in &plan.users {
        account::ensure(user).await?;
    }
    Ok(())
}

/// What is new in the registry.
fn records<const N: usize>(view: &View, cluster: Cluster, settings: [(&str, Option<String>); N]) -> Option<Change> {
    let mut change = Change::default();
    if view.cluster().is_none() {
        let event = format!("cluster {} was founded", cluster.name);
        change = change.and(Put::Put(Record::Cluster(cluster))).and(Put::Event(event));
        change = change.when(Guard::Absent(Key::Cluster));
    }
    for (key, value) in settings {
        let Some(value) = value.filter(|value| view.setting(key) != Some(value)) else {
            continue;
        };
        let key = key.to_string();
        change = change.and(Put::Put(Record::Setting(Setting { key, value })));
    }
    (!change.writes.is_empty()).then_some(change)
}

fn welcome(config: &Config, join: &str) -> String {
    let host = match config.portal.domain.as_str() {
        "" => config.cluster.address.clone(),
        domain => domain.to_string(),
    };
    let portal = match config.is_portal_on_files() {
        true => {
            "install the portal's files:  bitrix-node portal install --from DIR|ARCHIVE, then: bitrix-node portal settings\n"
        }
        false => "",
    };
    format!(
        "this node is the first one of its cluster\n\
         portal:  https://{host}/\n\
         admin:   https://{}/  with the token in {} (a console comes with a later version)\n\
         {portal}\
         within an hour, on each further machine a line of its own (`bitrix-node token create` makes more):\n  {join}\n",
        config.admin.listen,
        config.secrets().join("admin.token").display(),
    )
}

/// An address without a prefix lies in the network of the interface that has one around it.
fn with_prefix(text: &str, own: Option<IpAddr>, networks: &[IpNet]) -> anyhow::Result<IpNet> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => {
            let net = networks.iter().find(|net| net.contains(&address));
            let net = net.with_context(|| {
                format!("no interface of this machine is in the network of {address}; write it with its prefix: {address}/24")
            })?;
            IpNet::new(address, net.prefix_len())?
        }
        Err(_) => text
            .parse()
            .with_context(|| format!("--vip {text}: write it like 10.0.0.10/24"))?,
    };
    ensure!(
        own != Some(net.addr()),
        "--vip {text} is this machine's own address; the floating one must be free"
    );
    Ok(net)
}

/// Of this machine's interfaces.
fn networks() -> anyhow::Result<Vec<IpNet>> {
    let interfaces = place::interfaces().context("the interfaces of this machine")?;
    Ok(interfaces
        .into_iter()
        .flat_map(|interface| interface.addresses)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_made_once_and_settings_follow() {
        let cluster = || Cluster {
            name: "c1".into(),
            certificate: "pem".into(),
        };
        let settings = |domain: Option<&str>| [(DOMAIN, domain.map(str::to_string)), (ADDRESSES, None)];
        let change = records(&View::default(), cluster(), settings(Some("a"))).unwrap();
        assert_eq!((change.writes.len(), change.guards.len()), (3, 1));
        let setting = Record::Setting(Setting {
            key: DOMAIN.into(),
            value: "a".into(),
        });
        let view = View::from_records([Record::Cluster(cluster()), setting]);
        assert_eq!(records(&view, cluster(), settings(Some("a"))), None);
        assert_eq!(
            records(&view, cluster(), settings(None)),
            None,
            "what is not said stays"
        );
        let change = records(&view, cluster(), settings(Some("b"))).unwrap();
        assert_eq!((change.writes.len(), change.guards.len()), (1, 0));
    }

    #[test]
    fn a_floating_address_takes_its_prefix_from_the_interface_around_it() {
        let networks = ["10.9.0.1/16".parse().unwrap(), "fd00::1/64".parse().unwrap()];
        let own = Some("10.9.0.1".parse().unwrap());
        for (text, expected) in [
            ("10.9.7.10", "10.9.7.10/16"),
            ("fd00::10", "fd00::10/64"),
            ("192.0.2.10/24", "192.0.2.10/24"),
        ] {
            assert_eq!(with_prefix(text, own, &networks).unwrap().to_string(), expected);
        }
        let foreign = with_prefix("192.0.2.9", own, &networks).unwrap_err().to_string();
        assert!(foreign.contains("192.0.2.9/24"), "{foreign}");
        for bad in ["10.9.0.1", "10.9.0.1/24", "portal", ""] {
            assert!(with_prefix(bad, own, &networks).is_err(), "{bad}");
        }
        assert!(super::networks().unwrap().iter().any(|net| net.addr().is_loopback()));
    }
}
