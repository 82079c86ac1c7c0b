//! `backup prune`: what retention lets go, and what is left of backups that did not come to their end.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;

use super::{Place, say_ahead, source};
use crate::backup::retention::{Keep, outdated};
use crate::backup::schedule::set_apart;
use crate::backup::{Backup, Kind, manifest, store};
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
    /// Of this cluster alone; what of it did not come to its end before its newest full backup began is not waited for.
    #[arg(skip)]
    is_scheduled: bool,
}

/// What lies in the store.
struct Found {
    backups: Vec<Backup>,
    /// What did not come to its end, and whose it is, where that is known.
    left: Vec<(String, Option<String>)>,
}

impl Prune {
    /// After a full backup by whoever has to make them: what another one has left is its to clean.
    pub fn scheduled() -> Self {
        Prune {
            is_scheduled: true,
            ..Prune::default()
        }
    }

    pub fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let (store, now) = (self.place.store(config)?, clock::unix_millis());
        let (mut backups, _) = store::backups(store.as_ref())?;
        let apart = set_apart(&mut backups, now);
        if !self.is_scheduled {
            say_ahead(&apart);
        }
        let mut left = Vec::new();
        for id in store::unfinished(store.as_ref())? {
            let owner = store::owner(store.as_ref(), &id)?;
            left.push((id, owner));
        }
        let keep = Keep {
            last: config.backup.keep_last,
            daily: config.backup.keep_daily,
            weekly: config.backup.keep_weekly,
        };
        let gone = self.gone(Found { backups, left }, &source::cluster(config), keep, now);
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

    /// Pure.
    fn gone(&self, found: Found, own: &str, keep: Keep, now: u64) -> Vec<String> {
        let mut clusters: BTreeMap<String, Vec<Backup>> = BTreeMap::new();
        for backup in found.backups {
            clusters
                .entry(backup.manifest.cluster.clone())
                .or_default()
                .push(backup);
        }
        if self.is_scheduled {
            clusters.retain(|cluster, _| cluster == own);
        }
        let mut gone: Vec<String> = clusters.values().flat_map(|backups| outdated(backups, keep)).collect();
        let old = now.saturating_sub(LONGEST_MILLIS);
        let is_full = |backup: &&Backup| backup.manifest.kind == Kind::Full;
        let newest = clusters.get(own).and_then(|backups| backups.iter().rfind(is_full));
        let newest = newest.filter(|_| self.is_scheduled);
        let since = newest.map_or(old, |newest| newest.manifest.began.max(old));
        let [old, since] = [old, since].map(|time| manifest::id(Kind::Full, time));
        let is_over = |id: &String, owner: Option<String>| match owner.as_deref() == Some(own) {
            true => *id < since,
            false => *id < old,
        };
        let left = found.left.into_iter();
        gone.extend(left.filter_map(|(id, owner)| is_over(&id, owner).then_some(id)));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Folder, Key, Manifest, Store};
    use crate::config::parse;
    use crate::net::mesh::trust::Trust;

    const HOUR: u64 = 3_600_000;

    /// A full backup that began so many hours ago.
    fn full(cluster: &str, ago: u64) -> Backup {
        let began = clock::unix_millis() - ago * HOUR;
        Backup {
            id: manifest::id(Kind::Full, began),
            manifest: Manifest::new(Kind::Full, cluster, "n1", began),
        }
    }

    #[test]
    fn by_the_clock_only_what_is_of_the_own_cluster_goes() {
        let folder = tempfile::tempdir().unwrap();
        let stored = folder.path().join("store");
        std::fs::create_dir(&stored).unwrap();
        let text = format!(
            "[node]\ndata_dir = {:?}\n[backup]\nstore = {stored:?}\nkeep_last = 1\nkeep_daily = 0\nkeep_weekly = 0\n",
            folder.path()
        );
        let config = parse(&text, std::iter::empty()).unwrap().config;
        let trust = Trust::new(config.trust());
        trust
            .found("ours".parse().unwrap(), &"n1".parse().unwrap(), None)
            .unwrap();
        let (store, key) = (Folder::new(stored), Key::generate());
        let finished = [
            ("theirs", 50),
            ("ours", 40),
            ("theirs", 30),
            ("ours", 20),
            ("theirs", 10),
        ];
        let finished = finished.map(|(cluster, ago)| full(cluster, ago));
        for backup in &finished {
            store::claim(&store, &backup.id, &backup.manifest.cluster).unwrap();
            store::conclude(&store, backup, &key).unwrap();
        }
        let broken_off = [("ours", 45), ("theirs", 46), ("", 47), ("theirs", 100), ("ours", 5)];
        let broken_off = broken_off.map(|(cluster, ago)| {
            let id = full(cluster, ago).id;
            match cluster {
                // Of an older version.
                "" => drop(store.put(&id, "part").unwrap().finish()),
                cluster => store::claim(&store, &id, cluster).unwrap(),
            }
            id
        });
        Prune::scheduled().perform(&config).unwrap();
        let [first_theirs, first, second_theirs, last, last_theirs] = finished.map(|backup| backup.id);
        let [_, theirs, unknown, _, running] = broken_off;
        let mut kept = [
            first_theirs,
            second_theirs,
            last.clone(),
            last_theirs.clone(),
            theirs,
            unknown,
            running,
        ];
        kept.sort();
        assert_eq!(store.names().unwrap(), kept);
        assert!(!kept.contains(&first));
        // By hand each cluster has its newest one.
        Prune::default().perform(&config).unwrap();
        let (backups, _) = store::backups(&store).unwrap();
        let left: Vec<String> = backups.into_iter().map(|backup| backup.id).collect();
        assert_eq!(left, [last, last_theirs]);
    }
}
