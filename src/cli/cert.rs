//! `cert`: the portal's certificates, on all nodes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::seats::Cluster;
use super::{Format, period, require_root, table};
use crate::acme;
use crate::agent::cert::{account_key, account_sealed_as, put, remove};
use crate::base::clock;
use crate::base::error::EXIT_OK;
use crate::cert::{ByWhom, Certificate, Entry, Facts, Sealed, Sealer, Source, entries, is_covered, normal};
use crate::config::{Config, Period, excess, is_host};
use crate::net::tls;
use crate::registry::{Change, View, Write as Put};

/// As long as a command waits for this node to see its change.
const SOON: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Each certificate: names, issuer, until when, when it is renewed, and what went wrong last
    List {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Get a certificate for these names from the directory of acme.directory, and wait for it
    Issue(Issue),
    /// Serve a certificate of your own on all nodes
    Import {
        /// PEM, the certificate itself first
        chain: PathBuf,
        /// PEM, without a passphrase
        key: PathBuf,
    },
    /// Get a new one now, and wait for it
    Renew(Renew),
    /// Have the directory declare it invalid, and get another one
    Revoke {
        name: String,
        /// Somebody else has its key
        #[arg(long)]
        compromised: bool,
    },
    /// Serve and renew it no more
    Remove { name: String },
}

#[derive(Debug, Args)]
pub struct Issue {
    #[arg(required = true)]
    names: Vec<String>,
    #[arg(long, default_value = "3m", value_parser = period)]
    timeout: Period,
}

#[derive(Debug, Args)]
pub struct Renew {
    /// One of its names
    name: String,
    #[arg(long, default_value = "3m", value_parser = period)]
    timeout: Period,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    require_root()?;
    let mut cluster = Cluster::open(&config).await?;
    let done = match verb {
        Verb::List { output } => list(&cluster.snapshot().settings, &config, output),
        Verb::Issue(issue) => issue.perform(&mut cluster, &config).await,
        Verb::Import { chain, key } => import(&mut cluster, &config, &chain, &key).await,
        Verb::Renew(renew) => renew.perform(&mut cluster).await,
        Verb::Revoke { name, compromised } => revoke(&mut cluster, &config, &name, compromised).await,
        Verb::Remove { name } => take_out(&mut cluster, &name).await,
    };
    cluster.close().await;
    done.map(|()| EXIT_OK)
}

fn settings(view: &View) -> BTreeMap<String, String> {
    let all = view.settings();
    all.map(|one| (one.key.clone(), one.value.clone())).collect()
}

/// The entry that an operator calls by one of its names; by all of them where several have it.
fn named(settings: &BTreeMap<String, String>, name: &str) -> anyhow::Result<Entry> {
    let wanted = normal([name]);
    let all = entries(settings);
    let mut found: Vec<&Entry> = all
        .iter()
        .filter(|entry| wanted.iter().all(|name| entry.names.contains(name)))
        .collect();
    // Of several with the name, the one that is called by it.
    let is_called = |entry: &&Entry| wanted.first().map(String::as_str) == Some(entry.name());
    if found.len() > 1 && found.iter().copied().filter(|entry| is_called(entry)).count() == 1 {
        found.retain(|entry| is_called(entry));
    }
    match found.as_slice() {
        [entry] => Ok((*entry).clone()),
        [] => bail!("there is no certificate for {name}; `bitrix-node cert list` shows which there are"),
        _ => bail!("several certificates have the name {name}; use another of their names"),
    }
}

