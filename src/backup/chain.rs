//! Which backups lead to a moment: a full one and the logs that continue it without a gap. Pure.

use super::manifest::Log;
use super::{Backup, Kind};

/// In the order in which they are restored.
#[derive(Debug, PartialEq)]
pub struct Chain<'a> {
    pub full: &'a Backup,
    pub logs: Vec<&'a Backup>,
    /// The moment to which they lead, in milliseconds since 1970.
    pub reaches: u64,
}

/// Why there is no way to that moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    #[error("there is no full backup of that moment or before")]
    NoFull,
    /// In milliseconds since 1970.
    #[error("the logs end before that moment")]
    Ends(u64),
    #[error("{0} does not continue what is before it")]
    Torn(String),
}

/// The newest state, or that of a moment in milliseconds since 1970. `backups`: oldest first.
pub fn chain(backups: &[Backup], at: Option<u64>) -> Result<Chain<'_>, Gap> {
    let is_before = |backup: &&Backup| at.is_none_or(|at| backup.manifest.reaches() <= at);
    let mut fulls = backups.iter().filter(|backup| backup.manifest.kind == Kind::Full);
    let full = fulls.rfind(is_before).ok_or(Gap::NoFull)?;
    continued(backups, full, at)
}

/// The same from one full backup on.
pub fn continued<'a>(backups: &'a [Backup], full: &'a Backup, at: Option<u64>) -> Result<Chain<'a>, Gap> {
    let (chain, torn) = walk(backups, full, at);
    if let Some(id) = torn {
        return Err(Gap::Torn(id.to_owned()));
    }
    match at {
        Some(at) if chain.reaches < at || chain.logs.is_empty() => Err(Gap::Ends(chain.reaches)),
        _ => Ok(chain),
    }
}

/// The moments to which the database of a full backup can be brought, to any second from the first to the last, in milliseconds since
/// 1970. Both are the same where no log continues it: then it is that one.
pub fn span(backups: &[Backup], full: &Backup) -> (u64, u64) {
    (full.manifest.reaches(), walk(backups, full, None).0.reaches)
}

/// As far as it goes without a gap; and the log before which there is one.
fn walk<'a>(backups: &'a [Backup], full: &'a Backup, at: Option<u64>) -> (Chain<'a>, Option<&'a str>) {
    let position = full
        .manifest
        .database
        .as_ref()
        .and_then(|database| database.position.as_ref());
    let mut next = position.map(|position| position.file.clone());
    let mut chain = Chain {
        full,
        logs: Vec::new(),
        reaches: full.manifest.reaches(),
    };
    for backup in backups {
        let Some(log) = backup.manifest.log.as_ref().filter(|log| log.base == full.id) else {
            continue;
        };
        // What the full backup holds of its last moment is not known.
        if !chain.logs.is_empty() && at.is_some_and(|at| chain.reaches >= at) {
            break;
        }
        let is_next = |log: &Log| next.is_some() && log.files.first() == next.as_ref();
        if !is_next(log) || !is_row(&log.files) {
            return (chain, Some(&backup.id));
        }
        next = log.files.last().and_then(|file| following(file));
        chain.reaches = log.until;
        chain.logs.push(backup);
    }
    (chain, None)
}

/// The binary logs that a log backup must hold: of those that the server has closed, in order, those from `first` on. `None`: the
/// server has not kept them all.
pub fn wanted(first: &str, closed: &[String]) -> Option<Vec<String>> {
    let from = closed.iter().position(|file| file == first)?;
    let files = closed.get(from..).unwrap_or_default().to_vec();
    is_row(&files).then_some(files)
}

/// The server numbers its binary logs.
pub fn following(file: &str) -> Option<String> {
    let (name, number) = file.rsplit_once('.')?;
    let next = number.parse::<u64>().ok()?.checked_add(1)?;
    Some(format!("{name}.{next:0width$}", width = number.len()))
}

