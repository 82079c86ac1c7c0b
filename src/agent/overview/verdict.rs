//! What the verdict over a cluster is. Pure.
//!
//! ```text
//! DOWN      no page is served: no node runs PHP, or no node has the database
//! DEGRADED  pages are served, and something is slower, less safe, or will end: a node is silent, a copy is missing, no quorum (changes
//!           wait), an address that nobody holds, a certificate near its end
//! STARTING  neither, and somebody is not ready for the first time
//! ```

use super::cluster::{Cluster, NodeRow, State};
use super::node::{Overview, Verdict};
use crate::cluster::{Fit, Role, Snapshot, places};

/// Days before its end: the operator must act on the portal's certificate, while nodes renew theirs ten days before by themselves, and
/// have had two to do so.
pub const PORTAL_DAYS: i64 = 10;
pub const NODE_DAYS: i64 = 8;

type Faults = Vec<(Verdict, String)>;

/// The worst of all faults, and every fault that is as bad.
pub fn judge(cluster: &Cluster, snapshot: &Snapshot) -> (Verdict, String) {
    let mut faults = Faults::new();
    service(cluster, snapshot, &mut faults);
    for node in &cluster.nodes {
        of_node(node, cluster.now, &mut faults);
    }
    storage(cluster, &mut faults);
    seats(snapshot, &mut faults);
    if cluster.is_stale {
        faults.push((
            Verdict::Degraded,
            "the registry does not answer: roles stay as they were".into(),
        ));
    }
    let worst = faults.iter().map(|(verdict, _)| *verdict).max();
    let worst = worst.unwrap_or(Verdict::Healthy);
    let mut reasons: Vec<String> = Vec::new();
    for (_, reason) in faults.into_iter().filter(|(verdict, _)| *verdict == worst) {
        if !reason.is_empty() && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    (worst, reasons.join("; "))
}

/// Whether pages are served.
fn service(cluster: &Cluster, snapshot: &Snapshot, faults: &mut Faults) {
    let is_starting = cluster.nodes.iter().any(|node| node.state == State::Starting);
    let severity = if is_starting { Verdict::Starting } else { Verdict::Down };
    if !snapshot.nodes.iter().any(|node| node.takes(Fit::WEB)) {
        faults.push((severity, "no node runs PHP".into()));
    }
    let database = cluster.data.database.as_deref();
    match database.map(|name| (name, snapshot.node(name))) {
        None => faults.push((severity, "no node has the database".into())),
        Some((_, Some(node))) if node.is_live && node.fit.has(Fit::DB) => {}
        Some((name, Some(node))) if node.is_live => {
            faults.push((severity, format!("the database on {name} does not answer")));
        }
        Some((name, _)) => faults.push((severity, format!("{name}, which has the database, is silent"))),
    }
}

fn of_node(node: &NodeRow, now: u64, faults: &mut Faults) {
    let name = &node.name;
    match node.state {
        State::Silent => faults.push((Verdict::Degraded, silence(node))),
        State::Mute => faults.push((Verdict::Degraded, format!("the agent of {name} does not answer"))),
        State::Ready | State::Starting | State::Degraded | State::Down | State::Joining | State::Draining => {}
    }
    let Some(overview) = &node.overview else { return };
    match overview.verdict {
        Verdict::Healthy => {}
        Verdict::Starting => faults.push((Verdict::Starting, said(node, overview))),
        Verdict::Degraded | Verdict::Down => faults.push((Verdict::Degraded, said(node, overview))),
    }
    let facts = &overview.facts;
    for (what, certificate, least) in [
        ("the portal's certificate", facts.portal_certificate, PORTAL_DAYS),
        ("its certificate for other nodes", facts.node_certificate, NODE_DAYS),
    ] {
        let Some(days) = certificate.map(|certificate| certificate.days(now)) else {
            continue;
        };
        if days < least {
            let ends = if days < 0 {
                "has ended".into()
            } else {
                format!("ends in {days} d")
            };
            faults.push((Verdict::Degraded, format!("{name}: {what} {ends}")));
        }
    }
}

fn silence(node: &NodeRow) -> String {
    match node.silent {
        Some(seconds) => format!("{} is silent for {seconds} s", node.name),
        None => format!("{} is silent", node.name),
    }
}

/// Of a node that is alone the name is no news.
fn said(node: &NodeRow, overview: &Overview) -> String {
    match node.address.as_str() {
        "" => overview.reason.clone(),
        _ => format!("{}: {}", node.name, overview.reason),
    }
}

fn storage(cluster: &Cluster, faults: &mut Faults) {
    if let Some(quorum) = cluster.quorum
        && !quorum.has_leader
        && quorum.voters > 0
    {
        let (present, voters) = (quorum.present, quorum.voters);
        let text = format!("no quorum of the storage ({present} of {voters} are here): changes of files wait");
        faults.push((Verdict::Degraded, text));
    }
    if let Some((copies, wanted)) = cluster.data.copies
        && copies < wanted
    {
        let behind = match cluster.data.behind.as_slice() {
            [] => String::new(),
            [one] => format!(", {one} is behind"),
            more => format!(", {} are behind", more.join(" and ")),
        };
        faults.push((
            Verdict::Degraded,
            format!("{copies} of {wanted} copies of the files{behind}"),
        ));
    }
    if cluster.data.is_full {
        faults.push((
            Verdict::Degraded,
            "the storage's disk is nearly full: nothing new is taken".into(),
        ));
    }
}

/// Seats that should have a holder. The database's is judged by whether pages are served; that of the backups is taken where there is a
/// schedule.
fn seats(snapshot: &Snapshot, faults: &mut Faults) {
    for seat in &snapshot.seats {
        let is_held = seat
            .holder
            .as_deref()
            .is_some_and(|holder| snapshot.node(holder).is_some());
        let text = match seat.role {
            _ if is_held => continue,
            Role::Db | Role::Backup => continue,
            // The last certificate that is renewed was taken out.
            Role::Acme if !places(&snapshot.settings).iter().any(|place| place.role == Role::Acme) => continue,
            Role::Edge => format!("no node holds the address {}", seat.seat),
            Role::Cron => "no node runs the portal's jobs".into(),
            Role::Cache => "no node has the cache".into(),
            Role::Acme => "no node renews the certificates".into(),
        };
        faults.push((Verdict::Degraded, text));
    }
}
