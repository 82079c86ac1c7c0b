//! `registry show`, `history`, `export`: the shared facts of the cluster, for the operator. Reads only; no secret is printed.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Format, require_root, table};
use crate::base::clock::stamp;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK, chain};
use crate::base::file::{self, Access};
use crate::config::Config;
use crate::registry::{self, Error, LastSeen, Publish, Registry, Version, View};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Nodes, roles and settings
    Show(Show),
    /// The versions that are kept, with author, time and what changed
    History {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Write a version into a file that sqlite3 opens
    Export {
        file: PathBuf,
        /// This version instead of the newest one
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub struct Show {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// This version instead of the newest one
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    require_root()?;
    match verb {
        Verb::Show(show) => show.perform(&config).await,
        Verb::History { output } => history(&config, output).await,
        Verb::Export { file, revision } => export(&config, &file, revision).await,
    }
}

/// For root; the caller looks whether it is.
pub(super) async fn open(config: &Config) -> anyhow::Result<Publish> {
    // Looking must not make it: root's folder would shut the agent out.
    if let Some(folder) = registry::folder(config) {
        anyhow::ensure!(folder.exists(), "there is no registry in {} yet", folder.display());
    }
    let boot = registry::random()?;
    match registry::files(config, boot).await? {
        Some(files) => Ok(Publish::new(files, &registry::author(config)?, boot, None)),
        None => bail!("there is no registry here: it needs a storage.engine other than \"none\""),
    }
}

async fn version(publish: &Publish, revision: Option<u64>) -> anyhow::Result<(Arc<View>, Bytes)> {
    let Some(revision) = revision else {
        return Ok(publish.newest().await?);
    };
    let found = publish.version(revision).await?;
    let (view, image) = found
        .with_context(|| format!("version {revision} is not kept; `bitrix-node registry history` shows which are"))?;
    Ok((Arc::new(view), image))
}

impl Show {
    async fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let publish = open(config).await?;
        let (view, trouble) = match version(&publish, self.revision).await {
            Ok((view, _)) => (view, None),
            Err(error) => match (self.revision, error.downcast_ref::<Error>()) {
                (None, Some(Error::Unreachable(_))) => (last_seen(config, &error).await?, Some(error)),
                _ => return Err(error),
            },
        };
        let text = match self.output {
            Format::Table => render(&view),
            Format::Json => serde_json::to_string_pretty(&document(&view))? + "\n",
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(match trouble {
            None => EXIT_OK,
            Some(error) => {
                eprintln!(
                    "bitrix-node: {}; this is what this node saw last",
                    chain(error.as_ref())
                );
                EXIT_DEGRADED
            }
        })
    }
}

async fn last_seen(config: &Config, error: &anyhow::Error) -> anyhow::Result<Arc<View>> {
    let view = LastSeen::new(&config.view()).load().await?;
    view.with_context(|| format!("{}; and this node has not seen it yet", chain(error.as_ref())))
}

async fn history(config: &Config, output: Format) -> anyhow::Result<u8> {
    let publish = open(config).await?;
    let (view, versions) = (publish.read().await?, publish.versions().await?);
    let rows = versions.iter().rev().map(|Version { revision, size }| {
        let commit = view.history.iter().find(|commit| commit.revision == *revision);
        json!({
            "revision": revision,
            "size": size,
            "time": commit.map(|commit| time(commit.time)),
            "author": commit.map(|commit| &commit.author),
            "changed": commit.map(|commit| &commit.summary),
        })
    });
    let rows: Vec<Value> = rows.collect();
    let text = match output {
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Format::Table => {
            let columns = ["revision", "time", "author", "size", "changed"];
            let mut table = table::new(&columns.map(str::to_uppercase).each_ref().map(String::as_str));
            for row in &rows {
                table.add_row(columns.map(|column| cell(&row[column])));
            }
            table::text(&table)
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(EXIT_OK)
}

async fn export(config: &Config, file: &std::path::Path, revision: Option<u64>) -> anyhow::Result<u8> {
    let (view, image) = version(&open(config).await?, revision).await?;
    let file = std::path::absolute(file)?;
    // It holds hashes of tokens.
    file::replace(&file, &image, Access::mode(0o600)).with_context(|| file.display().to_string())?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "version {}, {} bytes, in {}",
        view.revision,
        image.len(),
        file.display()
    )?;
    if out.is_terminal() {
        writeln!(out, "look into it with: sqlite3 -readonly {}", file.display())?;
    }
    Ok(EXIT_OK)
}

fn document(view: &View) -> Value {
    json!({
        "revision": view.revision,
        "last_seen": view.is_last_seen,
        "cluster": view.cluster(),
        "nodes": view.nodes().collect::<Vec<_>>(),
        "roles": view.roles().collect::<Vec<_>>(),
        "settings": view.settings().collect::<Vec<_>>(),
        "tokens": view.tokens().collect::<Vec<_>>(),
        "events": view.events,
    })
}

fn render(view: &View) -> String {
    let mark = if view.is_last_seen { "  (last seen)" } else { "" };
    let cluster = view.cluster().map_or("", |cluster| cluster.name.as_str());
    let mut text = format!("VERSION {}{mark}  {cluster}", view.revision)
        .trim_end()
        .to_string()
        + "\n";
    let mut nodes = table::new(&["NODE", "ADDRESS", "STATE", "VERSION", "LABELS"]);
    for node in view.nodes() {
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(label, value)| format!("{label}={value}"))
            .collect();
        let state = node.state.name().to_string();
        nodes.add_row([&node.name, &node.address, &state, &node.version, &labels.join(" ")]);
    }
    text.push_str(&format!("\n{}", table::text(&nodes)));
    let mut roles = table::new(&["ROLE", "SEAT", "HOLDER", "EPOCH"]);
    for role in view.roles() {
        let holder = role.holder.clone().unwrap_or_else(|| "-".into());
        roles.add_row([&role.role, &role.seat, &holder, &role.epoch.to_string()]);
    }
    if view.roles().next().is_some() {
        text.push_str(&format!("\n{}", table::text(&roles)));
    }
    let mut settings = table::new(&["SETTING", "VALUE"]);
    for setting in view.settings() {
        settings.add_row([&setting.key, &setting.value]);
    }
    if view.settings().next().is_some() {
        text.push_str(&format!("\n{}", table::text(&settings)));
    }
    text
}

fn time(milliseconds: u64) -> String {
    stamp(std::time::UNIX_EPOCH + std::time::Duration::from_millis(milliseconds)).to_string()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Change, MemoryRegistry, Node, NodeState, Record, Role, Token, Write};

    #[tokio::test]
    async fn what_is_shown_lines_up_and_holds_no_secret() {
        let node = Node {
            name: "node1".into(),
            address: "10.0.0.1".into(),
            state: NodeState::Member,
            labels: [("zone".to_string(), "a".to_string())].into(),
            version: "0.1.0".into(),
        };
        let role = Role {
            role: "cron".into(),
            seat: String::new(),
            holder: Some("node1".into()),
            epoch: 7,
        };
        let token = Token {
            id: "t1".into(),
            hash: [0xab; 32],
            expires: 1,
        };
        let change = Change::put(Record::Node(node))
            .and(Write::Put(Record::Role(role)))
            .and(Write::Put(Record::Token(token)));
        let view = MemoryRegistry::new("node1").commit(change).await.unwrap();
        let expected = "\
VERSION 1

NODE   ADDRESS   STATE   VERSION  LABELS
node1  10.0.0.1  member  0.1.0    zone=a

ROLE  SEAT  HOLDER  EPOCH
cron        node1   7
";
        assert_eq!(render(&view), expected);
        let shown = document(&view).to_string();
        assert!(
            shown.contains("\"t1\"") && !shown.contains("171") && !shown.contains("hash"),
            "{shown}"
        );
    }
}
