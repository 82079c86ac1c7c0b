//! `cdn`: the cache of this node's front: what it keeps, and what shall be removed from it.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Format, table};
use crate::base::error::EXIT_OK;
use crate::config::Config;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// What is kept, and how often it served
    Status(Show),
    /// Remove what is kept on this node
    Purge(Purge),
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
    let text = match verb {
        Verb::Status(show) => status(&ask(&config, "status").await?, show.output)?,
        Verb::Purge(purge) => {
            let answer = ask(&config, &purge.question()?).await?;
            match purge.show.output {
                Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
                Format::Table => format!("removed: {} addresses\n", answer["removed"]),
            }
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(EXIT_OK)
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

fn status(answer: &Value, output: Format) -> anyhow::Result<String> {
    if matches!(output, Format::Json) {
        return Ok(serde_json::to_string_pretty(answer)? + "\n");
    }
    if answer["is_on"] != true {
        return Ok("nothing is kept: proxy.cache is 0\n".to_string());
    }
    let mut table = table::new(&["WHAT", "NOW"]);
    for (what, name) in [
        ("addresses kept", "addresses"),
        ("bytes of them", "bytes"),
        ("of", "capacity"),
        ("requests served", "hits"),
        ("requests passed on", "misses"),
    ] {
        table.add_row([what.to_string(), answer["counts"][name].to_string()]);
    }
    Ok(table::text(&table))
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn numbers_are_shown_and_words_are_words() {
        let counts = json!({ "addresses": 3, "bytes": 4096, "capacity": 8192, "hits": 2, "misses": 1 });
        let text = status(&json!({ "is_on": true, "counts": counts }), Format::Table).unwrap();
        assert!(text.contains("addresses kept") && text.contains("4096"), "{text}");
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