fn is_row(files: &[String]) -> bool {
    files.windows(2).all(|pair| match pair {
        [one, next] => following(one).as_ref() == Some(next),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Manifest;
    use crate::backup::manifest::{Database, Position};

    fn full(at: u64, file: &str) -> Backup {
        let mut manifest = Manifest::new(Kind::Full, "", "n1", at);
        manifest.database = Some(Database {
            at,
            position: Some(Position {
                file: file.into(),
                ..Position::default()
            }),
            ..Database::default()
        });
        Backup {
            id: format!("{at}-full"),
            manifest,
        }
    }

    fn log(base: &str, until: u64, files: &[&str]) -> Backup {
        let mut manifest = Manifest::new(Kind::Log, "", "n1", until);
        manifest.log = Some(Log {
            base: base.into(),
            files: files.iter().map(ToString::to_string).collect(),
            head: String::new(),
            until,
        });
        Backup {
            id: format!("{until}-log"),
            manifest,
        }
    }

    fn ids(backups: &[Backup], at: Option<u64>) -> Result<Vec<String>, Gap> {
        let chain = chain(backups, at)?;
        let logs = chain.logs.iter().map(|log| log.id.clone());
        Ok([chain.full.id.clone()].into_iter().chain(logs).collect())
    }

    fn two_days() -> Vec<Backup> {
        vec![
            full(100, "b.000007"),
            log("100-full", 110, &["b.000007"]),
            log("100-full", 120, &["b.000008", "b.000009"]),
            full(200, "b.000012"),
            log("100-full", 201, &["b.000010", "b.000011", "b.000012"]),
            log("200-full", 210, &["b.000012"]),
        ]
    }

    #[test]
    fn a_moment_is_reached_from_the_full_backup_before_it_with_no_more_logs_than_needed() {
        let all = two_days();
        assert_eq!(ids(&all, None).unwrap(), ["200-full", "210-log"]);
        assert_eq!(ids(&all, Some(205)).unwrap(), ["200-full", "210-log"]);
        assert_eq!(ids(&all, Some(110)).unwrap(), ["100-full", "110-log"]);
        assert_eq!(ids(&all, Some(111)).unwrap(), ["100-full", "110-log", "120-log"]);
        assert_eq!(ids(&all, Some(199)).unwrap().len(), 4);
        assert_eq!(ids(&all, Some(100)).unwrap(), ["100-full", "110-log"]);
    }

    #[test]
    fn a_moment_out_of_reach_is_refused_with_what_is_there() {
        let all = two_days();
        assert_eq!(ids(&all, Some(99)), Err(Gap::NoFull));
        assert_eq!(ids(&all, Some(211)), Err(Gap::Ends(210)));
        assert_eq!(ids(&[], None), Err(Gap::NoFull));
        let alone = [full(100, "b.000007")];
        assert_eq!(ids(&alone, Some(100)), Err(Gap::Ends(100)));
        assert_eq!(ids(&alone, None).unwrap(), ["100-full"]);
    }

    #[test]
    fn a_missing_log_tears_the_chain() {
        for lost in [1, 2] {
            let mut all = two_days();
            all.remove(lost);
            assert_eq!(
                ids(&all, Some(199)),
                Err(Gap::Torn(all[lost + usize::from(lost == 2)].id.clone()))
            );
        }
        let torn = [full(1, "b.000001"), log("1-full", 2, &["b.000001", "b.000003"])];
        assert_eq!(ids(&torn, None), Err(Gap::Torn("2-log".into())));
        assert_eq!(span(&torn, &torn[0]), (1, 1));
        let mut all = two_days();
        assert_eq!((span(&all, &all[0]), span(&all, &all[3])), ((100, 201), (200, 210)));
        all.remove(2);
        assert_eq!(span(&all, &all[0]), (100, 110), "to the gap");
    }

    #[test]
    fn the_server_must_have_kept_what_continues() {
        let closed: Vec<String> = ["b.000003", "b.000004", "b.000005"].map(String::from).into();
        assert_eq!(wanted("b.000004", &closed).unwrap(), ["b.000004", "b.000005"]);
        assert_eq!(wanted("b.000002", &closed), None);
        assert_eq!(wanted("b.000006", &closed), None);
        assert_eq!(following("b.999999").unwrap(), "b.1000000");
        assert_eq!(following("binlog"), None);
    }
}
