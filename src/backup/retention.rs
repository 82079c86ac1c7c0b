//! Which backups may go. Pure. Logs go with the full backup that they continue.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Backup, Kind};

const DAY: u64 = 24 * 3600 * 1000;
/// The first of January 1970 was a Thursday; weeks begin with Monday.
const FIRST_DAY: u64 = 3;

/// What stays: the newest, and the newest of each of the last days and weeks that have any. At least one stays always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Keep {
    pub last: usize,
    pub daily: usize,
    pub weekly: usize,
}

/// Names of those that may go, oldest first. `backups`: oldest first.
pub fn outdated(backups: &[Backup], keep: Keep) -> Vec<String> {
    let is_full = |backup: &&Backup| backup.manifest.kind == Kind::Full;
    let newest_first: Vec<&Backup> = backups.iter().rev().filter(is_full).collect();
    let mut kept: BTreeSet<&str> = newest_first
        .iter()
        .take(keep.last.max(1))
        .map(|full| full.id.as_str())
        .collect();
    kept.extend(newest_of(&newest_first, keep.daily, |day| day));
    kept.extend(newest_of(&newest_first, keep.weekly, |day| (day + FIRST_DAY) / 7));
    let base = |backup: &Backup| match &backup.manifest.log {
        Some(log) => log.base.clone(),
        None => backup.id.clone(),
    };
    let all = backups.iter().filter(|backup| !kept.contains(base(backup).as_str()));
    all.map(|backup| backup.id.clone()).collect()
}

fn newest_of<'a>(newest_first: &[&'a Backup], count: usize, span: impl Fn(u64) -> u64) -> Vec<&'a str> {
    let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
    for full in newest_first {
        let span = span(full.manifest.began / DAY);
        if seen.contains(&span) {
            continue;
        }
        if seen.len() == count {
            break;
        }
        seen.insert(span);
        kept.push(full.id.as_str());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Manifest;
    use crate::backup::manifest::Log;

    fn full(day: u64, hour: u64) -> Backup {
        Backup {
            id: format!("{day:03}.{hour:02}-full"),
            manifest: Manifest::new(Kind::Full, "", "n1", day * DAY + hour * 3_600_000),
        }
    }

    fn log(base: &Backup) -> Backup {
        let mut manifest = Manifest::new(Kind::Log, "", "n1", base.manifest.began + 1);
        manifest.log = Some(Log {
            base: base.id.clone(),
            files: Vec::new(),
            head: String::new(),
            until: 0,
        });
        Backup {
            id: format!("{}-log", base.id),
            manifest,
        }
    }

    fn kept(backups: &[Backup], last: usize, daily: usize, weekly: usize) -> Vec<&str> {
        let gone = outdated(backups, Keep { last, daily, weekly });
        let ids = backups.iter().map(|backup| backup.id.as_str());
        ids.filter(|id| !gone.iter().any(|gone| gone == id)).collect()
    }

    #[test]
    fn the_newest_of_days_and_weeks_stay() {
        // Day 4 is a Monday.
        let all: Vec<Backup> = (4..=24).flat_map(|day| [full(day, 1), full(day, 13)]).collect();
        assert_eq!(kept(&all, 1, 0, 0), ["024.13-full"]);
        assert_eq!(kept(&all, 3, 0, 0), ["023.13-full", "024.01-full", "024.13-full"]);
        assert_eq!(kept(&all, 1, 3, 0), ["022.13-full", "023.13-full", "024.13-full"]);
        assert_eq!(kept(&all, 1, 0, 3), ["010.13-full", "017.13-full", "024.13-full"]);
        assert_eq!(kept(&all, 1, 2, 2), ["017.13-full", "023.13-full", "024.13-full"]);
    }

    #[test]
    fn days_without_a_backup_do_not_count() {
        let all = [full(1, 0), full(30, 0), full(90, 0)];
        assert_eq!(kept(&all, 1, 2, 0), ["030.00-full", "090.00-full"]);
    }

    #[test]
    fn one_stays_whatever_is_asked_for() {
        assert_eq!(kept(&[full(1, 0), full(2, 0)], 0, 0, 0), ["002.00-full"]);
        assert!(
            outdated(
                &[],
                Keep {
                    last: 0,
                    daily: 0,
                    weekly: 0
                }
            )
            .is_empty()
        );
    }

    #[test]
    fn logs_go_with_what_they_continue() {
        let (old, new) = (full(1, 0), full(2, 0));
        let all = [old.clone(), log(&old), new.clone(), log(&new)];
        let gone = outdated(
            &all,
            Keep {
                last: 1,
                daily: 0,
                weekly: 0,
            },
        );
        assert_eq!(gone, ["001.00-full", "001.00-full-log"]);
    }
}
