//! `waf`: the firewall's mode, its rules, and what it found on this node.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::settle::{Draft, UNIT, is_by_unit};
use super::{Format, require_root, table};
use crate::base::error::EXIT_OK;
use crate::config::{Config, Loaded, WafMode};
use crate::host::unit::Unit;
use crate::proxy::firewall::{self, Action, Entry};
use crate::proxy::waf::{Plan, Rule as Known};

/// How much of the log is read from its end: some thousand lines.
const TAIL: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Mode, rules, and what was found of late on this node
    Status(Show),
    /// Change the mode of this node while it runs
    Mode {
        #[arg(value_enum)]
        mode: Mode,
    },
    /// What a rule says; without an id, all rules
    Rule(Rule),
    /// What was found on this node, the newest last
    Log(Log),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    /// Look at nothing
    Off,
    /// Write down what looks like an attack, and let it on
    Detect,
    /// Refuse it with 403
    Block,
}

#[derive(Debug, Args)]
pub struct Show {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub struct Rule {
    id: Option<u64>,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Args)]
pub struct Log {
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    count: usize,
    /// Only requests that were refused, and answers that were held back
    #[arg(long)]
    blocked: bool,
    /// Only requests of this client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    #[command(flatten)]
    show: Show,
}

pub async fn perform(verb: Verb, loaded: Loaded, path: &Path) -> anyhow::Result<u8> {
    let text = match verb {
        Verb::Status(show) => status(&loaded.config, show.output)?,
        Verb::Mode { mode } => change(mode, &loaded, path).await?,
        Verb::Rule(rule) => rule.text(&rules(&loaded.config)?)?,
        Verb::Log(log) => log.text(&entries(&loaded.config)?)?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(EXIT_OK)
}

fn rules(config: &Config) -> anyhow::Result<Plan> {
    firewall::load(&config.waf).with_context(|| {
        let folders: Vec<String> = config.waf.rules.iter().map(|path| path.display().to_string()).collect();
        format!(
            "the rules in {} do not load; on Debian `apt install modsecurity-crs` brings a set, another one is named in waf.rules",
            folders.join(", ")
        )
    })
}

fn status(config: &Config, output: Format) -> anyhow::Result<String> {
    let mode = config.waf.mode.name();
    let found = entries(config)?;
    let count = |action| found.iter().filter(|entry| entry.action == action).count();
    let failed = count(Action::FailedOpen) + count(Action::FailedClosed);
    let (blocked, detected) = (count(Action::Blocked), count(Action::Detected));
    let answers = found.iter().filter(|entry| entry.answer.is_some()).count();
    let mut often: BTreeMap<u64, usize> = BTreeMap::new();
    for rule in found.iter().flat_map(|entry| &entry.hits).map(|hit| hit.rule) {
        *often.entry(rule).or_default() += 1;
    }
    let mut often: Vec<(u64, usize)> = often.into_iter().collect();
    often.sort_by_key(|(rule, count)| (std::cmp::Reverse(*count), *rule));
    often.truncate(5);
    let loaded = rules(config).map(|plan| plan.rules.len());
    if matches!(output, Format::Json) {
        let status = json!({
            "mode": mode,
            "answers": config.waf.answers().name(),
            "rules": loaded.as_ref().ok(),
            "error": loaded.as_ref().err().map(|error| format!("{error:#}")),
            "folders": config.waf.rules,
            "log": { "blocked": blocked, "detected": detected, "failed": failed, "answers": answers },
            "often": often.iter().map(|(rule, count)| json!({ "rule": rule, "count": count })).collect::<Vec<Value>>(),
        });
        return Ok(serde_json::to_string_pretty(&status)? + "\n");
    }
    let rules = match loaded {
        Ok(count) => count.to_string(),
        Err(error) => format!("none: {error:#}"),
    };
    let often: Vec<String> = often.iter().map(|(rule, count)| format!("{rule} ({count})")).collect();
    Ok(format!(
        "mode:      {mode}\nanswers:   {}\nrules:     {rules}\nin the log: {blocked} blocked, {detected} detected, {failed} not judged; of these {answers} are answers\nmost often: {}\n",
        config.waf.answers().name(),
        if often.is_empty() {
            "nothing".to_string()
        } else {
            often.join(", ")
        }
    ))
}

/// Writes the configuration and has the node read it. Rules that do not load are told before anything is changed.
async fn change(mode: Mode, loaded: &Loaded, path: &Path) -> anyhow::Result<String> {
    require_root()?;
    let wanted = match mode {
        Mode::Off => WafMode::Off,
        Mode::Detect => WafMode::Detect,
        Mode::Block => WafMode::Block,
    };
    if wanted != WafMode::Off {
        rules(&loaded.config)?;
    }
    let draft = Draft::make(path, loaded, vec![("waf.mode", wanted.name().into())])?;
    draft.write()?;
    let mut text = draft.describe();
    if draft.edits.is_empty() {
        return Ok(text);
    }
    match is_by_unit(path) {
        true => {
            let unit = Unit(UNIT.to_string());
            unit.reload().await.with_context(|| format!("reload {UNIT}"))?;
            text.push_str("the node has it now; `bitrix-node status --services` shows it\n");
        }
        false => text.push_str("send SIGHUP to `bitrix-node run`, and the node has it\n"),
    }
    Ok(text)
}

impl Rule {
    fn text(&self, plan: &Plan) -> anyhow::Result<String> {
        let picked: Vec<&Known> = match self.id {
            None => plan.rules.iter().collect(),
            Some(id) => plan.rules.iter().filter(|rule| rule.id == id).collect(),
        };
        if let (Some(id), []) = (self.id, picked.as_slice()) {
            bail!("there is no rule {id}; `bitrix-node waf rule` lists all");
        }
        if matches!(self.show.output, Format::Json) {
            let rules: Vec<Value> = picked.iter().map(|rule| described(rule)).collect();
            return Ok(serde_json::to_string_pretty(&rules)? + "\n");
        }
        if let (Some(_), [rule]) = (self.id, picked.as_slice()) {
            return Ok(format!(
                "rule:      {}\nplace:     {}\nphase:     {}\nmessage:   {}\nconditions: {}\ntags:      {}\n",
                rule.id,
                rule.place,
                rule.phase as u8,
                rule.title(),
                rule.links.len(),
                rule.tags.join(", ")
            ));
        }
        let mut table = table::new(&["RULE", "PHASE", "MESSAGE"]);
        for rule in picked {
            table.add_row([rule.id.to_string(), (rule.phase as u8).to_string(), rule.title()]);
        }
        Ok(table::text(&table))
    }
}

fn described(rule: &Known) -> Value {
    json!({
        "rule": rule.id,
        "place": rule.place.to_string(),
        "phase": rule.phase as u8,
        "message": rule.title(),
        "conditions": rule.links.len(),
        "severity": rule.severity,
        "tags": rule.tags,
    })
}

impl Log {
    fn text(&self, entries: &[Entry]) -> anyhow::Result<String> {
        let is_refused = |entry: &Entry| matches!(entry.action, Action::Blocked | Action::FailedClosed);
        let wanted = entries.iter().filter(|entry| {
            (!self.blocked || is_refused(entry)) && self.client.as_ref().is_none_or(|client| *client == entry.client)
        });
        let wanted: Vec<&Entry> = wanted.collect();
        let wanted = &wanted[wanted.len().saturating_sub(self.count)..];
        if matches!(self.show.output, Format::Json) {
            return Ok(serde_json::to_string_pretty(wanted)? + "\n");
        }
        let mut table = table::new(&["TIME", "CLIENT", "ACTION", "SCORE", "REQUEST", "RULES"]);
        for entry in wanted {
            let rules: Vec<String> = entry
                .hits
                .iter()
                .map(|hit| format!("{} {}", hit.rule, hit.target))
                .collect();
            table.add_row([
                entry.time.clone(),
                entry.client.clone(),
                format!("{:?}", entry.action).to_lowercase(),
                entry.score.to_string(),
                match &entry.answer {
                    Some(answer) => format!("{} {} -> {} {}", entry.method, entry.path, answer.status, answer.kind),
                    None => format!("{} {}", entry.method, entry.path),
                },
                rules.join("; "),
            ]);
        }
        Ok(table::text(&table))
    }
}

/// The last entries of the log; none where it was never written. Lines that are no entries are left out.
fn entries(config: &Config) -> anyhow::Result<Vec<Entry>> {
    let path = config
        .audit_log()
        .context("waf.audit_log is empty: nothing is written down")?;
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.with_context(|| path.display().to_string())?,
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text)?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(client: &str, action: Action) -> Entry {
        Entry {
            time: "2026-11-22T06:15:04.123Z".into(),
            id: "1".into(),
            client: client.into(),
            method: "GET".into(),
            host: "x".into(),
            path: "/a".into(),
            action,
            score: 5,
            rule: Some(949110),
            hits: Vec::new(),
            work: 1,
            fault: None,
            answer: None,
        }
    }

    #[test]
    fn the_log_is_picked_by_action_and_client() {
        let entries = [
            entry("192.0.2.1", Action::Detected),
            entry("192.0.2.1", Action::Blocked),
            entry("192.0.2.2", Action::Blocked),
        ];
        let log = Log {
            count: 5,
            blocked: true,
            client: Some("192.0.2.1".into()),
            show: Show { output: Format::Json },
        };
        let shown: Vec<Entry> = serde_json::from_str(&log.text(&entries).unwrap()).unwrap();
        assert_eq!(shown.len(), 1);
        assert_eq!(
            (shown[0].client.as_str(), shown[0].action),
            ("192.0.2.1", Action::Blocked)
        );
    }
}
