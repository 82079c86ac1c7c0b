//! The supervisor's look, each minute, whether this node shall make a backup now (`backup.daily`).

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::Place;
use super::create::Create;
use super::prune::Prune;
use crate::backup::schedule::{Schedule, due, place};
use crate::backup::{Backup, Kind, store};
use crate::base::error::EXIT_OK;
use crate::base::{Scope, clock};
use crate::cluster::{self, Fit, Role, Snapshot};
use crate::config::Config;
use crate::host::facts;

/// The agent says at once what it knows.
const ANSWER: Duration = Duration::from_secs(5);

pub async fn perform(config: &Config, path: &Path) -> anyhow::Result<u8> {
    let Some(daily) = config.backup.daily() else {
        return Ok(EXIT_OK);
    };
    let schedule = Schedule {
        daily,
        log_every: match config.backup.log {
            true => u64::try_from(config.backup.log_every.0.as_millis())?,
            false => 0,
        },
    };
    let (backups, _) = store::backups(Place::default().store(config)?.as_ref())?;
    let own = facts::node_name(config);
    if config.db.galera && !is_own_turn(config, &own, &backups).await? {
        return Ok(EXIT_OK);
    }
    match due(&backups, &own, clock::unix_millis(), schedule) {
        None => Ok(EXIT_OK),
        Some(Kind::Full) => full(config, path).await,
        // What cannot be continued is begun anew.
        Some(Kind::Log) => match Create::scheduled(Kind::Log).perform(config, path).await {
            Err(error) => {
                eprintln!("{error:#}");
                full(config, path).await
            }
            made => made,
        },
    }
}

async fn full(config: &Config, path: &Path) -> anyhow::Result<u8> {
    Create::scheduled(Kind::Full).perform(config, path).await?;
    Prune::default().perform(config)
}

async fn is_own_turn(config: &Config, own: &str, backups: &[Backup]) -> anyhow::Result<bool> {
    let scope = Scope::new();
    let mut snapshots = cluster::follow(config.view_socket(), &scope);
    let heard = timeout(ANSWER, snapshots.wait_for(|snapshot| snapshot.revision > 0)).await;
    let heard = heard.ok().and_then(Result::ok).map(|snapshot| snapshot.clone());
    scope.stop(Duration::ZERO).await;
    let snapshot = heard.context("the agent does not answer")?;
    Ok(turn(&snapshot, backups) == Some(own))
}

/// Pure.
fn turn<'a>(snapshot: &'a Snapshot, backups: &[Backup]) -> Option<&'a str> {
    let able = snapshot.nodes.iter().filter(|node| node.takes(Fit::DB));
    let mut able: Vec<&str> = able.map(|node| node.name.as_str()).collect();
    able.sort_unstable();
    let writer = snapshot.holder(Role::Db).map(|node| node.name.as_str());
    place(&able, writer, backups)
}
