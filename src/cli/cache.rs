//! `cache`: the portal's cache over all nodes, through this node's own address of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Format, table};
use crate::base::error::EXIT_OK;
use crate::config::Config;

/// The cache itself answers within a second.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Items, memory and hits of each node
    Stats(Show),
    /// Remove everything, on all nodes: users are logged out
    Flush(Flush),
    /// Which node serves how much, and whether its copies are complete
    Shards(Show),
    /// Keys that are asked for most on this node
    TopKeys(TopKeys),
}

#[derive(Debug, Args)]
pub struct Show {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub struct Flush {
    /// Only what the portal's composite storage keeps
    #[arg(long)]
    composite: bool,
    /// Nothing is emptied without it
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct TopKeys {
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    count: usize,
    #[command(flatten)]
    show: Show,
}

/// Name → value, by node.
type Nodes = BTreeMap<String, BTreeMap<String, String>>;

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    let cache = config.cache.listen;
    let text = match verb {
        Verb::Stats(show) => {
            let columns = [
                "curr_items",
                "bytes",
                "limit_maxbytes",
                "get_hits",
                "get_misses",
                "cmd_set",
                "evictions",
            ];
            let heading = ["NODE", "ITEMS", "BYTES", "OF", "HITS", "MISSES", "SETS", "EVICTED"];
            render(&nodes(cache, &config).await?, show.output, &heading, &columns)?
        }
        Verb::Shards(show) => {
            let columns = ["epoch", "shards_owned", "shards_copied", "copies_waiting_bytes"];
            let heading = ["NODE", "EPOCH", "OWNS", "COPIES", "TO BE SENT"];
            render(&nodes(cache, &config).await?, show.output, &heading, &columns)?
        }
        Verb::TopKeys(top) => top_keys(&rows(cache, "stats top-keys").await?, &top)?,
        Verb::Flush(flush) => flush.perform(&config).await?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(EXIT_OK)
}

impl Flush {
    async fn perform(&self, config: &Config) -> anyhow::Result<String> {
        ensure!(
            self.yes,
            "this empties the cache on all nodes{}; say --yes if that is what you want",
            if self.composite { "" } else { " and logs users out" }
        );
        let address = match (self.composite, config.cache.composite.first()) {
            (false, _) => config.cache.listen,
            (true, Some(address)) => *address,
            (true, None) => bail!("cache.composite names no address"),
        };
        let lines = ask(address, "flush_all").await?;
        match lines.first().map(String::as_str) {
            Some("OK") => Ok("the cache is empty on all nodes\n".to_string()),
            other => bail!("the cache answered {:?}", other.unwrap_or_default()),
        }
    }
}

/// Numbers of each node; of this one alone where there are no others.
async fn nodes(cache: SocketAddr, config: &Config) -> anyhow::Result<Nodes> {
    let own = config.node.name.clone();
    let mut nodes = Nodes::new();
    for (name, value) in rows(cache, "stats cluster").await? {
        let (node, name) = match name.split_once(':') {
            Some((node, name)) => (node.to_string(), name.to_string()),
            None => (own.clone(), name),
        };
        nodes.entry(node).or_default().insert(name, value);
    }
    Ok(nodes)
}

/// The rows of an answer to `stats`.
async fn rows(cache: SocketAddr, request: &str) -> anyhow::Result<Vec<(String, String)>> {
    let lines = ask(cache, request).await?;
    let rows = lines.iter().filter_map(|line| {
        let (name, value) = line.strip_prefix("STAT ")?.rsplit_once(' ')?;
        Some((name.to_string(), value.to_string()))
    });
    Ok(rows.collect())
}

/// Lines of the answer, the last one included.
async fn ask(address: SocketAddr, request: &str) -> anyhow::Result<Vec<String>> {
    let asking = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = BufReader::new(stream);
        stream.write_all(format!("{request}\r\n").as_bytes()).await?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(
                stream.read_line(&mut line).await? > 0,
                "the cache closed the connection"
            );
            let line = line.trim_end().to_string();
            let is_last = !line.starts_with("STAT ");
            lines.push(line);
            if is_last {
                return Ok(lines);
            }
        }
    };
    let answered = timeout(PATIENCE, asking).await;
    answered
        .with_context(|| format!("no answer within {PATIENCE:?}"))
        .and_then(|answer| answer)
        .with_context(|| format!("ask the cache at {address}"))
}

fn render(nodes: &Nodes, output: Format, heading: &[&str], columns: &[&str]) -> anyhow::Result<String> {
    if matches!(output, Format::Json) {
        return Ok(serde_json::to_string_pretty(nodes)? + "\n");
    }
    let mut table = table::new(heading);
    for (node, values) in nodes {
        let value = |name: &&str| values.get(*name).cloned().unwrap_or_else(|| "-".to_string());
        let row = std::iter::once(node.clone()).chain(columns.iter().map(value));
        table.add_row(row.collect::<Vec<String>>());
    }
    Ok(table::text(&table))
}

fn top_keys(rows: &[(String, String)], top: &TopKeys) -> anyhow::Result<String> {
    let rows = rows.iter().take(top.count);
    if matches!(top.show.output, Format::Json) {
        let rows: Vec<_> = rows.map(|(key, count)| json!({ "key": key, "asked": count })).collect();
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    let mut table = table::new(&["KEY", "ASKED IN THE LAST MINUTES, ABOUT"]);
    for (key, count) in rows {
        table.add_row([key, count]);
    }
    Ok(table::text(&table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_number_shows_a_dash() {
        let values = BTreeMap::from([("bytes".to_string(), "7".to_string())]);
        let nodes = Nodes::from([("n1".to_string(), values)]);
        let text = render(&nodes, Format::Table, &["NODE", "BYTES", "OF"], &["bytes", "limit"]).unwrap();
        assert_eq!(text, "NODE  BYTES  OF\nn1    7      -\n");
    }
}
