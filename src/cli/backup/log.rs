//! `backup create --log`: the binary logs that the server has closed since this node's last backup.

use anyhow::{Context, ensure};

use super::bar::watched;
use super::create::Making;
use super::{PACKED, say_ahead};
use crate::backup::manifest::{Log, Position};
use crate::backup::part::{Meter, sha256};
use crate::backup::schedule::set_apart;
use crate::backup::{Backup, Kind, chain, store};
use crate::db::backup::binlog::{self, Closed};

const NONE: &str = "make a full backup first: `bitrix-node backup create`";

/// Where the backups of this node have come to.
#[derive(Debug, PartialEq, Eq)]
struct Last {
    base: String,
    /// The file whose head is known.
    known: String,
    head: String,
    /// The first one that is wanted.
    next: String,
}

/// Returns the last file that the backup has: the server need not keep those before it.
pub async fn make(making: &mut Making<'_>) -> anyhow::Result<String> {
    let (mut backups, _) = store::backups(making.store.as_ref())?;
    // A cluster that was restored has nodes of the same names.
    backups.retain(|backup| backup.manifest.cluster == making.backup.manifest.cluster);
    // Those of a time to come would stand before all that are made until then.
    say_ahead(&set_apart(&mut backups, making.backup.manifest.began));
    let last = last(&backups, &making.backup.manifest.node)?;
    // Nobody else's word is continued.
    store::trusted(making.store.as_ref(), &last.base, &making.key)?;
    let socket = making.config.db_socket();
    let folder = binlog::folder(&socket)
        .await
        .context("is the node running? start it with: systemctl start bitrix-node")?
        .context("MariaDB keeps no binary logs: set backup.log = true, start the node again, and make a full backup")?;
    let head = binlog::head(&folder, &last.known).ok().map(|head| sha256(&head));
    ensure!(
        head.as_ref() == Some(&last.head),
        "MariaDB's {} is not the one of {}: it was made anew, or kept its logs for too short; {NONE}",
        last.known,
        last.base
    );
    let closed = binlog::rotate(&socket, making.config.db.galera)
        .await?
        .context("MariaDB keeps no binary logs any more")?;
    let files = chain::wanted(&last.next, &closed.files)
        .with_context(|| format!("MariaDB has not kept {} and what follows; {NONE}", last.next))?;
    pack(making, &last.base, &closed, files).await
}

/// Pure.
fn last(backups: &[Backup], node: &str) -> anyhow::Result<Last> {
    let is_base = |backup: &&Backup| backup.manifest.kind == Kind::Full && backup.manifest.node == node;
    let base = backups.iter().rfind(is_base);
    let base = base.with_context(|| format!("there is no full backup of {node} here; {NONE}"))?;
    let chain = chain::continued(backups, base, None).with_context(|| NONE)?;
    let position = base
        .manifest
        .database
        .as_ref()
        .and_then(|database| database.position.as_ref());
    let Position { file, head, .. } = position
        .with_context(|| format!("{} is of a server without binary logs; {NONE}", base.id))?
        .clone();
    let mut logs = chain.logs.iter().rev().filter_map(|log| log.manifest.log.as_ref());
    Ok(match logs.next() {
        None => Last {
            base: base.id.clone(),
            known: file.clone(),
            head,
            next: file,
        },
        Some(log) => {
            let known = log.files.last().context("a log backup without logs")?;
            Last {
                base: base.id.clone(),
                known: known.clone(),
                head: log.head.clone(),
                next: chain::following(known).context("a binary log without a number")?,
            }
        }
    })
}

async fn pack(making: &mut Making<'_>, base: &str, closed: &Closed, files: Vec<String>) -> anyhow::Result<String> {
    let meter = Meter::default();
    for file in &files {
        let content = binlog::open(&closed.folder, file)?;
        let packing = making.pack(&format!("{file}{PACKED}"), content, &meter);
        let part = watched(file, 0, &meter, packing).await?;
        making.add(part)?;
    }
    let done = files.last().context("no binary log was closed")?.clone();
    making.backup.manifest.log = Some(Log {
        base: base.to_owned(),
        files,
        head: sha256(&binlog::head(&closed.folder, &done)?),
        until: closed.until,
    });
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Manifest;
    use crate::backup::manifest::Database;

    fn full(id: &str, node: &str, file: Option<&str>) -> Backup {
        let mut manifest = Manifest::new(Kind::Full, "", node, 1);
        manifest.database = Some(Database {
            position: file.map(|file| Position {
                file: file.into(),
                head: "h0".into(),
                ..Position::default()
            }),
            ..Database::default()
        });
        Backup {
            id: id.into(),
            manifest,
        }
    }

    fn log(base: &str, files: &[&str]) -> Backup {
        let mut manifest = Manifest::new(Kind::Log, "", "n1", 2);
        manifest.log = Some(Log {
            base: base.into(),
            files: files.iter().map(ToString::to_string).collect(),
            head: "h1".into(),
            until: 2,
        });
        Backup {
            id: "x-log".into(),
            manifest,
        }
    }

    #[test]
    fn a_log_goes_on_where_the_last_backup_of_this_node_ended() {
        let first = full("1-full", "n1", Some("b.000003"));
        let begun = last(std::slice::from_ref(&first), "n1").unwrap();
        assert_eq!(
            (begun.known.as_str(), begun.next.as_str(), begun.head.as_str()),
            ("b.000003", "b.000003", "h0")
        );
        let all = [
            first,
            log("1-full", &["b.000003", "b.000004"]),
            full("2-full", "n2", Some("b.000001")),
        ];
        let on = last(&all, "n1").unwrap();
        assert_eq!(
            (on.base.as_str(), on.known.as_str(), on.next.as_str(), on.head.as_str()),
            ("1-full", "b.000004", "b.000005", "h1")
        );
        assert_eq!(last(&all, "n2").unwrap().next, "b.000001");
    }

    #[test]
    fn without_a_full_backup_that_can_be_continued_there_is_no_log() {
        let none = full("1-full", "n1", None);
        for (backups, node) in [(vec![], "n1"), (vec![none.clone()], "n1"), (vec![none], "n2")] {
            let error = last(&backups, node).unwrap_err();
            assert!(format!("{error:#}").contains("make a full backup"), "{error:#}");
        }
        let torn = [full("1-full", "n1", Some("b.000003")), log("1-full", &["b.000005"])];
        last(&torn, "n1").unwrap_err();
    }
}
