//! `push`: the push server of this node: who listens, what is said, what was refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::{Format, table};
use crate::base::clock::stamp;
use crate::base::error::EXIT_OK;
use crate::config::Config;

const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks, from which rates are known.
const LOOK: Duration = Duration::from_secs(1);
/// Metrics of the module begin so.
const OURS: &str = "bitrix_push_";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Connections, channels, messages kept, rates, and what was refused
    Status(Show),
    /// What clients listen to, and how many do
    Channels(Channels),
    /// Messages as they are delivered, from now on
    Tail(Tail),
}

#[derive(Debug, Args)]
pub struct Show {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub struct Channels {
    /// How many
    #[arg(short = 'n', long, default_value_t = 100)]
    count: usize,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Args)]
#[group(skip)]
pub struct Tail {
    /// A channel as `push channels` shows it, its id, or user:NUMBER
    #[arg(required_unless_present = "all")]
    channel: Option<String>,
    /// Of every channel
    #[arg(long, conflicts_with = "channel")]
    all: bool,
    /// What they say, too: it is private
    #[arg(long)]
    bodies: bool,
    /// Json: one object a line
    #[command(flatten)]
    show: Show,
}

/// Metrics by name and label.
type Numbers = BTreeMap<String, f64>;

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    let text = match verb {
        Verb::Status(show) => {
            let before = numbers(&config).await?;
            sleep(LOOK).await;
            status(&before, &numbers(&config).await?, show.output)?
        }
        Verb::Channels(channels) => {
            let listened = whole(&config, "channels").await?;
            let listened: Vec<Value> = listened.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
            channels.render(listened)?
        }
        Verb::Tail(tail) => return tail.perform(&config).await,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(EXIT_OK)
}

async fn ask(config: &Config, question: &str) -> anyhow::Result<BufReader<UnixStream>> {
    let path = config.push_control();
    let mut stream = UnixStream::connect(&path).await.with_context(|| {
        format!(
            "the push server does not answer at {}; does bitrix-node run, and are you root?",
            path.display()
        )
    })?;
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    Ok(BufReader::new(stream))
}

/// An answer that comes at once.
async fn whole(config: &Config, question: &str) -> anyhow::Result<String> {
    let mut stream = ask(config, question).await?;
    let mut text = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.with_context(|| format!("no answer within {PATIENCE:?}"))??;
    Ok(text)
}

async fn numbers(config: &Config) -> anyhow::Result<Numbers> {
    let numbers = parse(&whole(config, "numbers").await?);
    ensure!(!numbers.is_empty(), "the push server gave no numbers");
    Ok(numbers)
}

/// Of OpenMetrics text, the samples of the module: `published_total{by="portal"}` as `published portal`.
fn parse(text: &str) -> Numbers {
    let samples = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix(OURS)?.rsplit_once(' ')?;
        let (name, label) = match name.split_once('{') {
            Some((name, label)) => (name, label.split('"').nth(1)?),
            None => (name, ""),
        };
        let name = name.strip_suffix("_total").unwrap_or(name);
        Some((format!("{name} {label}").trim_end().to_string(), value.parse().ok()?))
    });
    samples.collect()
}

fn status(before: &Numbers, now: &Numbers, output: Format) -> anyhow::Result<String> {
    let of = |numbers: &Numbers, name: &str| numbers.get(name).copied().unwrap_or_default();
    let rate = |name: &str| (of(now, name) - of(before, name)) / LOOK.as_secs_f64();
    let (published, delivered) = (rate("published portal") + rate("published client"), rate("delivered"));
    if matches!(output, Format::Json) {
        let value = json!({ "numbers": now, "published_per_second": published, "delivered_per_second": delivered });
        return Ok(serde_json::to_string_pretty(&value)? + "\n");
    }
    let mut table = table::new(&["WHAT", "NOW", "PER SECOND"]);
    for (what, name) in [
        ("WebSockets", "connections websocket"),
        ("long polls", "connections poll"),
        ("channels and users listened to", "channels"),
        ("messages kept", "kept"),
        ("bytes of them", "kept_bytes"),
    ] {
        table.add_row([what.to_string(), of(now, name).to_string(), String::new()]);
    }
    for (what, name) in [
        ("published by the portal", "published portal"),
        ("published by clients", "published client"),
        ("delivered", "delivered"),
    ] {
        table.add_row([what.to_string(), of(now, name).to_string(), rate(name).to_string()]);
    }
    for (name, value) in now.iter().filter(|(name, _)| is_refusal(name)) {
        table.add_row([name.replacen(' ', ": ", 1), value.to_string(), rate(name).to_string()]);
    }
    Ok(table::text(&table))
}

