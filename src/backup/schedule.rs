//! When a node makes the next scheduled backup. Pure: what was made lies in the store, nothing else is remembered. Whose turn it is
//! among several is the role's to say (`cluster::Role::Backup`).

use std::collections::BTreeSet;

use super::{Backup, Kind};

const DAY: u64 = 24 * 3600 * 1000;
const MINUTE: u64 = 60 * 1000;
/// No clock that is right is further ahead of another one.
const AHEAD: u64 = 60 * MINUTE;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Minutes after midnight, UTC.
    pub daily: u64,
    /// In milliseconds; 0: no logs.
    pub log_every: u64,
}

/// It seems to be of a time that is yet to come: made while a clock was ahead. It would stand for all that are made until then.
fn is_ahead(backup: &Backup, now: u64) -> bool {
    backup.manifest.began > now.saturating_add(AHEAD)
}

/// Takes those away, and the logs that continue them; returns their names.
pub fn set_apart(backups: &mut Vec<Backup>, now: u64) -> Vec<String> {
    let full: BTreeSet<String> = backups
        .iter()
        .filter(|backup| is_ahead(backup, now))
        .map(|backup| backup.id.clone())
        .collect();
    let continues = |backup: &Backup| backup.manifest.log.as_ref().is_some_and(|log| full.contains(&log.base));
    let apart = backups.extract_if(.., |backup| is_ahead(backup, now) || continues(backup));
    apart.map(|backup| backup.id).collect()
}

/// What this node makes now; `now` in milliseconds since 1970. `backups`: oldest first.
pub fn due(backups: &[Backup], node: &str, now: u64, schedule: Schedule) -> Option<Kind> {
    let is_own = |backup: &&Backup| backup.manifest.node == node && !is_ahead(backup, now);
    let own = backups.iter().rev().filter(is_own);
    let full = own.clone().find(|backup| backup.manifest.kind == Kind::Full);
    let Some(full) = full.filter(|full| full.manifest.began >= last(now, schedule.daily)) else {
        return Some(Kind::Full);
    };
    let continues = |backup: &&Backup| backup.manifest.log.as_ref().is_some_and(|log| log.base == full.id);
    let newest = own.into_iter().find(continues).unwrap_or(full);
    let is_due = schedule.log_every > 0 && now.saturating_sub(newest.manifest.began) >= schedule.log_every;
    is_due.then_some(Kind::Log)
}

/// When this node makes its next one of that kind; the time is past where it is due now. `None`: never. A full one begins the logs anew.
pub fn next(backups: &[Backup], node: &str, now: u64, schedule: Schedule, kind: Kind) -> Option<u64> {
    let mut backups = backups.to_vec();
    set_apart(&mut backups, now);
    let is_due = |at: &u64| due(&backups, node, *at, schedule) == Some(kind);
    let last = last(now, schedule.daily);
    if kind == Kind::Full {
        return [now, last + DAY].into_iter().find(is_due);
    }
    let own = backups.iter().rev().find(|backup| backup.manifest.node == node)?;
    let at = own.manifest.began + schedule.log_every;
    Some(now.max(at)).filter(is_due)
}

/// The last time it was that late.
fn last(now: u64, daily: u64) -> u64 {
    let today = now / DAY * DAY + daily * MINUTE;
    if today <= now { today } else { today.saturating_sub(DAY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Manifest;
    use crate::backup::manifest::Log;

    const NIGHT: Schedule = Schedule {
        daily: 150,
        log_every: 15 * MINUTE,
    };

    fn at(day: u64, hour: u64, minute: u64) -> u64 {
        day * DAY + (hour * 60 + minute) * MINUTE
    }

    fn full(node: &str, began: u64) -> Backup {
        Backup {
            id: format!("{began}-full"),
            manifest: Manifest::new(Kind::Full, "", node, began),
        }
    }

    fn log(base: &Backup, began: u64) -> Backup {
        let mut manifest = Manifest::new(Kind::Log, "", &base.manifest.node, began);
        manifest.log = Some(Log {
            base: base.id.clone(),
            files: Vec::new(),
            head: String::new(),
            until: began,
        });
        Backup {
            id: format!("{began}-log"),
            manifest,
        }
    }

    #[test]
    fn a_full_one_each_night_and_logs_between() {
        let first = full("n1", at(10, 2, 30));
        assert_eq!(due(&[], "n1", at(10, 1, 0), NIGHT), Some(Kind::Full));
        let one = [first.clone()];
        assert_eq!(due(&one, "n1", at(10, 2, 44), NIGHT), None);
        assert_eq!(due(&one, "n1", at(10, 2, 45), NIGHT), Some(Kind::Log));
        let two = [first.clone(), log(&first, at(10, 2, 45))];
        assert_eq!(due(&two, "n1", at(10, 2, 59), NIGHT), None);
        assert_eq!(due(&two, "n1", at(11, 2, 29), NIGHT), Some(Kind::Log));
        assert_eq!(due(&two, "n1", at(11, 2, 30), NIGHT), Some(Kind::Full));
        let never = Schedule { log_every: 0, ..NIGHT };
        assert_eq!(due(&two, "n1", at(11, 2, 29), never), None);
    }

    #[test]
    fn one_that_was_missed_is_made_up_for() {
        let old = [full("n1", at(10, 2, 30))];
        assert_eq!(due(&old, "n1", at(13, 9, 0), NIGHT), Some(Kind::Full));
        let by_hand = [full("n1", at(13, 8, 0))];
        assert_eq!(due(&by_hand, "n1", at(13, 8, 1), NIGHT), None);
    }

    #[test]
    fn one_of_a_time_to_come_stands_for_nothing() {
        let ahead = full("n1", at(4000, 2, 30));
        let now = at(20, 9, 0);
        assert_eq!(due(std::slice::from_ref(&ahead), "n1", now, NIGHT), Some(Kind::Full));
        let first = full("n1", at(20, 2, 30));
        let mut all = vec![
            first.clone(),
            log(&first, at(20, 8, 50)),
            ahead.clone(),
            log(&ahead, at(20, 8, 55)),
        ];
        assert_eq!(due(&all, "n1", now, NIGHT), None);
        assert_eq!(due(&all, "n1", at(20, 9, 5), NIGHT), Some(Kind::Log));
        let next = |kind| next(&all, "n1", now, NIGHT, kind);
        assert_eq!(
            (next(Kind::Full), next(Kind::Log)),
            (Some(at(21, 2, 30)), Some(at(20, 9, 5)))
        );
        let id = |backup: &Backup| backup.id.clone();
        let apart = [id(&all[2]), id(&all[3])];
        assert_eq!(set_apart(&mut all, now), apart);
        assert_eq!(all.len(), 2);
        // Clocks differ a little.
        let soon = full("n1", now + 30 * MINUTE);
        assert_eq!(due(&[soon], "n1", now, NIGHT), None);
    }

    #[test]
    fn another_nodes_backup_is_not_continued() {
        let other = [full("n2", at(10, 2, 30))];
        assert_eq!(due(&other, "n1", at(10, 3, 0), NIGHT), Some(Kind::Full));
    }
}
