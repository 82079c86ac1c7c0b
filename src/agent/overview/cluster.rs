//! The cluster as one document. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node::{Overview, Row, Verdict};
use super::verdict;
use crate::cluster::{Fit, Member, Role, Seat, Snapshot, Standing};
use crate::storage::command::Report;

/// What another node's agent said when it was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Came {
        overview: Box<Overview>,
        /// Its wall clock ahead of ours, and by how much that may be wrong, in milliseconds.
        skew: (i64, i64),
    },
    /// Why not.
    Missing(String),
}

/// Another node, as far as it was heard of.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub answer: Answer,
    /// Seconds since its heart was last seen to beat, where that is too long.
    pub silent: Option<u64>,
}

/// All that the document is made of.
pub struct Seen<'a> {
    /// Empty where there is no registry.
    pub snapshot: &'a Snapshot,
    pub own: &'a Overview,
    pub fit: Fit,
    pub others: &'a BTreeMap<String, Heard>,
    /// Wall clock, in seconds since 1970: for certificates.
    pub now: u64,
}

/// What `bitrix-node status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub verdict: Verdict,
    /// What is wrong; empty when healthy.
    pub reason: String,
    /// The portal's name, or its URL where it has none.
    pub domain: String,
    /// This node.
    pub node: String,
    pub version: String,
    pub portal: String,
    pub admin: String,
    /// Votes of the storage; `None`: it has none.
    pub quorum: Option<Quorum>,
    pub nodes: Vec<NodeRow>,
    pub data: Data,
    pub seats: Vec<Seat>,
    pub settings: BTreeMap<String, String>,
    /// The registry does not answer: roles and heartbeats are as they were.
    pub is_stale: bool,
    pub now: u64,
    /// Of this node.
    pub services: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Voters whose nodes live.
    pub present: usize,
    pub voters: usize,
    pub has_leader: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    pub name: String,
    /// Without the port; empty: it is alone.
    pub address: String,
    pub state: State,
    pub roles: Vec<Part>,
    /// Seconds since its heart was last seen to beat, where that is too long.
    pub silent: Option<u64>,
    /// Why it did not answer; empty: it did.
    pub unanswered: String,
    /// Entries of the storage's log that it is behind; `None`: it leads, has no copy, or nobody knows.
    pub lag: Option<u64>,
    /// Its wall clock ahead of this node's, and by how much that may be wrong, in milliseconds.
    pub skew: Option<(i64, i64)>,
    /// What it says of itself.
    pub overview: Option<Overview>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ready,
    Starting,
    Degraded,
    Down,
    Joining,
    Draining,
    /// Its heart beats, and its agent does not answer.
    Mute,
    /// Neither.
    Silent,
}

/// Something that a node does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    /// It alone, for all.
    pub is_held: bool,
}

/// Where the portal's data are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Whole copies of the files, and how many are wanted; `None`: not kept by our storage.
    pub copies: Option<(usize, usize)>,
    /// Members whose copy is not whole.
    pub behind: Vec<String>,
    /// Where the files are else.
    pub files: String,
    /// The node that has the database.
    pub database: Option<String>,
    pub is_full: bool,
}

/// Makes the document.
pub fn assemble(seen: &Seen<'_>) -> Cluster {
    let alone;
    let snapshot = match seen.snapshot.node(&seen.own.node) {
        Some(_) => seen.snapshot,
        None => {
            alone = one(seen);
            &alone
        }
    };
    let report = report(seen, snapshot);
    let nodes: Vec<NodeRow> = snapshot
        .nodes
        .iter()
        .map(|member| row(seen, snapshot, member, report))
        .collect();
    let mut cluster = Cluster {
        verdict: Verdict::Healthy,
        reason: String::new(),
        domain: domain(seen, snapshot),
        node: seen.own.node.clone(),
        version: seen.own.version.clone(),
        portal: seen.own.portal.clone(),
        admin: seen.own.admin.clone(),
        quorum: report.map(|report| quorum(report, snapshot, &nodes)),
        data: data(seen, snapshot, report),
        nodes,
        seats: snapshot.seats.clone(),
        settings: snapshot.settings.clone(),
        is_stale: snapshot.is_stale,
        now: seen.now,
        services: seen.own.services.clone(),
    };
    (cluster.verdict, cluster.reason) = verdict::judge(&cluster, snapshot);
    cluster
}

/// A node without others, or one that is not enrolled yet.
fn one(seen: &Seen<'_>) -> Snapshot {
    let mut snapshot = seen.snapshot.clone();
    snapshot.own.clone_from(&seen.own.node);
    snapshot.nodes.push(Member {
        name: seen.own.node.clone(),
        address: None,
        standing: Standing::Member,
        is_live: true,
        fit: seen.fit,
    });
    snapshot
}

fn domain(seen: &Seen<'_>, snapshot: &Snapshot) -> String {
    let setting = snapshot.settings.get("portal.domain").filter(|name| !name.is_empty());
    setting.unwrap_or(&seen.own.portal).clone()
}

fn overview<'a>(seen: &'a Seen<'_>, name: &str) -> Option<&'a Overview> {
    match (name == seen.own.node, seen.others.get(name).map(|heard| &heard.answer)) {
        (true, _) => Some(seen.own),
        (false, Some(Answer::Came { overview, .. })) => Some(overview),
        (false, _) => None,
    }
}

