//! `backup prune`: what retention lets go, and what is left of backups that did not come to their end.

use std::io::Write;

use clap::Args;

use super::Place;
use crate::backup::retention::{Keep, outdated};
use crate::backup::{Kind, manifest, store};
use crate::base::clock;
use crate::base::error::EXIT_OK;
use crate::config::Config;

/// One that is older and has no manifest is not being made any more.
const LONGEST_MILLIS: u64 = 3 * 24 * 3600 * 1000;

#[derive(Debug, Default, Args)]
pub struct Prune {
    #[command(flatten)]
    place: Place,
    /// Show what would go, and leave it
    #[arg(long)]
    dry_run: bool,
    /// What did not come to its end before the newest full backup began is not waited for.
    #[arg(skip)]
    is_superseded: bool,
}

impl Prune {
    /// After a full backup by whoever has to make them: what another one has left is its to clean.
    pub fn scheduled() -> Self {
        Prune {
            is_superseded: true,
            ..Prune::default()
        }
    }

    pub fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let store = self.place.store(config)?;
        let (backups, _) = store::backups(store.as_ref())?;
        let keep = Keep {
            last: config.backup.keep_last,
            daily: config.backup.keep_daily,
            weekly: config.backup.keep_weekly,
        };
        let mut gone = outdated(&backups, keep);
        let old = clock::unix_millis().saturating_sub(LONGEST_MILLIS);
        let newest = backups.iter().rfind(|backup| backup.manifest.kind == Kind::Full);
        let newest = newest.filter(|_| self.is_superseded);
        let since = newest.map_or(old, |newest| newest.manifest.began.max(old));
        let since = manifest::id(Kind::Full, since);
        gone.extend(store::unfinished(store.as_ref())?.into_iter().filter(|id| *id < since));
        let mut out = std::io::stdout();
        for id in &gone {
            if !self.dry_run {
                store.remove(id)?;
            }
            writeln!(out, "{} {id}", if self.dry_run { "would remove" } else { "removed" })?;
        }
        if gone.is_empty() {
            writeln!(out, "nothing to remove")?;
        }
        Ok(EXIT_OK)
    }
}
