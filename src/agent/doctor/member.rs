//! Rules about the nodes as members. Pure.

use super::{Facts, Findings, heard, on};
use crate::agent::overview::State;
use crate::base::Health;

/// Further apart than this, logs of two nodes can no longer be read together; from the second on, tokens and certificates are judged
/// wrongly.
const SKEW_MS: (i64, i64) = (500, 30_000);

pub fn silent(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for node in facts.cluster.nodes.iter().filter(|node| node.state == State::Silent) {
        let name = &node.name;
        let heart = match node.silent {
            Some(seconds) => format!("its heart has not been seen to beat for {seconds} s"),
            None => "its heart is not seen to beat".to_string(),
        };
        let agent = match node.unanswered.as_str() {
            "" => "its agent was not asked".to_string(),
            why => format!("its agent does not answer ({why})"),
        };
        findings.fail(
            format!("node {name} is off, cut off, or bitrix-node does not run there"),
            format!("{heart}; {agent}"),
            format!(
                "switch it on, and on it: systemctl status bitrix-node; if it is lost for good: bitrix-node node remove {name} --force"
            ),
        );
    }
}

pub fn mute(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for node in facts.cluster.nodes.iter().filter(|node| node.state == State::Mute) {
        let name = &node.name;
        findings.fail(
            format!("the agent of {name} hangs, or its port is blocked from here"),
            format!("its heart beats, but: {}", node.unanswered),
            format!(
                "on {name}: bitrix-node logs --module agent -n 50; let TCP 7400 to 7405 through between {} and {}",
                facts.cluster.node, node.address
            ),
        );
    }
}

pub fn draining(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for node in facts.cluster.nodes.iter().filter(|node| node.state == State::Draining) {
        findings.warn(
            format!("node {} takes no new work", node.name),
            "it was told to drain",
            format!("when the work on it is done: bitrix-node node undrain {}", node.name),
        );
    }
}

pub fn version(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut versions: Vec<(&str, Vec<&str>)> = Vec::new();
    for (node, overview) in heard(facts) {
        match versions.iter_mut().find(|(version, _)| *version == overview.version) {
            Some((_, nodes)) => nodes.push(&node.name),
            None => versions.push((&overview.version, vec![&node.name])),
        }
    }
    if versions.len() > 1 {
        let evidence: Vec<String> = versions
            .iter()
            .map(|(version, nodes)| format!("{} on {}", version, nodes.join(" and ")))
            .collect();
        findings.warn(
            "nodes run different versions of bitrix-node",
            evidence.join(", "),
            "install the same version everywhere, one node after the other: install.sh, or the package",
        );
    }
}

pub fn clock(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for node in &facts.cluster.nodes {
        let Some((skew, error)) = node.skew else { continue };
        // Only what is beyond doubt.
        let apart = skew.saturating_abs().saturating_sub(error);
        if apart < SKEW_MS.0 {
            continue;
        }
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        let seconds = skew.unsigned_abs() as f64 / 1e3;
        let evidence = format!(
            "its clock is {seconds:.1} s {direction} the one of {}",
            facts.cluster.node
        );
        let cause = format!("the clocks of {} and {} are apart", facts.cluster.node, node.name);
        let remedy = "on both: timedatectl set-ntp true";
        match apart >= SKEW_MS.1 {
            true => findings.fail(cause, evidence, remedy),
            false => findings.warn(cause, evidence, remedy),
        }
    }
}

pub fn registry(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (node, overview) in heard(facts) {
        let mut rows = overview.services.iter();
        let Some(agent) = rows.find(|row| row.name == "agent" && row.health == Health::Degraded) else {
            continue;
        };
        findings.fail(
            format!("the registry does not answer on {}", node.name),
            agent.detail.clone(),
            on(facts, &node.name, "bitrix-node storage status"),
        );
    }
    if facts.cluster.is_stale && !findings.found.iter().any(|finding| finding.id == findings.id) {
        findings.fail(
            "the registry does not answer here",
            "roles and heartbeats are as they were when it last did",
            "bitrix-node storage status",
        );
    }
}
