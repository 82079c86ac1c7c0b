//! `node remove`: a node leaves for good. Its name is not given again, its certificate is refused, and its copy of the files no
//! longer counts.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::storage::report as storage_report;
use super::{registry, require_root, settle};
use crate::agent::join::TOKEN;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::cluster::{Snapshot, Standing};
use crate::config::Config;
use crate::registry::{Change, Guard, Key, Node, NodeState, Record, Registry, View, Write as Put};
use crate::storage::command::{Report, Role};

/// The leader looks every two seconds, and a change of the voters takes moments.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct Remove {
    name: String,
    /// Also a node that is neither drained nor dead
    #[arg(long)]
    force: bool,
}

impl Remove {
    pub async fn perform(self, config: Config) -> anyhow::Result<u8> {
        require_root()?;
        let mut out = std::io::stdout();
        let registry = registry::open(&config).await?;
        let view = registry.read().await?;
        let snapshot = settle::snapshot(&config).await;
        let report = storage_report(&config).await?;
        let node = self.may_go(&config, &view, snapshot.as_deref(), &report)?;
        if node.state != NodeState::Left {
            registry.commit(leave(node)).await?;
            writeln!(out, "{} has left: its certificate is refused from now on", self.name)?;
        }
        if gone(&config, &self.name).await {
            writeln!(out, "its copy of the files counts no more")?;
            return Ok(EXIT_OK);
        }
        writeln!(
            out,
            "the storage has not let it go yet; it does so by itself when a majority answers and {0} does not lead it. If {0} \
             still runs, stop bitrix-node there. `bitrix-node storage status` shows the members.",
            self.name
        )?;
        Ok(EXIT_DEGRADED)
    }

    /// The node's record, if it may be removed.
    fn may_go<'a>(
        &self,
        config: &Config,
        view: &'a View,
        snapshot: Option<&Snapshot>,
        report: &Report,
    ) -> anyhow::Result<&'a Node> {
        let name = self.name.as_str();
        let node = view
            .node(name)
            .with_context(|| format!("there is no node {name}; `bitrix-node registry show` lists them"))?;
        if node.state == NodeState::Left {
            return Ok(node);
        }
        ensure!(
            settle::node_name(None, config).ok().as_deref() != Some(name),
            "{name} is this node; `bitrix-node uninstall` makes it leave"
        );
        allow(name, snapshot, report, self.force)?;
        Ok(node)
    }
}

/// Whether the voters without `name` can go on, for its vote counts until they have agreed to do without it, and from the moment
/// that it is said to have left nobody hears it any more. Pure. `snapshot` says who lives; without one every voter counts.
pub fn can_do_without(name: &str, snapshot: Option<&Snapshot>, report: &Report) -> anyhow::Result<()> {
    let voters: Vec<&str> = report
        .members
        .iter()
        .filter(|member| member.votes)
        .map(|member| member.name.as_str())
        .collect();
    let is_away = |voter: &str| {
        let known = snapshot.and_then(|snapshot| snapshot.node(voter));
        known.is_some_and(|node| !node.is_live)
    };
    let others = voters.iter().copied().filter(|voter| *voter != name);
    let (away, there): (Vec<&str>, Vec<&str>) = others.partition(|voter| is_away(voter));
    ensure!(
        !voters.contains(&name) || 2 * there.len() > voters.len(),
        "the storage has {} votes, and without {name} only {} of them would be there{}: all files would stop. Start what is away, or \
         remove that first; see: bitrix-node storage status",
        voters.len(),
        there.len(),
        match away.as_slice() {
            [] => String::new(),
            away => format!(" ({} does not answer)", away.join(", ")),
        }
    );
    Ok(())
}

/// Whether a node may be removed, as far as this one can see. Pure.
fn allow(name: &str, snapshot: Option<&Snapshot>, report: &Report, force: bool) -> anyhow::Result<()> {
    if report.role == Role::Waiting || report.leader.is_none() {
        bail!(
            "the storage has no majority now; removing {name} cannot be recorded. See: bitrix-node storage recover --help"
        );
    }
    let voters = report.members.iter().filter(|member| member.votes).count();
    let copies = report.members.iter().filter(|member| !member.witness && member.in_sync);
    let others = copies.filter(|member| member.name != name).count();
    ensure!(
        others > 0,
        "{name} has the only whole copy of the files ({voters} votes); wait until another node has one: bitrix-node storage status"
    );
    can_do_without(name, snapshot, report)?;
    if force {
        return Ok(());
    }
    match snapshot.and_then(|snapshot| snapshot.node(name)) {
        Some(member) if member.is_live && member.standing == Standing::Member => {
            bail!("{name} is at work; first: bitrix-node node drain {name}, or say --force")
        }
        Some(member) if member.is_live && report.leader.as_deref() == Some(name) => bail!(
            "{name} leads the storage; stop bitrix-node there first, so that another node takes over, or say --force"
        ),
        _ => Ok(()),
    }
}

