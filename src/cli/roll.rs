//! The part of `upgrade` that all nodes take part in: the file goes onto the shared files, the wish into the registry.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::upgrade::say;
use super::{Format, table};
use crate::agent::upgrade::{BUILD, DONE, DOWNTIME, PAUSED, Parcel, RUNNING, STATE, TARGET, TURN, Target, setting};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::Config;
use crate::node::upgrade::{Candidate, Key};
use crate::registry::{self, Change, Files, Guard, NodeState, Publish, Registry, View, Write};

/// The registry of a cluster.
pub struct Shared {
    files: Arc<dyn Files>,
    publish: Publish,
    view: Arc<View>,
}

impl Shared {
    /// `None`: this node is alone.
    pub async fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        let boot = registry::random()?;
        let Some(files) = registry::files(config, boot).await? else {
            return Ok(None);
        };
        let publish = Publish::new(files.clone(), &registry::author(config)?, boot, None);
        let view = publish.read().await?;
        let others = view.nodes().filter(|node| node.state != NodeState::Left).count() > 1;
        Ok(others.then_some(Shared { files, publish, view }))
    }

    async fn require(config: &Config) -> anyhow::Result<Self> {
        let shared = Shared::open(config).await?;
        shared.context("this node is alone; use `bitrix-node upgrade apply --from FILE`, and `upgrade status`")
    }

    /// The nodes take their turns by themselves.
    pub async fn send(
        &self,
        config: &Config,
        from: &Path,
        candidate: &Candidate,
        version: &str,
        allow_downtime: bool,
    ) -> anyhow::Result<u8> {
        let key = &config.upgrade.key;
        ensure!(
            Key::read(key)?.is_some(),
            "other nodes take nothing that nobody vouches for: put the release key into {} on each node, or use --here on each",
            key.display()
        );
        let old = self.state();
        ensure!(
            old != RUNNING,
            "another version is on its way; `bitrix-node upgrade plan` shows it, `bitrix-node upgrade pause` stops it"
        );
        let serving = self.view.nodes().filter(|node| node.state == NodeState::Member).count();
        ensure!(
            serving > 1 || allow_downtime,
            "no other node could serve meanwhile; wait until one can, or use --allow-downtime"
        );
        let mut signature = from.as_os_str().to_os_string();
        signature.push(".sig");
        let parcel = Parcel {
            content: candidate.content().to_vec(),
            signature: std::fs::read(&signature).context("the signature")?,
        };
        let target = parcel.send(&*self.files, version, registry::random()?).await?;
        let downtime = if allow_downtime { "allowed" } else { "" };
        let change = Change::put(setting(TARGET, &target.to_string()))
            .and(Write::Put(setting(STATE, RUNNING)))
            .and(Write::Put(setting(DOWNTIME, downtime)))
            .and(Write::Event(format!(
                "upgrade: version {version} is wished on all nodes"
            )))
            .when(self.guard(STATE));
        self.publish.commit(change).await?;
        // What was sent before is not asked for any more.
        if let Some(old) = self.view.setting(TARGET).and_then(Target::parse) {
            let _ = Parcel::remove(&*self.files, &old).await;
        }
        say("the nodes take their turns; `bitrix-node upgrade plan` shows how far they are")
    }

    fn state(&self) -> &str {
        self.view.setting(STATE).unwrap_or_default()
    }

    fn guard(&self, key: &str) -> Guard {
        match self.view.setting(key) {
            Some(value) => Guard::Is(setting(key, value)),
            None => Guard::Absent(registry::Key::Setting(key.to_owned())),
        }
    }
}

/// `pause` and `resume`.
pub async fn set(config: &Config, state: &str) -> anyhow::Result<u8> {
    let shared = Shared::require(config).await?;
    match shared.state() {
        // Whoever was silent is taken along.
        DONE if state == RUNNING => {}
        "" | DONE => bail!("no other version is on its way; `bitrix-node upgrade apply --from FILE` sends one"),
        old if old == state => return say(&format!("it is {state} already")),
        _ => {}
    }
    let what = if state == PAUSED { "is paused" } else { "goes on" };
    let change = Change::put(setting(STATE, state))
        .and(Write::Event(format!("upgrade: the roll {what}")))
        .when(shared.guard(STATE));
    shared.publish.commit(change).await?;
    say(&format!("the roll {what}"))
}

pub async fn plan(config: &Config, output: Format) -> anyhow::Result<u8> {
    let shared = Shared::require(config).await?;
    let view = &shared.view;
    let target = view.setting(TARGET).and_then(Target::parse);
    let turn = view
        .setting(TURN)
        .unwrap_or_default()
        .split(' ')
        .next()
        .unwrap_or_default();
    let nodes = view.nodes().filter(|node| node.state != NodeState::Left);
    let rows: Vec<Value> = nodes
        .map(|node| {
            let build = node.labels.get(BUILD);
            let is_new = target
                .as_ref()
                .zip(build)
                .is_some_and(|(target, build)| target.hash.starts_with(build.as_str()));
            let how = match () {
                () if node.name == turn => "its turn",
                () if is_new => "done",
                () if target.is_some() => "to come",
                () => "",
            };
            json!({ "node": node.name, "version": node.version, "state": node.state.name(), "upgrade": how })
        })
        .collect();
    let state = if shared.state().is_empty() {
        "none"
    } else {
        shared.state()
    };
    let version = target.map_or_else(|| "none".to_owned(), |target| target.version);
    let text = match output {
        Format::Json => {
            let document = json!({ "target": version, "state": state, "turn": turn, "nodes": rows });
            serde_json::to_string_pretty(&document)? + "\n"
        }
        Format::Table => {
            let columns = ["node", "version", "state", "upgrade"];
            let mut table = table::new(&["NODE", "VERSION", "STATE", "UPGRADE"]);
            for row in &rows {
                table.add_row(columns.map(|column| row[column].as_str().unwrap_or_default()));
            }
            format!("version {version}: {state}\n{}", table::text(&table))
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if state.starts_with("failed") {
        EXIT_DEGRADED
    } else {
        EXIT_OK
    })
}