/// `refused wrong_channel`, `cut slow`.
fn is_refusal(name: &str) -> bool {
    name.starts_with("refused ") || name.starts_with("cut ")
}

impl Channels {
    fn render(self, mut listened: Vec<Value>) -> anyhow::Result<String> {
        let count = |one: &Value| one["connections"].as_u64().unwrap_or_default();
        let name = |one: &Value| one["channel"].as_str().unwrap_or_default().to_owned();
        listened.sort_by_key(|one| (std::cmp::Reverse(count(one)), name(one)));
        listened.truncate(self.count);
        if matches!(self.show.output, Format::Json) {
            return Ok(serde_json::to_string_pretty(&listened)? + "\n");
        }
        let mut table = table::new(&["CHANNEL", "CONNECTIONS"]);
        for one in &listened {
            table.add_row([name(one), count(one).to_string()]);
        }
        Ok(table::text(&table))
    }
}

impl Tail {
    async fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let words = [
            Some("tail"),
            self.bodies.then_some("bodies"),
            self.channel.as_deref().filter(|_| !self.all),
        ];
        let question = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let mut lines: Lines<_> = ask(config, &question).await?.lines();
        let mut out = std::io::stdout();
        while let Some(line) = lines.next_line().await.context("the push server went away")? {
            match self.show.output {
                Format::Json => writeln!(out, "{line}")?,
                Format::Table => writeln!(out, "{}", row(&serde_json::from_str(&line)?))?,
            }
            out.flush()?;
        }
        Ok(EXIT_OK)
    }
}

/// A message on one line.
fn row(told: &Value) -> String {
    if let Some(missed) = told["missed"].as_u64() {
        return format!("({missed} messages went by unseen)");
    }
    let text = |name: &str| told[name].as_str().unwrap_or("-").to_owned();
    let number = |name: &str| told[name].as_u64().unwrap_or_default();
    let channels: Vec<&str> = told["channels"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let body = match &told["body"] {
        Value::Null => String::new(),
        body => format!("  {body}"),
    };
    format!(
        "{}  {}  {}  to {}  {} bytes, reached {}{body}",
        stamp(UNIX_EPOCH + Duration::from_millis(number("time"))),
        text("sender"),
        text("what"),
        channels.join(" "),
        number("bytes"),
        number("reached"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: &str = "# TYPE bitrix_push_published counter\nbitrix_push_published_total{by=\"portal\"} 7\n\
        bitrix_push_connections{transport=\"websocket\"} 2\nbitrix_push_refused_total{reason=\"wrong_channel\"} 1\n\
        bitrix_push_kept 3\nbitrix_other 4\n";

    #[test]
    fn numbers_are_read_and_rates_are_known() {
        let before = parse(NUMBERS);
        assert_eq!(
            (before["published portal"], before["kept"], before.len()),
            (7.0, 3.0, 4)
        );
        let now = parse(&NUMBERS.replace("} 7", "} 19"));
        let text = status(&before, &now, Format::Table).unwrap();
        let has = |words: &[&str]| {
            text.lines().any(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|word| !word.is_empty())
                    .eq(words.iter().copied())
            })
        };
        assert!(has(&["published by the portal", "19", "12"]), "{text}");
        assert!(has(&["refused: wrong_channel", "1", "0"]), "{text}");
        assert!(has(&["WebSockets", "2"]), "{text}");
        let json: Value = serde_json::from_str(&status(&before, &now, Format::Json).unwrap()).unwrap();
        assert_eq!(
            (&json["published_per_second"], &json["numbers"]["kept"]),
            (&json!(12.0), &json!(3.0))
        );
    }

    #[test]
    fn a_message_stands_on_one_line() {
        let told = json!({"time": 1000, "sender": "portal", "what": "im.message", "channels": ["user:7", "public:ab"], "bytes": 9, "reached": 2});
        assert_eq!(
            row(&told),
            "1970-01-01T00:00:01.000Z  portal  im.message  to user:7 public:ab  9 bytes, reached 2"
        );
        assert_eq!(row(&json!({"missed": 3})), "(3 messages went by unseen)");
    }
}