/// The storage's state as its leader sees it; else as anybody does.
fn report<'a>(seen: &'a Seen<'_>, snapshot: &Snapshot) -> Option<&'a Report> {
    let own = seen.own.facts.storage.as_ref();
    let others = snapshot.nodes.iter().filter_map(|node| overview(seen, &node.name));
    let mut all: Vec<&Report> = others.filter_map(|overview| overview.facts.storage.as_ref()).collect();
    all.extend(own);
    let leader = all
        .iter()
        .filter(|report| report.leader.as_deref() == Some(report.node.as_str()))
        .max_by_key(|report| report.term);
    leader.copied().or(own).or_else(|| all.first().copied())
}

fn quorum(report: &Report, snapshot: &Snapshot, nodes: &[NodeRow]) -> Quorum {
    let voters = report.members.iter().filter(|member| member.votes);
    let is_there = |name: &str| {
        let answered = nodes.iter().any(|node| node.name == name && node.overview.is_some());
        answered || snapshot.node(name).is_some_and(|node| node.is_live)
    };
    Quorum {
        present: voters.clone().filter(|voter| is_there(&voter.name)).count(),
        voters: voters.count(),
        has_leader: report.leader.is_some(),
    }
}

fn row(seen: &Seen<'_>, snapshot: &Snapshot, member: &Member, report: Option<&Report>) -> NodeRow {
    let heard = seen.others.get(&member.name);
    let overview = overview(seen, &member.name);
    let copy = report.and_then(|report| report.members.iter().find(|copy| copy.name == member.name));
    let leads = report.is_some_and(|report| report.leader.as_deref() == Some(&member.name));
    let (unanswered, skew) = match heard.map(|heard| &heard.answer) {
        Some(Answer::Came { skew, .. }) => (String::new(), Some(*skew)),
        Some(Answer::Missing(why)) => (why.clone(), None),
        None => (String::new(), None),
    };
    NodeRow {
        name: member.name.clone(),
        address: member
            .address
            .map(|address| address.ip().to_string())
            .unwrap_or_default(),
        state: state(member, overview, heard.is_some()),
        roles: parts(snapshot, member, copy.map(|copy| copy.in_sync && !copy.witness), leads),
        silent: heard.and_then(|heard| heard.silent),
        unanswered,
        lag: copy.filter(|copy| !leads && !copy.witness).and_then(|copy| copy.lag),
        skew,
        overview: overview.cloned(),
    }
}

/// `is_asked`: it could be; else its heart is all there is.
fn state(member: &Member, overview: Option<&Overview>, is_asked: bool) -> State {
    match (overview.map(|overview| overview.verdict), member.standing) {
        (None, _) if !member.is_live => State::Silent,
        (None, _) if is_asked => State::Mute,
        (_, Standing::Joining) => State::Joining,
        (_, Standing::Draining) => State::Draining,
        (None | Some(Verdict::Healthy), _) => State::Ready,
        (Some(Verdict::Starting), _) => State::Starting,
        (Some(Verdict::Degraded), _) => State::Degraded,
        (Some(Verdict::Down), _) => State::Down,
    }
}

/// What a node does, the seats that it holds marked. `has_copy`: whole, of the files.
fn parts(snapshot: &Snapshot, member: &Member, has_copy: Option<bool>, leads: bool) -> Vec<Part> {
    let holds = |role: Role| {
        let mut seats = snapshot.seats.iter().filter(|seat| seat.role == role);
        seats.any(|seat| seat.holder.as_deref() == Some(&member.name))
    };
    let can = |fit: Fit| member.is_live && member.fit.has(fit);
    let has_edge = snapshot.seats.iter().any(|seat| seat.role == Role::Edge);
    let all = [
        ("edge", has_edge && can(Fit::EDGE), holds(Role::Edge)),
        ("web", can(Fit::WEB), false),
        ("db", can(Fit::DB), holds(Role::Db)),
        ("cache", can(Fit::CACHE), holds(Role::Cache)),
        ("files", has_copy.unwrap_or(false), leads),
        ("cron", false, holds(Role::Cron)),
        ("acme", false, holds(Role::Acme)),
        ("backup", false, holds(Role::Backup)),
    ];
    let there = all.into_iter().filter(|(_, does, holds)| *does || *holds);
    there
        .map(|(name, _, is_held)| Part {
            name: name.to_string(),
            is_held,
        })
        .collect()
}

fn data(seen: &Seen<'_>, snapshot: &Snapshot, report: Option<&Report>) -> Data {
    let behind = |report: &Report| {
        let behind = report
            .members
            .iter()
            .filter(|member| !member.witness && !member.in_sync);
        behind.map(|member| member.name.clone()).collect()
    };
    let seat = snapshot.seats.iter().find(|seat| seat.role == Role::Db);
    let database = match seat {
        Some(seat) => seat.holder.clone(),
        // Nobody had to decide where it is.
        None => {
            let mut fit = snapshot.nodes.iter().filter(|node| node.fit.has(Fit::DB));
            fit.next().map(|node| node.name.clone())
        }
    };
    Data {
        copies: report.map(|report| (report.copies, report.wanted)),
        behind: report.map(behind).unwrap_or_default(),
        files: seen.own.facts.files.clone(),
        database,
        is_full: report.is_some_and(|report| report.is_full),
    }
}
