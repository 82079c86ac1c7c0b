//! `storage status`: verdict first, then a line per member, then how this node sees the files.

use std::io::Write;

use serde::Serialize;

use super::super::{Format, table};
use super::Connection;
use super::mount::Seen;
use crate::base::Health;
use crate::base::error::{EXIT_DEGRADED, EXIT_DOWN, EXIT_OK};
use crate::config::{Config, Engine};
use crate::storage::command::{Command, Member, Report, Role, ask};

pub async fn show(config: &Config, output: Format) -> anyhow::Result<u8> {
    if config.storage.engine == Engine::External {
        return show_external(config, output).await;
    }
    // Side by side: neither waits for the other's silence.
    let (report, seen) = tokio::join!(replica(config), Seen::look(config));
    let (report, seen) = (report?, seen?);
    let text = match output {
        Format::Table => render(&report) + &seen.as_ref().map(Seen::line).unwrap_or_default(),
        Format::Json => {
            let document = Document {
                report: Some(&report),
                external: None,
                files: seen.as_ref(),
            };
            serde_json::to_string_pretty(&document)? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    let (_, code) = verdict(&report);
    Ok(code.max(files_verdict(seen.as_ref()).1.min(EXIT_DEGRADED)))
}

/// What this node's storage says of itself and its group.
pub async fn replica(config: &Config) -> anyhow::Result<Report> {
    let connection = Connection::open(config).await?;
    let report = ask::<Report>(&connection.caller, &Command::Status).await;
    connection.close().await;
    report
}

async fn show_external(config: &Config, output: Format) -> anyhow::Result<u8> {
    let seen = Seen::look(config).await?;
    let (verdict, code) = files_verdict(seen.as_ref());
    let external = config.storage.external.as_str();
    let text = match output {
        Format::Table => {
            let line = seen.as_ref().map(Seen::line).unwrap_or_default();
            format!("{verdict}  engine external, {external}\n{line}")
        }
        Format::Json => {
            let document = Document {
                report: None,
                external: Some(external),
                files: seen.as_ref(),
            };
            serde_json::to_string_pretty(&document)? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(code)
}

/// For programs: the report's own fields, and what is beside it.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: Option<&'a Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<&'a str>,
    files: Option<&'a Seen>,
}

fn files_verdict(seen: Option<&Seen>) -> (&'static str, u8) {
    match seen.map(|seen| seen.health) {
        None | Some(Health::Good) => ("HEALTHY", EXIT_OK),
        Some(Health::Starting | Health::Degraded) => ("DEGRADED", EXIT_DEGRADED),
        Some(Health::Failed) => ("DOWN", EXIT_DOWN),
    }
}

/// One word, and the exit code.
fn verdict(report: &Report) -> (&'static str, u8) {
    match () {
        () if report.role == Role::Waiting => ("WAITING", EXIT_DEGRADED),
        () if report.leader.is_none() => ("DOWN", EXIT_DOWN),
        () if report.is_full || report.copies < report.wanted => ("DEGRADED", EXIT_DEGRADED),
        () => ("HEALTHY", EXIT_OK),
    }
}

fn render(report: &Report) -> String {
    let (verdict, _) = verdict(report);
    if report.role == Role::Waiting {
        return format!(
            "{verdict}  {} has no replica yet; on a node of the group: bitrix-node storage add {} ADDRESS\n",
            report.node, report.node
        );
    }
    let leader = report.leader.as_deref().unwrap_or("nobody");
    let mut text = format!(
        "{verdict}  copies now: {} of {}  leader {leader}, term {}\n",
        report.copies, report.wanted, report.term
    );
    text += &format!(
        "log {} MiB, disk free {} MiB, {} requests/s (as {} sees it)\n",
        report.log_bytes.div_ceil(1 << 20),
        report.free_bytes >> 20,
        report.requests,
        report.node
    );
    let (transfer, scrub) = (&report.transfer, &report.scrub);
    if transfer.files < transfer.files_total {
        text += &format!(
            "a state is on its way: {} of {} files, {} of {} MiB\n",
            transfer.files,
            transfer.files_total,
            transfer.bytes >> 20,
            transfer.bytes_total >> 20
        );
    }
    if scrub.mended + scrub.unmended + scrub.undecided > 0 {
        text += &format!(
            "scrub: {} files mended, {} wrong, {} undecided since the start\n",
            scrub.mended, scrub.unmended, scrub.undecided
        );
    }
    if report.is_full {
        text += "the disk is nearly full: nothing new is taken\n";
    }
    let mut rows = table::new(&["NODE", "REPLICA", "ADDRESS", "VOTES", "COPY", "LAG"]);
    for member in &report.members {
        rows.add_row([
            member.name.clone(),
            member.number.to_string(),
            member.address.clone(),
            if member.votes { "yes" } else { "no" }.to_owned(),
            copy(member).to_owned(),
            member.lag.map_or("-".to_owned(), |lag| lag.to_string()),
        ]);
    }
    text + &table::text(&rows)
}

fn copy(member: &Member) -> &'static str {
    match (member.witness, member.in_sync) {
        (true, _) => "witness",
        (false, true) => "in sync",
        (false, false) => "behind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_copy_is_said_first() {
        let member = |name: &str, number, in_sync| Member {
            name: name.into(),
            number,
            address: format!("10.0.0.{number}:7401"),
            votes: true,
            witness: false,
            in_sync,
            lag: Some(0),
        };
        let report = Report {
            node: "n1".into(),
            role: Role::Leader,
            leader: Some("n1".into()),
            term: 4,
            copies: 2,
            wanted: 3,
            members: vec![member("n1", 1, true), member("n2", 2, true), member("n3", 3, false)],
            log_bytes: 3 << 20,
            free_bytes: 1 << 30,
            is_full: false,
            requests: 12,
            ..Report::default()
        };
        let text = render(&report);
        assert!(
            text.starts_with("DEGRADED  copies now: 2 of 3  leader n1, term 4\n"),
            "{text}"
        );
        assert!(
            text.contains("n3    3        10.0.0.3:7401  yes    behind   0\n"),
            "{text}"
        );
        assert_eq!(verdict(&report).1, EXIT_DEGRADED);
        let led = Report { leader: None, ..report };
        assert_eq!(verdict(&led).1, EXIT_DOWN);
        assert!(render(&Report::default()).starts_with("WAITING"));
    }
}
