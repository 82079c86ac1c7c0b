//! Why a cluster does not do well, and what to do: rules over what the agents say. Pure.
//!
//! Each finding goes from cause over evidence to a remedy, which is a command wherever there is one. A rule that finds nothing says
//! nothing; one that lacks facts does not guess.

mod cert;
mod data;
mod machine;
mod member;
#[cfg(test)]
mod rule_tests;
mod seat;

use serde::{Deserialize, Serialize};

use super::overview::{Cluster, NodeRow, Overview};
use super::ports::Reach;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Fail,
    Warn,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    /// The rule, as `subject.what`.
    pub id: String,
    pub cause: String,
    pub evidence: String,
    pub remedy: String,
}

/// What the rules look at.
pub struct Facts<'a> {
    pub cluster: &'a Cluster,
    /// Which port of which node each node reaches; empty: nobody tried.
    pub ports: &'a [Reach],
}

/// A rule's name, and the rule.
type Rule = (&'static str, fn(&Facts<'_>, &mut Findings<'_>));

const RULES: [Rule; 27] = [
    ("node.silent", member::silent),
    ("node.mute", member::mute),
    ("node.draining", member::draining),
    ("node.version", member::version),
    ("node.clock", member::clock),
    ("registry", member::registry),
    ("service", machine::service),
    ("service.restarts", machine::restarts),
    ("mount", machine::mount),
    ("php.extension", machine::extension),
    ("disk", machine::disk),
    ("memory", machine::memory),
    ("sysctl", machine::sysctl),
    ("port", machine::port),
    ("certificate.portal", machine::portal_certificate),
    ("certificate.node", machine::node_certificate),
    ("certificate.cluster", cert::certificate),
    ("storage.quorum", data::quorum),
    ("storage.copy", data::copy),
    ("storage.full", data::full),
    ("storage.votes", data::votes),
    ("storage.member", data::member),
    ("database", data::database),
    ("database.full", data::database_full),
    ("database.package", machine::package),
    ("edge", seat::edge),
    ("role", seat::role),
];

/// How many things are looked at.
pub const COUNT: usize = RULES.len();

/// What a rule writes its findings into.
pub struct Findings<'a> {
    id: &'static str,
    found: &'a mut Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, severity: Severity, cause: String, evidence: String, remedy: impl Into<String>) {
        self.found.push(Finding {
            severity,
            id: self.id.to_string(),
            cause,
            evidence,
            remedy: remedy.into(),
        });
    }

    fn fail(&mut self, cause: impl Into<String>, evidence: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Fail, cause.into(), evidence.into(), remedy);
    }

    fn warn(&mut self, cause: impl Into<String>, evidence: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warn, cause.into(), evidence.into(), remedy);
    }
}

/// All findings, the failures first.
pub fn examine(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, rule) in RULES {
        rule(facts, &mut Findings { id, found: &mut found });
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

/// Nodes that said how they do.
fn heard<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (&'a NodeRow, &'a Overview)> {
    let nodes = facts.cluster.nodes.iter();
    nodes.filter_map(|node| Some((node, node.overview.as_ref()?)))
}

/// How a command is given on that node.
fn on(facts: &Facts<'_>, node: &str, command: &str) -> String {
    match node == facts.cluster.node {
        true => command.to_string(),
        false => format!("on {node}: {command}"),
    }
}
