//! What `init` and `join` do alike: show and write changes of the configuration, start the node, wait for what it says.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use toml_edit::Value;

use super::preflight;
use crate::base::Scope;
use crate::base::file::{Access, replace};
use crate::cluster::{self, Snapshot};
use crate::config::{self, Config, DEFAULT_PATH, Edit, Loaded, Origin, Port};
use crate::host::facts;
use crate::host::unit::Unit;
use crate::registry::{LastSeen, Node, View};

pub const UNIT: &str = "bitrix-node.service";
const LOOK: Duration = Duration::from_secs(2);

/// The configuration as it shall be.
pub struct Draft {
    pub config: Config,
    pub edits: Vec<Edit>,
    text: String,
    path: PathBuf,
}

impl Draft {
    /// Fails when the whole would be no valid configuration.
    pub fn make(path: &Path, loaded: &Loaded, wanted: Vec<(&'static str, Value)>) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| path.display().to_string())?,
        };
        let (text, edits) = config::edit(&text, loaded, wanted).map_err(anyhow::Error::msg)?;
        let draft = config::read(&text).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            anyhow::anyhow!("the configuration would have mistakes:{}", lines.concat())
        })?;
        Ok(Draft {
            config: draft.config,
            edits,
            text,
            path: path.to_path_buf(),
        })
    }

    pub fn describe(&self) -> String {
        if self.edits.is_empty() {
            return format!("configuration:     {} stays as it is\n", self.path.display());
        }
        let mut text = format!("configuration:     {}\n", self.path.display());
        for Edit { key, from, to, origin } in &self.edits {
            let replaced = match origin {
                Origin::File { line } => format!("  (replaces {from} in line {line})"),
                _ => String::new(),
            };
            text.push_str(&format!("  {key} = {}{replaced}\n", to.trim()));
        }
        text
    }

    pub fn write(&self) -> anyhow::Result<()> {
        if self.edits.is_empty() {
            return Ok(());
        }
        let folder = self.path.parent().context("a file needs a folder")?;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        replace(&self.path, self.text.as_bytes(), Access::mode(0o644)).with_context(|| self.path.display().to_string())
    }
}

/// A machine that could not run the node is told so before anything is changed.
pub fn require_fit(config: &Config) -> anyhow::Result<()> {
    let failed = preflight::failures(config);
    anyhow::ensure!(
        failed.is_empty(),
        "this machine is not fit to be a node:\n  {}\nall checks: bitrix-node preflight",
        failed.join("\n  ")
    );
    Ok(())
}

