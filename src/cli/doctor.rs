//! `doctor`: what is wrong with the cluster, by what it shows, and what to do about it.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{Format, status};
use crate::agent::doctor::{COUNT, Facts, Finding, Severity, examine};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::Config;

#[derive(Debug, Args)]
pub struct Doctor {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// For programs.
#[derive(Debug, Serialize)]
struct Document<'a> {
    rules: usize,
    findings: &'a [Finding],
}

impl Doctor {
    pub async fn perform(self, config: Config) -> anyhow::Result<u8> {
        let findings = look(&config).await?;
        let text = match self.output {
            Format::Table => render(&findings),
            Format::Json => {
                let document = Document {
                    rules: COUNT,
                    findings: &findings,
                };
                serde_json::to_string_pretty(&document)? + "\n"
            }
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(if findings.is_empty() { EXIT_OK } else { EXIT_DEGRADED })
    }
}

async fn look(config: &Config) -> anyhow::Result<Vec<Finding>> {
    // Side by side: each waits for those who are silent.
    let (cluster, ports) = tokio::join!(status::fetch_cluster(config), status::fetch_ports(config));
    let Some(cluster) = cluster? else {
        return Ok(vec![not_running(config)]);
    };
    Ok(examine(&Facts {
        cluster: &cluster,
        // The ports are one rule of many.
        ports: &ports.ok().flatten().unwrap_or_default(),
    }))
}

fn not_running(config: &Config) -> Finding {
    Finding {
        severity: Severity::Fail,
        id: "node".into(),
        cause: "bitrix-node does not run here".into(),
        evidence: format!("nobody answers at {}", config.control_socket().display()),
        remedy: "systemctl start bitrix-node; if it does not stay: bitrix-node logs -n 50".into(),
    }
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = format!("{:?}", finding.severity).to_uppercase();
        text += &format!(
            "{severity}  {}\n      {}\n      seen  {}\n      do    {}\n",
            finding.id, finding.cause, finding.evidence, finding.remedy
        );
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (failed, warned) = (count(Severity::Fail), count(Severity::Warn));
    text + &match findings.is_empty() {
        true => format!("nothing found by {COUNT} rules\n"),
        false => format!("{failed} failed, {warned} warned, of {COUNT} rules\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_goes_from_cause_to_remedy() {
        let finding = |severity, id: &str| Finding {
            severity,
            id: id.into(),
            cause: "n2 is off".into(),
            evidence: "no heartbeat".into(),
            remedy: "switch it on".into(),
        };
        let text = render(&[finding(Severity::Fail, "node.silent")]);
        let expected = "FAIL  node.silent\n      n2 is off\n      seen  no heartbeat\n      do    switch it on\n1 failed, 0 warned, of ";
        assert!(text.starts_with(expected), "{text}");
        assert!(render(&[]).starts_with("nothing found by "));
    }
}