/// Its seats fall to others when it is silent; its name stays its own.
pub fn leave(node: &Node) -> Change {
    let mut left = node.clone();
    left.state = NodeState::Left;
    let token = left.labels.remove(TOKEN);
    let event = format!("{} was removed", node.name);
    let mut change = Change::put(Record::Node(left)).and(Put::Event(event));
    if let Some(token) = token {
        change = change.and(Put::Remove(Key::Token(token)));
    }
    change.when(Guard::Is(Record::Node(node.clone())))
}

/// Waits until the storage's group is without it.
async fn gone(config: &Config, name: &str) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Ok(report) = storage_report(config).await
            && report.leader.is_some()
            && report.members.iter().all(|member| member.name != name)
        {
            return true;
        }
        sleep(LOOK).await;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Fit, Member};
    use crate::storage::command;

    fn report(leader: Option<&str>, in_sync: &[&str]) -> Report {
        Report {
            role: Role::Follower,
            leader: leader.map(str::to_string),
            members: ["n1", "n2", "n3"]
                .map(|name| command::Member {
                    name: name.into(),
                    votes: true,
                    in_sync: in_sync.contains(&name),
                    ..command::Member::default()
                })
                .into(),
            ..Report::default()
        }
    }

    fn member(name: &str, standing: Standing, is_live: bool) -> Member {
        Member {
            name: name.into(),
            address: None,
            standing,
            is_live,
            fit: Fit::NONE,
        }
    }

    fn seen(nodes: Vec<Member>) -> Snapshot {
        Snapshot {
            nodes,
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_node_at_work_and_the_last_copy_stay() {
        let all = ["n1", "n2", "n3"];
        let asked = |n2: Option<Member>, report: &Report, force| {
            let asked = allow("n2", n2.map(|n2| seen(vec![n2])).as_ref(), report, force);
            asked.map_err(|error| error.to_string())
        };
        let member = |standing, is_live| member("n2", standing, is_live);
        let well = report(Some("n1"), &all);
        assert!(
            asked(Some(member(Standing::Member, true)), &well, false)
                .unwrap_err()
                .contains("drain")
        );
        for may in [member(Standing::Draining, true), member(Standing::Member, false)] {
            assert_eq!(asked(Some(may), &well, false), Ok(()));
        }
        assert_eq!(asked(None, &well, false), Ok(()));
        assert_eq!(asked(Some(member(Standing::Member, true)), &well, true), Ok(()));
        let leads = report(Some("n2"), &all);
        let drained = || Some(member(Standing::Draining, true));
        assert!(
            asked(drained(), &leads, false)
                .unwrap_err()
                .contains("leads the storage")
        );
        assert_eq!(asked(drained(), &leads, true), Ok(()));
        let last = report(Some("n1"), &["n2"]);
        assert!(asked(drained(), &last, true).unwrap_err().contains("only whole copy"));
        assert!(
            asked(drained(), &report(None, &all), true)
                .unwrap_err()
                .contains("no majority")
        );
    }

    #[test]
    fn nobody_goes_without_whom_the_votes_would_be_too_few() {
        let report = report(Some("n1"), &["n1", "n2"]);
        let asked = |n3_lives| {
            let snapshot = seen(vec![
                member("n1", Standing::Member, true),
                member("n2", Standing::Draining, true),
                member("n3", Standing::Member, n3_lives),
            ]);
            allow("n2", Some(&snapshot), &report, true).map_err(|error| error.to_string())
        };
        assert_eq!(asked(true), Ok(()));
        let refused = asked(false).unwrap_err();
        assert!(
            refused.contains("3 votes") && refused.contains("n3 does not answer"),
            "{refused}"
        );
        let snapshot = seen(vec![member("n3", Standing::Member, false)]);
        assert!(
            allow("n3", Some(&snapshot), &report, false).is_ok(),
            "the dead one goes"
        );
    }

    #[test]
    fn who_leaves_takes_its_unused_token_along() {
        let node = Node {
            name: "n2".into(),
            address: "10.0.0.2:7400".into(),
            state: NodeState::Joining,
            labels: [(TOKEN.to_string(), "t1".to_string())].into(),
            version: String::new(),
        };
        let change = leave(&node);
        assert!(change.writes.contains(&Put::Remove(Key::Token("t1".into()))));
        let view = View::from_records([Record::Node(node.clone())]);
        assert_eq!(
            change.guards,
            [Guard::Is(view.get(&Key::Node("n2".into())).unwrap().clone())]
        );
    }
}
