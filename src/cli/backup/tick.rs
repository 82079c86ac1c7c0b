//! The supervisor's look, each minute, whether this node shall make a backup now (`backup.daily`). Of a Galera cluster that is the holder
//! of the role `backup`; what another one began and did not bring to its end, it makes anew.

use std::future::pending;
use std::path::Path;

use super::Place;
use super::create::Create;
use super::prune::Prune;
use super::restored::Restored;
use super::seat::Seat;
use super::{say_ahead, source};
use crate::backup::schedule::{Schedule, due, set_apart};
use crate::backup::{Kind, store};
use crate::base::clock;
use crate::base::error::EXIT_OK;
use crate::config::Config;
use crate::host::facts;

pub async fn perform(config: &Config, path: &Path) -> anyhow::Result<u8> {
    let Some(schedule) = schedule(config)? else {
        return Ok(EXIT_OK);
    };
    if let Some(Restored { backup, from }) = Restored::read(config)? {
        eprintln!(
            "no backups are made until the files of {backup} are in the storage: `bitrix-node backup restore {from} --files`"
        );
        return Ok(EXIT_OK);
    }
    if !config.db.galera {
        return make(config, path, schedule, None).await;
    }
    let seat = Seat::open(config).await?;
    let made = match seat.is_own() {
        true => make(config, path, schedule, Some(&seat)).await,
        false => Ok(EXIT_OK),
    };
    seat.close().await;
    made
}

/// What the configuration wants; `None`: nothing by the clock.
pub fn schedule(config: &Config) -> anyhow::Result<Option<Schedule>> {
    let Some(daily) = config.backup.daily() else {
        return Ok(None);
    };
    let log_every = match config.backup.log {
        true => u64::try_from(config.backup.log_every.0.as_millis())?,
        false => 0,
    };
    Ok(Some(Schedule { daily, log_every }))
}

async fn make(config: &Config, path: &Path, schedule: Schedule, seat: Option<&Seat>) -> anyhow::Result<u8> {
    let (mut backups, _) = store::backups(Place::default().store(config)?.as_ref())?;
    // The store may hold those of a cluster that was lost, too.
    let cluster = source::cluster(config);
    backups.retain(|backup| backup.manifest.cluster == cluster);
    let now = clock::unix_millis();
    let apart = set_apart(&mut backups, now);
    let create = |kind| Create::scheduled(kind).perform(config, path, lost(seat));
    match due(&backups, &facts::node_name(config), now, schedule) {
        None => return Ok(EXIT_OK),
        Some(Kind::Full) => {
            say_ahead(&apart);
            create(Kind::Full).await?
        }
        // What cannot be continued is begun anew.
        Some(Kind::Log) => match create(Kind::Log).await {
            Ok(done) => return Ok(done),
            Err(error) => {
                eprintln!("{error:#}");
                create(Kind::Full).await?
            }
        },
    };
    Prune::scheduled().perform(config)
}

async fn lost(seat: Option<&Seat>) -> String {
    match seat {
        Some(seat) => seat.lost().await,
        None => pending().await,
    }
    "another node makes the backups now".to_owned()
}
