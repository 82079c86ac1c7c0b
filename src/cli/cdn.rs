//! `cdn`: the caches of all nodes' fronts: what they keep, and what shall be removed from them. This node's front asks the others.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Format, table};
use crate::base::clock;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::Config;
use crate::proxy::cdn::{Key, Signer};
use crate::proxy::path::Path;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// What is kept, and how often it served
    Status(Show),
    /// Remove what is kept, on all nodes
    Purge(Purge),
    /// Sign the address of a file in proxy.cdn_signed
    Sign(Sign),
}

#[derive(Debug, Args)]
pub struct Sign {
    /// Its path, as in a link: /upload/private/a%20b.png
    path: String,
    /// How long it holds at least; twice as long at most. Without it proxy.cdn_signed_for
    #[arg(long = "for", value_name = "TIME")]
    period: Option<humantime::Duration>,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Args)]
pub struct Show {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub struct Purge {
    /// At addresses that begin so: /news/ on every host, or https://portal.example/news/
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["tag", "all"])]
    prefix: Option<String>,
    /// What its maker named so, by Cache-Tag, Surrogate-Key or X-LiteSpeed-Tag
    #[arg(long, conflicts_with_all = ["prefix", "all"])]
    tag: Option<String>,
    /// Everything
    #[arg(long, conflicts_with = "prefix")]
    all: bool,
    #[command(flatten)]
    show: Show,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    let (question, output) = match verb {
        Verb::Status(show) => ("status".to_string(), show.output),
        Verb::Purge(purge) => (purge.question()?, purge.show.output),
        Verb::Sign(sign) => {
            std::io::stdout().write_all(sign.address(&config)?.as_bytes())?;
            return Ok(EXIT_OK);
        }
    };
    let (text, code) = render(&ask(&config, &question).await?, output)?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(code)
}

impl Sign {
    /// The address, or JSON with it.
    fn address(&self, config: &Config) -> anyhow::Result<String> {
        let proxy = &config.proxy;
        ensure!(
            !proxy.cdn_signed.is_empty(),
            "no folder needs signed addresses; list some in proxy.cdn_signed"
        );
        let path = Path::parse(&self.path).map_err(anyhow::Error::msg)?;
        let period = self.period.map_or(proxy.cdn_signed_for.0, |period| period.into());
        let signer = Signer::new(Key::read(&proxy.cdn_key)?, proxy.cdn_signed.clone(), period);
        ensure!(
            signer.has(path.as_str()),
            "{} is in none of the folders in proxy.cdn_signed, and needs no signature",
            self.path
        );
        let host = match proxy.cdn_host.as_str() {
            "" => String::new(),
            host => format!("//{host}"),
        };
        let address = format!("{host}{}?{}", self.path, signer.query(path.as_str(), clock::wall()));
        Ok(match self.show.output {
            Format::Table => format!("{address}\n"),
            Format::Json => format!("{:#}\n", serde_json::json!({ "address": address })),
        })
    }
}

impl Purge {
    fn question(&self) -> anyhow::Result<String> {
        let (what, text) = match (&self.prefix, &self.tag) {
            (Some(prefix), _) => ("prefix", prefix),
            (None, Some(tag)) => ("tag", tag),
            (None, None) => return Ok("purge all".to_string()),
        };
        let is_word = !text.is_empty() && !text.contains(char::is_whitespace);
        ensure!(
            is_word,
            "\"{text}\" must be one word; write a space in an address as %20"
        );
        Ok(format!("purge {what} {text}"))
    }
}

async fn ask(config: &Config, question: &str) -> anyhow::Result<Value> {
    let path = config.proxy_control();
    let mut stream = UnixStream::connect(&path).await.with_context(|| {
        format!(
            "the front does not answer at {}; does bitrix-node run, and are you root?",
            path.display()
        )
    })?;
    let mut text = String::new();
    let asking = async {
        stream.write_all(format!("{question}\n").as_bytes()).await?;
        stream.read_to_string(&mut text).await
    };
    let read = timeout(PATIENCE, asking).await;
    read.with_context(|| format!("no answer within {PATIENCE:?}"))??;
    let answer: Value = serde_json::from_str(&text).context("the front's answer cannot be read")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("the front answered: {error}");
    }
    Ok(answer)
}

/// The answers of all nodes, and whether all of them answered.
fn render(answer: &Value, output: Format) -> anyhow::Result<(String, u8)> {
    let nodes = answer["nodes"].as_array().context("the front's answer has no nodes")?;
    let is_whole = nodes.iter().all(|node| node.get("error").is_none());
    let code = if is_whole { EXIT_OK } else { EXIT_DEGRADED };
    if matches!(output, Format::Json) {
        return Ok((serde_json::to_string_pretty(answer)? + "\n", code));
    }
    let is_purge = nodes.iter().any(|node| node.get("removed").is_some());
    let mut table = match is_purge {
        true => table::new(&["NODE", "REMOVED", ""]),
        false => table::new(&["NODE", "ADDRESSES", "BYTES", "OF", "SERVED", "PASSED ON", ""]),
    };
    for node in nodes {
        table.add_row(row(node, is_purge));
    }
    Ok((table::text(&table), code))
}

fn row(node: &Value, is_purge: bool) -> Vec<String> {
    let names: &[&str] = match is_purge {
        true => &["removed"],
        false => &["addresses", "bytes", "capacity", "hits", "misses"],
    };
    let numbers = if is_purge { node } else { &node["counts"] };
    let said = names
        .iter()
        .map(|name| numbers.get(name).map_or("-".into(), Value::to_string));
    let remark = match node["error"].as_str() {
        Some(error) => error,
        None if node["is_on"] == false => "nothing is kept: proxy.cache is 0",
        None => "",
    };
    let name = node["node"].as_str().unwrap_or_default().to_string();
    std::iter::once(name).chain(said).chain([remark.to_string()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn each_node_has_a_line_and_a_silent_one_degrades() {
        let counts = json!({ "addresses": 3, "bytes": 4096, "capacity": 8192, "hits": 2, "misses": 1 });
        let on = json!({ "node": "n1", "is_on": true, "counts": counts });
        let off = json!({ "node": "n2", "is_on": false });
        let away = json!({ "node": "n3", "error": "no answer within 1s" });
        let removed = json!({ "node": "n1", "removed": 7 });
        for (nodes, lines, expected) in [
            (
                json!([on, off]),
                &["n1    3          4096   8192  2       1", "n2    -"][..],
                EXIT_OK,
            ),
            (json!([removed]), &["n1    7"], EXIT_OK),
            (
                json!([removed, away]),
                &["n1    7", "n3    -        no answer within 1s"],
                EXIT_DEGRADED,
            ),
        ] {
            let (text, code) = render(&json!({ "nodes": nodes }), Format::Table).unwrap();
            assert_eq!(code, expected, "{text}");
            for line in lines {
                assert!(text.lines().any(|found| found.starts_with(line)), "{line} in\n{text}");
            }
        }
    }

    #[test]
    fn words_are_words() {
        let purge = |prefix: &str| Purge {
            prefix: Some(prefix.into()),
            tag: None,
            all: false,
            show: Show { output: Format::Table },
        };
        assert_eq!(purge("/a/").question().unwrap(), "purge prefix /a/");
        assert!(purge("/a b").question().is_err());
    }
}