fn time(seconds: u64) -> String {
    let text = clock::stamp(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    // To the minute: 2026-11-27T03:00:00.000Z.
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

fn list(settings: &BTreeMap<String, String>, config: &Config, output: Format) -> anyhow::Result<()> {
    let mut rows: Vec<Value> = entries(settings).iter().map(row).collect();
    rows.push(of_files(config));
    let text = match output {
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Format::Table => render(&rows),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn row(entry: &Entry) -> Value {
    let facts = entry.certificate.as_ref().and_then(|held| Facts::of(&held.chain).ok());
    let directory = match &entry.source {
        Source::Acme { directory, .. } => Some(directory),
        Source::Import => None,
    };
    let renewal = match (&entry.failure, entry.is_imported()) {
        (_, true) => None,
        (Some(failure), _) => Some(failure.again),
        (None, _) => Some(entry.renew_at),
    };
    json!({
        "names": entry.names,
        "from": directory.map_or("import", String::as_str),
        "issuer": facts.as_ref().map(|facts| &facts.issuer),
        "until": facts.as_ref().map(|facts| facts.ends),
        "renewal": renewal,
        "ordered": entry.order.is_some(),
        "error": entry.failure.as_ref().map(|failure| &failure.why),
        "attempts": entry.failure.as_ref().map(|failure| failure.count),
    })
}

/// The one that is shown where no other fits.
fn of_files(config: &Config) -> Value {
    let (chain, _) = config.certificate();
    let read = std::fs::read_to_string(&chain).and_then(|chain| Facts::of(&chain));
    let (facts, error) = match read {
        Ok(facts) => (Some(facts), None),
        Err(error) => (None, Some(error.to_string())),
    };
    json!({
        "names": facts.as_ref().map(|facts| &facts.names),
        "from": chain,
        "issuer": facts.as_ref().map(|facts| &facts.issuer),
        "until": facts.as_ref().map(|facts| facts.ends),
        "renewal": Value::Null,
        "ordered": false,
        "error": error,
    })
}

fn render(rows: &[Value]) -> String {
    let mut table = table::new(&["NAMES", "ISSUER", "UNTIL", "RENEWAL", "FROM", "LAST ERROR"]);
    let now = clock::unix().as_secs();
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_string();
        let names: Vec<&str> = row["names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let renewal = match row["renewal"].as_u64() {
            None => "-".to_string(),
            Some(_) if row["ordered"] == true && row["error"].is_null() => "under way".to_string(),
            Some(at) if at <= now => "now".to_string(),
            Some(at) => time(at),
        };
        let until = row["until"].as_u64().map_or_else(|| "-".to_string(), time);
        let error = match row["attempts"].as_u64() {
            Some(count) if count > 1 => format!("{} ({count} times)", text("error")),
            _ => text("error"),
        };
        table.add_row([names.join(" "), text("issuer"), until, renewal, text("from"), error]);
    }
    table::text(&table)
}

impl Issue {
    async fn perform(&self, cluster: &mut Cluster, config: &Config) -> anyhow::Result<()> {
        let url = config.acme.url();
        let directory = url.context("acme.directory is empty; set it, for example to \"production\", on all nodes")?;
        let names = normal(&self.names);
        for name in &names {
            ensure!(
                is_host(name),
                "{name:?} is no host name of the public DNS; a certificate for it can be imported only: bitrix-node cert import"
            );
        }
        if let Some(excess) = excess(&names) {
            bail!(excess);
        }
        let source = Source::Acme {
            directory,
            by: ByWhom::Operator,
        };
        let fresh = Entry::new(names, source);
        let changed = cluster
            .commit(|view| {
                let settings = settings(view);
                let known = settings.get(&fresh.key()).and_then(|text| Entry::parse(text));
                let wanted = match known {
                    Some(known) if known.is_imported() => {
                        bail!("that one is imported; bitrix-node cert remove {}", known.name())
                    }
                    Some(known) if known.certificate.is_some() && known.failure.is_none() => return Ok(None),
                    // Tried again at once.
                    Some(known) => Entry { failure: None, ..known },
                    None => fresh.clone(),
                };
                let event = format!("certificate of {}: the operator wants it", wanted.name());
                Ok(Some(put(&settings, &wanted).and(Put::Event(event))))
            })
            .await?;
        match changed {
            Some(view) => wait(cluster, &fresh, &view, self.timeout.0, None).await,
            None => {
                writeln!(
                    std::io::stdout(),
                    "it is there already; bitrix-node cert renew {}",
                    fresh.name()
                )?;
                Ok(())
            }
        }
    }
}

impl Renew {
    async fn perform(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let changed = cluster
            .commit(|view| {
                let settings = settings(view);
                let entry = named(&settings, &self.name)?;
                ensure!(
                    !entry.is_imported(),
                    "it is imported: import its successor, bitrix-node cert import"
                );
                let next = Entry {
                    renew_at: 0,
                    failure: None,
                    ..entry
                };
                let event = format!("certificate of {}: the operator wants a new one", next.name());
                Ok(Some(put(&settings, &next).and(Put::Event(event))))
            })
            .await?;
        let view = changed.context("nothing was changed")?;
        let entry = named(&settings(&view), &self.name)?;
        let old = entry.certificate.clone();
        wait(cluster, &entry, &view, self.timeout.0, old.as_ref()).await
    }
}

/// Until this node has seen the change: the next command shall find it.
async fn seen(cluster: &mut Cluster, changed: Option<&View>) {
    if let Some(view) = changed {
        cluster.wait(view.revision, SOON, |_| true, |_| {}).await;
    }
}

/// Until there is another certificate than `old`, or an attempt failed.
async fn wait(
    cluster: &mut Cluster,
    entry: &Entry,
    view: &View,
    patience: Duration,
    old: Option<&Certificate>,
) -> anyhow::Result<()> {
    let key = entry.key();
    let of = |settings: &BTreeMap<String, String>| settings.get(&key).and_then(|text| Entry::parse(text));
    let is_new = |entry: &Entry| entry.certificate.is_some() && entry.certificate.as_ref() != old;
    let over = |entry: &Entry| is_new(entry) || entry.failure.is_some();
    let done = cluster
        .wait(
            view.revision,
            patience,
            |seen| of(&seen.settings).is_none_or(|entry| over(&entry)),
            |_| {},
        )
        .await;
    let Some(entry) = of(&cluster.snapshot().settings) else {
        bail!("it was taken out meanwhile");
    };
    match (&entry.certificate, &entry.failure) {
        (_, Some(failure)) => bail!(
            "{}; it is tried again at {}. `bitrix-node cert list` shows how it stands",
            failure.why,
            time(failure.again)
        ),
        (Some(held), None) if is_new(&entry) => {
            let facts = Facts::of(&held.chain)?;
            let text = format!(
                "{}: issued by {}, until {}",
                entry.names.join(" "),
                facts.issuer,
                time(facts.ends)
            );
            writeln!(std::io::stdout(), "{text}")?;
            Ok(())
        }
        _ if !done => bail!(
            "it is not there after {}; it goes on by itself. Does a node have the seat acme? bitrix-node role list",
            humantime::format_duration(patience)
        ),
        _ => bail!("it was taken out meanwhile"),
    }
}

async fn import(cluster: &mut Cluster, config: &Config, chain: &Path, key: &Path) -> anyhow::Result<()> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let (chain, key) = (read(chain)?, read(key)?);
    tls::check_pair(&chain, &key)?;
    let facts = Facts::of(&chain)?;
    ensure!(
        !facts.names.is_empty(),
        "the certificate is for no host name; browsers look at its subjectAltName"
    );
    ensure!(
        facts.ends > clock::unix().as_secs(),
        "the certificate has expired at {}",
        time(facts.ends)
    );
    let mut entry = Entry::new(facts.names.clone(), Source::Import);
    let sealer = Sealer::read(&config.cert_key())?;
    entry.certificate = Some(Certificate {
        key: sealer.seal(&entry.sealed_as(), &key)?,
        chain,
    });
    let event = format!("certificate of {}: imported, until {}", entry.name(), time(facts.ends));
    let change = |view: &View| Ok(Some(put(&settings(view), &entry).and(Put::Event(event.clone()))));
    let changed = cluster.commit(change).await?;
    seen(cluster, changed.as_deref()).await;
    writeln!(
        std::io::stdout(),
        "{}: served on all nodes, until {}",
        facts.names.join(" "),
        time(facts.ends)
    )?;
    let domain = &config.portal.domain;
    if !domain.is_empty() && !is_covered(&facts.names, domain) {
        eprintln!("bitrix-node: it is not for {domain}, the portal's own name");
    }
    Ok(())
}

async fn revoke(cluster: &mut Cluster, config: &Config, name: &str, compromised: bool) -> anyhow::Result<()> {
    let snapshot = cluster.snapshot();
    let entry = named(&snapshot.settings, name)?;
    let (Source::Acme { directory, .. }, Some(held)) = (&entry.source, &entry.certificate) else {
        bail!("only who issued it can revoke it; bitrix-node cert remove takes it out here");
    };
    let sealed = snapshot.settings.get(&account_key(directory)).cloned().map(Sealed);
    let sealed = sealed.context("the cluster has no account at the directory any more")?;
    let known = Sealer::read(&config.cert_key())?.open(&account_sealed_as(directory), &sealed)?;
    let acme = &config.acme;
    let roots = (!acme.ca.as_os_str().is_empty()).then_some(acme.ca.as_path());
    let (account, _) = acme::open(directory, &acme.contact, roots, Some(&known)).await?;
    again(async || acme::revoke(&account, &held.chain, compromised).await).await?;
    let change = |view: &View| {
        let settings = settings(view);
        let now = named(&settings, name)?;
        if now.certificate.as_ref() != Some(held) {
            return Ok(None);
        }
        let next = Entry {
            certificate: None,
            renew_at: 0,
            failure: None,
            ..now
        };
        let event = format!("certificate of {}: revoked by the operator", next.name());
        Ok(Some(put(&settings, &next).and(Put::Event(event))))
    };
    let changed = cluster.commit(change).await?;
    seen(cluster, changed.as_deref()).await;
    writeln!(
        std::io::stdout(),
        "{}: revoked; a new one is got",
        entry.names.join(" ")
    )?;
    Ok(())
}

/// Until the directory is content with the nonce.
async fn again(ask: impl AsyncFn() -> Result<(), acme::Error>) -> anyhow::Result<()> {
    const NONCES: u32 = 30;
    for _ in 0..NONCES {
        match ask().await {
            Err(error) if error.kind == acme::Kind::Again => {}
            other => return Ok(other?),
        }
    }
    bail!("the directory refuses every nonce")
}

async fn take_out(cluster: &mut Cluster, name: &str) -> anyhow::Result<()> {
    let change = |view: &View| -> anyhow::Result<Option<Change>> {
        let settings = settings(view);
        let entry = named(&settings, name)?;
        let event = format!("certificate of {}: taken out by the operator", entry.name());
        Ok(remove(&settings, &entry.key()).map(|change| change.and(Put::Event(event))))
    };
    let changed = cluster.commit(change).await?;
    seen(cluster, changed.as_deref()).await;
    writeln!(std::io::stdout(), "{name}: served and renewed no more")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::Failure;

    fn acme(names: &[&str]) -> Entry {
        let source = Source::Acme {
            directory: "https://ca.example/dir".into(),
            by: ByWhom::Operator,
        };
        Entry::new(normal(names), source)
    }

    #[test]
    fn a_certificate_is_called_by_its_names_if_that_is_clear() {
        let all = [
            acme(&["a.example", "b.example"]),
            acme(&["b.example", "c.example"]),
            acme(&["d.example", "c.example"]),
        ];
        let settings = all.iter().map(|entry| (entry.key(), entry.to_string())).collect();
        let find = |name| {
            named(&settings, name)
                .map(|entry| entry.names.join(" "))
                .map_err(|error| error.to_string())
        };
        assert_eq!(find("A.example").unwrap(), "a.example b.example");
        assert_eq!(find("b.example").unwrap(), "b.example c.example");
        assert!(find("c.example").unwrap_err().contains("several"));
        assert!(find("x.example").unwrap_err().contains("cert list"));
    }

    #[test]
    fn what_is_under_way_and_what_failed_is_shown() {
        let mut entry = acme(&["a.example"]);
        entry.failure = Some(Failure {
            why: "connection: refused".into(),
            count: 3,
            at: 0,
            again: 4_102_444_800,
        });
        let text = render(&[row(&entry)]);
        assert!(
            text.contains("2100-01-01 00:00") && text.contains("connection: refused (3 times)"),
            "{text}"
        );
        entry.failure = None;
        assert!(render(&[row(&entry)]).contains("now"));
        let (chain, key) = tls::self_signed(vec!["b.example".into()]).unwrap();
        let mut own = Entry::new(vec!["b.example".into()], Source::Import);
        let key = Sealer::new("x").seal(&own.sealed_as(), &key).unwrap();
        own.certificate = Some(Certificate { chain, key });
        let text = row(&own).to_string();
        assert!(
            text.contains("\"import\"") && text.contains("bitrix-node") && !text.contains("PRIVATE"),
            "{text}"
        );
    }
}
