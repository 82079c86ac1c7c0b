//! `join`: makes this machine a node of a cluster. Each step can be repeated: a join that was killed anywhere is finished by the
//! same command with the same token.
//!
//! ```text
//! meet        whose cluster is it? nothing secret is sent
//! plan        shown, asked once
//! install     packages, users, folders
//! key         made once, kept over all attempts: by it the cluster knows this machine again
//! ask         the token, for a certificate and the cluster's secrets
//! place       portal user's numbers, secrets, configuration, and last the certificate: with it this is a node
//! start       until this node's record says member: then the token is used up
//! ```

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use data_encoding::HEXLOWER;
use toml_edit::{Array, Value};

use super::init::{ADMIN_PORT, DOMAIN, OWNER, Plan, READS, install};
use super::require_root;
use super::settle::{self, Draft, is_agreed};
use crate::agent::join::{self, Met, Request, Token, Welcome};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cluster::Standing;
use crate::config::{Config, Loaded, Port};
use crate::host::account;
use crate::net::mesh::trust::Trust;
use crate::net::name::Names;
use crate::node::{self, prepare};

/// The leader invites it, it makes its store, and reads the registry through it.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, Args)]
pub struct Join {
    /// A node of the cluster: ADDRESS or ADDRESS:PORT
    node: String,
    /// As `bitrix-node token create` printed it there
    #[arg(long)]
    token: Token,
    /// This node's name [default: the host's]
    #[arg(long)]
    name: Option<String>,
    /// IP address of this machine at which the other nodes shall reach it [default: the one on the way there]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// The database's data shall be on this node, too; for clusters that were founded with it
    #[arg(long)]
    galera: bool,
    /// This node, which has no data of the database, breaks ties between two that have; once for the address of each
    #[arg(long, value_name = "IP", conflicts_with = "galera")]
    arbiter: Vec<IpAddr>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Join {
    pub async fn perform(self, loaded: Loaded, path: &Path) -> anyhow::Result<u8> {
        let mut out = std::io::stdout();
        let there = address(&self.node).await?;
        let is_node = self.belongs(&loaded.config)?;
        let met = match is_node {
            // The node that was asked the first time may be gone meanwhile.
            true => None,
            false => Some(join::meet(there, &self.token).await?),
        };
        let own = self.own_address(&loaded, met.as_ref())?;
        let draft = Draft::make(path, &loaded, self.wanted(&loaded, own)?)?;
        let plan = Plan::make(&draft.config).await?;
        match &met {
            Some(met) => writeln!(out, "cluster:           {}, as the token says", met.cluster)?,
            None => writeln!(out, "cluster:           this machine is a node of it already")?,
        }
        write!(out, "{}{}", plan.describe(&draft.config), draft.describe())?;
        if self.dry_run {
            return Ok(EXIT_OK);
        }
        require_root()?;
        if !is_node {
            fit(&draft.config)?;
        }
        if !self.yes && !is_agreed()? {
            writeln!(out, "nothing was changed")?;
            return Ok(EXIT_DEGRADED);
        }
        install(&plan).await?;
        prepare::folders(&draft.config)?;
        let config = match is_node {
            true => {
                draft.write()?;
                draft.config
            }
            false => self.enter(there, &loaded, path, &draft.config).await?,
        };
        self.arrive(&config, path).await
    }

    /// Whether a former attempt made this machine a node of the token's cluster.
    fn belongs(&self, config: &Config) -> anyhow::Result<bool> {
        let trust = Trust::new(config.trust());
        if !trust.exists() {
            return Ok(false);
        }
        ensure!(
            trust.fingerprint()? == self.token.authority,
            "this machine is a node of another cluster; `bitrix-node uninstall --purge-data` makes it free"
        );
        Ok(true)
    }

    fn own_address(&self, loaded: &Loaded, met: Option<&Met>) -> anyhow::Result<IpAddr> {
        let configured = &loaded.config.cluster.address;
        match (self.address, met) {
            (Some(address), _) => Ok(address),
            (None, _) if !configured.is_empty() => Ok(configured.parse()?),
            (None, Some(met)) => Ok(met.own.ip()),
            (None, None) => bail!("name this machine's own address with --address"),
        }
    }

    /// Keys of the configuration that must read so.
    fn wanted(&self, loaded: &Loaded, own: IpAddr) -> anyhow::Result<Vec<(&'static str, Value)>> {
        ensure!(
            !own.is_unspecified() && !own.is_multicast(),
            "--address must be one address of this machine"
        );
        let name = settle::node_name(self.name.as_deref(), &loaded.config)?;
        let mut wanted = vec![
            ("node.name", name.into()),
            ("cluster.address", own.to_string().into()),
            ("storage.engine", "replicated".into()),
            match self.galera {
                true => ("db.galera", true.into()),
                false => ("db.run", false.into()),
            },
        ];
        if !self.arbiter.is_empty() {
            let addresses: Array = self.arbiter.iter().map(ToString::to_string).collect();
            wanted.push(("db.arbiter", addresses.into()));
        }
        if self.galera && settle::is_default(loaded, "db.reads") {
            wanted.push(("db.reads", READS.into()));
        }
        if !loaded.config.cache.shared {
            wanted.push(("cache.run", false.into()));
        }
        if settle::is_default(loaded, "admin.listen") {
            let admin = SocketAddr::new(own, ADMIN_PORT);
            wanted.push(("admin.listen", admin.to_string().into()));
        }
        Ok(wanted)
    }

    /// Asks, and puts in place what it is given.
    async fn enter(&self, there: SocketAddr, loaded: &Loaded, path: &Path, config: &Config) -> anyhow::Result<Config> {
        let mut out = std::io::stdout();
        let group = account::require(&config.node.user)?.gid;
        let trust = Trust::new(config.trust());
        trust.begin_joining(group)?;
        step(&mut out, "this machine's key is made")?;
        let address = config.mesh(Port::Agent).context("cluster.address is set")?;
        let request = Request {
            id: self.token.id.clone(),
            secret: self.token.secret.clone(),
            node: config.node.name.clone(),
            address: address.to_string(),
            request: HEXLOWER.encode(&trust.request()?),
            version: env!("CARGO_PKG_VERSION").to_string(),
        };
        let welcome = join::ask(there, &self.token, &request).await?;
        step(&mut out, "the cluster has let it in")?;
        own_portal(config, &welcome).await?;
        node::verbs::secrets::place(&config.node.data_dir, &welcome.secrets, group)?;
        step(&mut out, "the cluster's secrets are in place")?;
        let mut wanted = self.wanted(loaded, address.ip())?;
        if let Some(domain) = welcome.settings.get(DOMAIN) {
            wanted.push((DOMAIN, domain.as_str().into()));
        }
        let draft = Draft::make(path, loaded, wanted)?;
        draft.write()?;
        step(&mut out, "the configuration is written")?;
        trust.end_joining(&welcome.authority, &welcome.certificate, group)?;
        step(&mut out, "the certificate is in place")?;
        Ok(draft.config)
    }

    async fn arrive(&self, config: &Config, path: &Path) -> anyhow::Result<u8> {
        let mut out = std::io::stdout();
        if !settle::start(config, path).await? {
            return Ok(EXIT_OK);
        }
        step(&mut out, "the node runs; waiting until it has the registry")?;
        let own = config.node.name.clone();
        settle::wait_for(config, "becoming a node of the cluster", PATIENCE, |snapshot| {
            snapshot
                .node(&own)
                .is_some_and(|node| node.standing != Standing::Joining)
                && !snapshot.is_stale
        })
        .await?;
        writeln!(
            out,
            "{own} is a node of the cluster; its copy of the files fills by itself. See:\n  bitrix-node storage status\n  bitrix-node status"
        )?;
        Ok(EXIT_OK)
    }
}

/// A step that is done, for people, and for programs that watch.
fn step(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    writeln!(out, "{text}")?;
    out.flush()
}

/// What would make it fail later is said before anything is changed.
fn fit(config: &Config) -> anyhow::Result<()> {
    settle::require_fit(config)?;
    let store = config.storage();
    let is_empty = std::fs::read_dir(&store).map_or(true, |mut entries| entries.next().is_none());
    ensure!(
        is_empty,
        "{} holds the store of an earlier node, which would stay hidden; move it away",
        store.display()
    );
    Ok(())
}

/// The portal's files belong to numbers, the same ones on every node.
async fn own_portal(config: &Config, welcome: &Welcome) -> anyhow::Result<()> {
    let Some(owner) = welcome.settings.get(OWNER) else {
        return Ok(());
    };
    let parsed = owner
        .split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    let (uid, gid) = parsed.with_context(|| format!("{OWNER} of the cluster reads {owner:?}"))?;
    let user = &config.portal.user;
    account::ensure_ids(user, uid, gid).await.with_context(|| {
        format!(
            "the portal's files belong to user {uid} and group {gid} of the cluster, which {user} must be here too; \
             free these numbers on this machine, then repeat the command"
        )
    })?;
    Ok(())
}

async fn address(text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (
            host,
            port.parse().with_context(|| format!("{text}: {port} is no port"))?,
        ),
        _ => (text, Port::FIRST),
    };
    let found = Names::system()?
        .resolve(host, port)
        .await
        .with_context(|| format!("find {host}"))?;
    found.first().copied().with_context(|| format!("{host} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_is_named_with_or_without_its_port() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1:7400"),
            ("10.0.0.1:7500", "10.0.0.1:7500"),
            ("fd00::1", "[fd00::1]:7400"),
            ("[fd00::1]:7500", "[fd00::1]:7500"),
        ] {
            assert_eq!(address(text).await.unwrap().to_string(), expected);
        }
        assert!(address("10.0.0.1:x").await.is_err());
    }
}