/// Asks once.
pub fn is_agreed() -> anyhow::Result<bool> {
    print!("go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A name that is fit for a certificate: the one that was given, else the configured one, else what the host's name makes.
pub fn node_name(given: Option<&str>, config: &Config) -> anyhow::Result<String> {
    let name = match given {
        Some(name) => name.to_string(),
        None if !config.node.name.is_empty() => config.node.name.clone(),
        None => short(&facts::host_name()),
    };
    name.parse::<crate::net::mesh::Name>()
        .context("the node's name; give one with --name")?;
    Ok(name)
}

/// `VM1.example.org` → `vm1`.
fn short(host: &str) -> String {
    host.split('.').next().unwrap_or_default().to_ascii_lowercase()
}

/// Whether systemd runs this node. Its unit reads the default file.
pub fn is_by_unit(path: &Path) -> bool {
    facts::has_systemd() && path == Path::new(DEFAULT_PATH)
}

/// Starts the node, or anew where it runs with another configuration. `false`: the operator must.
pub async fn start(config: &Config, path: &Path) -> anyhow::Result<bool> {
    let runs = timeout(LOOK, UnixStream::connect(config.control_socket()));
    let runs = matches!(runs.await, Ok(Ok(_)));
    let is_met = match config.mesh(Port::Agent) {
        Some(address) => matches!(timeout(LOOK, TcpStream::connect(address)).await, Ok(Ok(_))),
        None => true,
    };
    if !is_by_unit(path) {
        if runs && is_met {
            return Ok(true);
        }
        let verb = if runs { "restart" } else { "start" };
        println!(
            "{verb} the node, then repeat this command to see that it is well:\n  bitrix-node run --config {}",
            path.display()
        );
        return Ok(false);
    }
    let unit = Unit(UNIT.to_string());
    unit.enable().await.with_context(|| format!("enable {UNIT}"))?;
    match (runs, is_met) {
        (true, true) => {}
        (true, false) => unit.restart().await.with_context(|| format!("restart {UNIT}"))?,
        (false, _) => unit.start().await.with_context(|| format!("start {UNIT}"))?,
    }
    Ok(true)
}

/// Waits until a snapshot of this node's agent is as wanted.
pub async fn wait_for(
    config: &Config,
    what: &str,
    patience: Duration,
    wanted: impl Fn(&Snapshot) -> bool,
) -> anyhow::Result<()> {
    let scope = Scope::new();
    let mut snapshots = cluster::follow(config.view_socket(), &scope);
    let seen = timeout(patience, snapshots.wait_for(|snapshot| wanted(snapshot)));
    let is_seen = matches!(seen.await, Ok(Ok(_)));
    scope.stop(Duration::ZERO).await;
    anyhow::ensure!(
        is_seen,
        "{what}: not within {} s; `bitrix-node status` and `bitrix-node logs` tell why. This command can be repeated.",
        patience.as_secs()
    );
    Ok(())
}

/// What this node's agent says now; `None`: it says nothing.
pub async fn snapshot(config: &Config) -> Option<Arc<Snapshot>> {
    let scope = Scope::new();
    let mut snapshots = cluster::follow(config.view_socket(), &scope);
    let seen = timeout(LOOK, snapshots.wait_for(|snapshot| snapshot.revision > 0)).await;
    let seen = seen.ok().and_then(|seen| seen.ok().map(|snapshot| snapshot.clone()));
    scope.stop(Duration::ZERO).await;
    seen
}

/// A node's record in the registry as this machine saw it last.
pub async fn last_seen(config: &Config, name: &str) -> Option<Node> {
    let view: Option<Arc<View>> = LastSeen::new(&config.view()).load().await.ok().flatten();
    view?.node(name).cloned()
}

/// Whether a key of the operator's file or of the environment says so, or nobody.
pub fn is_default(loaded: &Loaded, key: &str) -> bool {
    let keys: &BTreeMap<String, (String, Origin)> = &loaded.keys;
    keys.get(key).is_some_and(|(_, origin)| *origin == Origin::Default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_nodes() {
        let config = config::parse("", std::iter::empty()).unwrap().config;
        assert_eq!(short("VM1.example.org"), "vm1");
        assert_eq!(node_name(Some("n-2"), &config).unwrap(), "n-2");
        assert!(node_name(Some("n_2"), &config).is_err());
        let named = config::parse("[node]\nname = \"n3\"\n", std::iter::empty())
            .unwrap()
            .config;
        assert_eq!(node_name(None, &named).unwrap(), "n3");
    }

    #[test]
    fn what_is_replaced_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/config.toml");
        let loaded = config::parse("", std::iter::empty()).unwrap();
        let wanted = || vec![("node.name", Value::from("n1"))];
        let draft = Draft::make(&path, &loaded, wanted()).unwrap();
        assert!(draft.describe().ends_with("  node.name = \"n1\"\n"));
        draft.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = config::parse(&text, std::iter::empty()).unwrap();
        assert!(Draft::make(&path, &loaded, wanted()).unwrap().edits.is_empty());
        let other = Draft::make(&path, &loaded, vec![("node.name", "n2".into())]).unwrap();
        assert!(
            other
                .describe()
                .contains("node.name = \"n2\"  (replaces \"n1\" in line 2)")
        );
        assert!(
            Draft::make(&path, &loaded, vec![("db.run", false.into())]).is_err(),
            "it is alone"
        );
    }
}
