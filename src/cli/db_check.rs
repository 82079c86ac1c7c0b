//! `db check`: faults of what is in the database here, and their statements.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::{Format, table};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::Config;
use crate::db::inspect::look::Look;
use crate::db::inspect::{Finding, inspect};

#[derive(Debug, Args)]
pub struct Check {
    /// Carry out the statements that change no row and no text. Each one locks its table, and in a Galera cluster all others wait
    #[arg(long)]
    fix: bool,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Check {
    pub async fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let mut look = Look::open(&config.db_socket()).await?;
        let mut findings = inspect(&look.facts().await?);
        if self.fix && findings.iter().any(|finding| finding.is_safe) {
            look.may_mend().await?;
            for finding in findings.iter().filter(|finding| finding.is_safe) {
                eprintln!("{}", finding.statement);
                if let Err(error) = look.mend(finding).await {
                    eprintln!("bitrix-node: {}: {error:#}", finding.object);
                }
            }
            findings = inspect(&look.facts().await?);
        }
        let text = match self.output {
            Format::Json => serde_json::to_string_pretty(&json!(findings))? + "\n",
            Format::Table => render(&findings),
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(if findings.is_empty() { EXIT_OK } else { EXIT_DEGRADED })
    }
}

fn render(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing to mend\n".into();
    }
    let mut shown = table::new(&["WHAT", "FAULT"]);
    for finding in findings {
        shown.add_row([&finding.object, &finding.fault]);
    }
    let mut text = table::text(&shown);
    for (is_safe, heading) in [
        (true, "`bitrix-node db check --fix` carries out:"),
        (
            false,
            "These change texts: look at them, and have a backup, before you carry them out:",
        ),
    ] {
        let statements = findings.iter().filter(|finding| finding.is_safe == is_safe);
        let lines: String = statements
            .map(|finding| format!("  {};\n", finding.statement))
            .collect();
        if !lines.is_empty() {
            text += &format!("\n{heading}\n{lines}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_can_be_copied_and_say_who_carries_them_out() {
        let finding = |object: &str, is_safe| Finding {
            object: object.into(),
            fault: "wrong".into(),
            statement: format!("ALTER TABLE {object}"),
            is_safe,
        };
        let text = render(&[finding("a", true), finding("b", false)]);
        let (safe, other) = text.split_once("\nThese change texts").unwrap();
        assert!(
            safe.contains("\n  ALTER TABLE a;\n") && other.contains("\n  ALTER TABLE b;\n"),
            "{text}"
        );
        assert_eq!(render(&[]), "nothing to mend\n");
    }
}
