//! Rules about the portal's data: the storage's group, and where the database is. Pure.

use super::{Facts, Findings, heard, on};
use crate::agent::overview::{NodeRow, State};
use crate::storage::command::Report;

/// Data replicas beyond this are not made by default.
const COPIES: usize = 3;

/// As one that has the storage sees it; its leader, if it was heard.
fn report<'a>(facts: &'a Facts<'_>) -> Option<&'a Report> {
    let mut reports = heard(facts).filter_map(|(_, overview)| overview.facts.storage.as_ref());
    let first = reports.next()?;
    let leads = |report: &&Report| report.leader.as_deref() == Some(report.node.as_str());
    std::iter::once(first).chain(reports).find(leads).or(Some(first))
}

pub fn quorum(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some(quorum) = facts.cluster.quorum.filter(|quorum| quorum.voters > 0) else {
        return;
    };
    if quorum.has_leader {
        return;
    }
    let gone = facts.cluster.nodes.iter().filter(|node| node.overview.is_none());
    let gone: Vec<&str> = gone.map(|node| node.name.as_str()).collect();
    let evidence = format!(
        "{} of {} voters are here, and nobody leads; silent: {}",
        quorum.present,
        quorum.voters,
        if gone.is_empty() {
            "none".to_string()
        } else {
            gone.join(", ")
        }
    );
    let remedy = match gone.is_empty() {
        true => "bitrix-node logs --module storage -n 50".to_string(),
        false => format!(
            "bring {} back; only if they are lost for good: bitrix-node storage recover --i-have-lost {}",
            gone.join(" or "),
            gone.join(",")
        ),
    };
    findings.fail("the storage has no majority: changes of files wait", evidence, remedy);
}

pub fn copy(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for name in &facts.cluster.data.behind {
        let Some(node) = facts.cluster.nodes.iter().find(|node| node.name == *name) else {
            continue;
        };
        // Why it is behind is said by the rule about silent nodes; this is for one that lives.
        let lag = node.lag.map_or_else(
            || "nobody knows how far".to_string(),
            |lag| format!("{lag} entries of the log"),
        );
        let remedy = match node.state {
            State::Silent => format!("bring {name} back: it catches up by itself"),
            _ => on(
                facts,
                name,
                "bitrix-node storage status; it catches up by itself while its disk and network do",
            ),
        };
        findings.warn(format!("the copy of the files on {name} is behind"), lag, remedy);
    }
}

pub fn full(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        if let Some(report) = overview.facts.storage.as_ref().filter(|report| report.is_full) {
            findings.fail(
                format!("the storage on {} takes nothing new", node.name),
                format!("{} MiB are free on its disk", report.free_bytes >> 20),
                on(facts, &node.name, "free or add space below node.data_dir"),
            );
        }
        if let Some(report) = overview.facts.storage.as_ref().filter(|report| report.is_set_back) {
            findings.fail(
                format!("the disk of {} was set back to an older image", node.name),
                format!("its store is not the one that the group knows as {}", report.node),
                format!(
                    "bitrix-node storage remove {0}, empty data_dir/storage on it, then: bitrix-node storage add {0} ADDRESS",
                    node.name
                ),
            );
        }
    }
}

pub fn votes(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some(report) = report(facts) else { return };
    let voters = report.members.iter().filter(|member| member.votes).count();
    if voters == 2 {
        findings.warn(
            "the loss of either of two nodes stops all changes of files",
            "the storage has two voters, and a majority of two is both",
            "add a third node, or a small machine as a witness: bitrix-node storage add NODE ADDRESS --witness",
        );
    }
}

/// Nodes that have no copy though there should be more.
pub fn member(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some(report) = report(facts) else { return };
    let data = report.members.iter().filter(|member| !member.witness).count();
    let is_member = |node: &NodeRow| report.members.iter().any(|member| member.name == node.name);
    let missing = facts.cluster.nodes.iter().filter(|node| !is_member(node));
    for node in missing.take(COPIES.saturating_sub(data)) {
        findings.warn(
            format!("{} keeps no copy of the files", node.name),
            format!("{data} of {COPIES} nodes do"),
            format!("bitrix-node storage add {} {}", node.name, node.address),
        );
    }
}

pub fn database(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some(name) = &facts.cluster.data.database else {
        findings.fail(
            "no node has the database",
            "no node whose MariaDB answers holds the role",
            "where it is installed (db.run = true): bitrix-node logs --module mariadb -n 50",
        );
        return;
    };
    let node = facts.cluster.nodes.iter().find(|node| node.name == *name);
    if node.is_none_or(|node| node.overview.is_none()) {
        findings.fail(
            format!("the database is on {name}, which does not answer"),
            "no other node has a copy of it",
            format!("bring {name} back; until then no page is served"),
        );
    }
}

/// The one that is written to has gone to another node by then, where one has room.
pub fn database_full(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        if overview.facts.is_database_full {
            findings.fail(
                format!("the disk under the database of {} is full", node.name),
                "it is not written to while another node with its data has room",
                on(
                    facts,
                    &node.name,
                    "du -xh --max-depth 2 /var/lib/bitrix-node | sort -h | tail; it counts again when 1.5 GiB are free",
                ),
            );
        }
    }
}
