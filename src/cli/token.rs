//! `token`: the right to join, for one machine and a limited time. The registry keeps no more of it than a hash.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Format, registry, require_root, table};
use crate::agent::join::Token;
use crate::base::clock;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::{Config, Period, Port};
use crate::net::mesh::trust::Trust;
use crate::registry::{Change, Guard, Key, Publish, Record, Registry, Token as Kept, View, Write as Put};

/// Time to walk over to the other machine.
pub const TTL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make one and print the line for the new machine; its secret is shown this once
    Create(Create),
    /// Those that were not used yet
    List {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Make it worthless
    Revoke {
        /// As `token list` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// How long it may be used, at most 7 days
    #[arg(long, default_value = "1h", value_parser = period)]
    ttl: Period,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

fn period(text: &str) -> Result<Period, String> {
    let period = Period::parse(text).ok_or("write it like 30m, 1h or 2days")?;
    match period.0 > Duration::ZERO && period.0 <= LONGEST {
        true => Ok(period),
        false => Err("a token lives for more than nothing and at most 7 days".into()),
    }
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    require_root()?;
    let mut out = std::io::stdout();
    let registry = registry::open(&config).await?;
    match verb {
        Verb::Create(Create { ttl, output }) => {
            let token = create(&config, &registry, ttl.0).await?;
            let line = join_line(&config, &token)?;
            match output {
                Format::Table => writeln!(out, "within {ttl}, on the new machine:\n  {line}")?,
                Format::Json => {
                    let token = json!({"id": token.id, "token": token.to_string(), "line": line});
                    writeln!(out, "{}", serde_json::to_string_pretty(&token)?)?;
                }
            }
        }
        Verb::List { output } => {
            let view = registry.read().await?;
            out.write_all(list(&view, clock::unix_millis(), output)?.as_bytes())?;
        }
        Verb::Revoke { id } => {
            let key = Key::Token(id.clone());
            let view = registry.read().await?;
            if view.get(&key).is_none() {
                writeln!(out, "there is no token {id}; it was used, revoked, or never made")?;
                return Ok(EXIT_DEGRADED);
            }
            let event = Put::Event(format!("token {id} was revoked"));
            registry
                .commit(Change::default().and(Put::Remove(key)).and(event))
                .await?;
            writeln!(out, "token {id} is worthless now")?;
        }
    }
    Ok(EXIT_OK)
}

/// Makes one; those that have expired go.
pub async fn create(config: &Config, registry: &Publish, ttl: Duration) -> anyhow::Result<Token> {
    let trust = Trust::new(config.trust());
    ensure!(
        trust.exists() && config.mesh(Port::Agent).is_some(),
        "this node meets no others yet; run: bitrix-node init --address ADDRESS"
    );
    let token = Token::generate(trust.fingerprint()?).context("random numbers")?;
    let kept = Kept {
        id: token.id.clone(),
        hash: token.hash(),
        expires: clock::unix_millis() + u64::try_from(ttl.as_millis())?,
    };
    let key = Key::Token(token.id.clone());
    let mut change = Change::put(Record::Token(kept)).when(Guard::Absent(key));
    for expired in registry
        .read()
        .await?
        .tokens()
        .filter(|token| token.expires <= clock::unix_millis())
    {
        change = change.and(Put::Remove(Key::Token(expired.id.clone())));
    }
    registry
        .commit(change.and(Put::Event(format!("token {} was made", token.id))))
        .await?;
    Ok(token)
}

/// What an admin pastes on the new machine.
pub fn join_line(config: &Config, token: &Token) -> anyhow::Result<String> {
    let address = config.mesh(Port::Agent).context("cluster.address is not set")?;
    let address = match address.port() {
        Port::FIRST => address.ip().to_string(),
        _ => address.to_string(),
    };
    Ok(format!("bitrix-node join {address} --token {token}"))
}

fn list(view: &View, now: u64, output: Format) -> anyhow::Result<String> {
    let rows: Vec<(String, String, bool)> = view
        .tokens()
        .map(|token| {
            let until = clock::stamp(UNIX_EPOCH + Duration::from_millis(token.expires)).to_string();
            (token.id.clone(), until, token.expires <= now)
        })
        .collect();
    if output == Format::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(id, until, is_over)| json!({"id": id, "until": until, "expired": is_over}))
            .collect();
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    let mut table = table::new(&["TOKEN", "UNTIL", "STATE"]);
    for (id, until, is_over) in rows {
        table.add_row([id, until, if is_over { "expired" } else { "valid" }.to_string()]);
    }
    Ok(table::text(&table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_more_than_nothing_and_at_most_a_week() {
        assert_eq!(period("90m").unwrap().0, Duration::from_secs(5400));
        for bad in ["0s", "8days", "", "1"] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_shows_what_holds_and_no_hash() {
        let token = |id: &str, expires| {
            Record::Token(Kept {
                id: id.into(),
                hash: [171; 32],
                expires,
            })
        };
        let view = View::from_records([token("a1", 1000), token("b2", 3000)]);
        let expected = "\
TOKEN  UNTIL                     STATE
a1     1970-01-01T00:00:01.000Z  expired
b2     1970-01-01T00:00:03.000Z  valid
";
        assert_eq!(list(&view, 2000, Format::Table).unwrap(), expected);
        assert!(!list(&view, 2000, Format::Json).unwrap().contains("171"));
    }

    #[test]
    fn the_line_names_the_port_only_where_it_must() {
        let token = Token::generate("ab".repeat(32).parse().unwrap()).unwrap();
        for (section, address) in [
            ("address = \"10.0.0.1\"", "10.0.0.1"),
            ("address = \"10.0.0.1\"\nport = 7500", "10.0.0.1:7500"),
            ("address = \"fd00::1\"\nport = 7500", "[fd00::1]:7500"),
        ] {
            let text = format!("[cluster]\n{section}\n");
            let config = crate::config::parse(&text, std::iter::empty()).unwrap().config;
            let line = join_line(&config, &token).unwrap();
            assert_eq!(line, format!("bitrix-node join {address} --token {token}"));
        }
    }
}
