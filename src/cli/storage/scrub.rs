//! `storage scrub`: begins a pass on this node and follows it to its end.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Connection;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::Config;
use crate::net::mesh::Caller;
use crate::storage::command::{Command, Report, ask};
use crate::storage::scrub::Counts;

const POLL: Duration = Duration::from_millis(200);

pub async fn scrub(config: &Config) -> anyhow::Result<u8> {
    let connection = Connection::open(config).await?;
    let followed = follow(&connection.caller).await;
    connection.close().await;
    let (before, after) = followed?;
    let found = [
        (after.mended - before.mended, "mended"),
        (
            after.unmended - before.unmended,
            "wrong here and not mended; the next pass tries again",
        ),
        (
            after.undecided - before.undecided,
            "differ, and no majority can say who is right",
        ),
    ];
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} files, {} MiB compared",
        after.files - before.files,
        (after.bytes - before.bytes) >> 20
    )?;
    for (count, what) in found.iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "{count} files {what}")?;
    }
    let is_well = found.iter().skip(1).all(|(count, _)| *count == 0);
    Ok(if is_well { EXIT_OK } else { EXIT_DEGRADED })
}

/// What was counted before the pass and after it.
async fn follow(caller: &Caller) -> anyhow::Result<(Counts, Counts)> {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is right");
    let bar = ProgressBar::new_spinner().with_style(style);
    let before = ask::<Report>(caller, &Command::Status).await?.scrub;
    ask::<()>(caller, &Command::Scrub).await?;
    loop {
        tokio::time::sleep(POLL).await;
        let now = ask::<Report>(caller, &Command::Status).await?.scrub;
        if now.passes > before.passes {
            bar.finish_and_clear();
            return Ok((before, now));
        }
        let (files, bytes) = (now.files - before.files, (now.bytes - before.bytes) >> 20);
        bar.set_message(format!("{files} files, {bytes} MiB"));
        bar.tick();
    }
}
