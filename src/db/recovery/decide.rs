//! The decision of one node (`db::recovery`). Every node comes to the same one from the same facts.

use std::collections::BTreeMap;

use super::{Cluster, How, Node, Report, Server, Start, Uuid, View};

/// What `own` does with its server, which does not run.
pub fn decide(cluster: &Cluster, own: &str) -> Start {
    let Some(Server::Down { report }) = cluster.nodes.get(own).and_then(|node| node.server.as_ref()) else {
        return Start::Wait("this node has not looked at its own data yet".into());
    };
    let others = Others { cluster, own };
    if others.any(|node| node.is_live && node.is_primary) {
        return others.join(report);
    }
    if let Some(forced) = &cluster.forced {
        return match forced == own {
            true => Start::Bootstrap,
            false => Start::Wait(format!("the operator has {forced} begin the cluster")),
        };
    }
    if let Some(name) = others.starter() {
        return Start::Wait(format!("{name} is beginning the cluster"));
    }
    match cluster.history.or_else(|| others.founded()) {
        None => others.first(report),
        Some(history) => others.again(report, history),
    }
}

struct Others<'a> {
    cluster: &'a Cluster,
    own: &'a str,
}

impl<'a> Others<'a> {
    fn all(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let own = self.own;
        let nodes = self.cluster.nodes.iter().map(|(name, node)| (name.as_str(), node));
        nodes.filter(move |(name, _)| *name != own)
    }

    fn any(&self, is_it: impl Fn(&Node) -> bool) -> bool {
        self.all().any(|(_, node)| is_it(node))
    }

    /// A node that was let begin, and is not there yet.
    fn starter(&self) -> Option<&'a str> {
        let begins = |node: &Node| {
            let how = node.server.as_ref().and_then(Server::how);
            node.is_live && how == Some(How::Bootstrap)
        };
        self.all().find(|(_, node)| begins(node)).map(|(name, _)| name)
    }

    /// The history of the first node, which began the cluster and ended before that was noted.
    fn founded(&self) -> Option<Uuid> {
        let reports = self.cluster.nodes.values().filter_map(Node::down);
        let mut begun = reports.filter(|report| !report.position.uuid.is_zero());
        let first = begun.next()?;
        let is_of_it = |report: &Report| report.epoch == self.cluster.epoch;
        let is_only = begun.all(|report| report.position.uuid == first.position.uuid && is_of_it(report));
        (self.cluster.epoch > 0 && is_of_it(first) && is_only).then_some(first.position.uuid)
    }

    fn join(&self, report: &Report) -> Start {
        if let Some(refusal) = self.refusal(report) {
            return refusal;
        }
        let joins = |node: &Node| {
            let how = node.server.as_ref().and_then(Server::how);
            node.is_live && !node.is_primary && matches!(how, Some(How::Join | How::Anew))
        };
        match self.all().find(|(_, node)| joins(node)) {
            // Each one takes a donor from its work.
            Some((name, _)) => Start::Wait(format!("{name} joins first")),
            None if self.cluster.has_parted(report) => Start::JoinAnew,
            None => Start::Join,
        }
    }

    /// Own data that nobody may overwrite.
    fn refusal(&self, report: &Report) -> Option<Start> {
        let uuid = report.position.uuid;
        let is_foreign = self
            .cluster
            .history
            .is_some_and(|history| !uuid.is_zero() && uuid != history);
        if is_foreign {
            return Some(Start::Refuse(format!(
                "its data are of another history ({uuid}); if the cluster's are the right ones, move this node's data folder away"
            )));
        }
        let is_alone = report.has_portal && !report.is_galera;
        is_alone.then(|| {
            Start::Refuse(
                "it has a portal's database from before it was in the cluster, which joining would overwrite; move this node's data \
                 folder away"
                    .into(),
            )
        })
    }

    /// The cluster has no data yet.
    fn first(&self, report: &Report) -> Start {
        let mut reports = BTreeMap::new();
        for (name, node) in &self.cluster.nodes {
            match node.down() {
                Some(report) => drop(reports.insert(name.as_str(), report)),
                None => return Start::Wait(format!("whether {name} has data is not known: it has not reported")),
            }
        }
        if !report.position.uuid.is_zero() || reports.values().any(|report| !report.position.uuid.is_zero()) {
            return Start::Refuse(
                "there are data of a cluster that the registry does not know; `bitrix-node db bootstrap --force NODE` begins from those \
                 of one node"
                    .into(),
            );
        }
        let seeded: Vec<&str> = reports
            .iter()
            .filter(|(_, report)| report.has_portal)
            .map(|(name, _)| *name)
            .collect();
        let chosen = match seeded.as_slice() {
            [] => reports.keys().next().copied(),
            [one] => Some(*one),
            several => {
                return Start::Refuse(format!(
                    "{} each have a portal's database; `bitrix-node db bootstrap --force NODE` begins from one, and the others' are \
                     lost once they are moved away",
                    Cluster::names(several.iter().copied())
                ));
            }
        };
        self.elected(chosen.unwrap_or(self.own), "begins the cluster")
    }

    /// The cluster has data, and nobody serves them.
    fn again(&self, own: &Report, history: Uuid) -> Start {
        if let Some(refusal) = self.refusal(own) {
            return refusal;
        }
        let nodes = self.cluster.nodes.iter();
        // Data without a number may be the newest: that node has not said enough.
        let is_clear = |report: &&Report| report.position.is_known() || report.position.uuid.is_zero();
        let down: BTreeMap<&str, &Report> = nodes
            .filter_map(|(name, node)| Some((name.as_str(), node.down().filter(is_clear)?)))
            .collect();
        let is_foreign = |report: &Report| !report.position.uuid.is_zero() && report.position.uuid != history;
        let foreign = down
            .iter()
            .filter(|(_, report)| is_foreign(report))
            .map(|(name, _)| *name);
        let foreign = Cluster::names(foreign);
        if !foreign.is_empty() {
            return Start::Refuse(format!(
                "{foreign} has data of another history; move its data folder away, or remove that node from the cluster"
            ));
        }
        if self.restores(own) {
            return Start::WithPosition;
        }
        let missing: Vec<&str> = self
            .cluster
            .nodes
            .keys()
            .map(String::as_str)
            .filter(|name| !down.contains_key(name))
            .collect();
        if !missing.is_empty() && !self.is_latest_view_here(&down) {
            return Start::Wait(format!(
                "{} may have newer data; if lost for good: bitrix-node db bootstrap --force NODE",
                Cluster::names(missing)
            ));
        }
        let candidates = down
            .iter()
            .filter(|(_, report)| report.position.is_known() && !self.cluster.has_parted(report));
        // Names ascend: of equal ones the first stays.
        let best = candidates.rev().max_by_key(|(_, report)| report.position.seqno);
        match best {
            Some((best, _)) => self.elected(best, "has the newest data and begins the cluster"),
            None => Start::Wait("no node here has data; the cluster has some".into()),
        }
    }

    fn elected(&self, chosen: &str, why: &str) -> Start {
        match chosen == self.own {
            true => Start::Bootstrap,
            false => Start::Wait(format!("{chosen} {why}")),
        }
    }

    /// All are here, have data, and were in one view; some may have been started so already.
    fn restores(&self, own: &Report) -> bool {
        let Some(view) = &own.view else { return false };
        let epoch = self.cluster.epoch;
        let same = |node: &Node| {
            let report = match &node.server {
                Some(Server::Down { report }) if !report.was_restored => report,
                Some(Server::Started {
                    how: How::Restore,
                    report,
                }) => report,
                _ => return false,
            };
            let is_same = report.view.as_ref().is_some_and(|other| other.is_same(view));
            node.is_live && report.epoch == epoch && report.position.is_known() && is_same
        };
        let count = self.cluster.nodes.len();
        count > 1 && view.members.len() == count && self.cluster.nodes.values().all(same)
    }

    /// Whoever is not here cannot have been in a later Primary view than these (rule 4).
    fn is_latest_view_here(&self, down: &BTreeMap<&str, &Report>) -> bool {
        let reports = down.values().filter(|report| report.epoch == self.cluster.epoch);
        let views: Vec<&View> = reports.filter_map(|report| report.view.as_ref()).collect();
        let Some(latest) = views.iter().max_by_key(|view| view.number) else {
            return false;
        };
        // Of two that claim to be the newest, neither is proven.
        let is_newest = views
            .iter()
            .all(|view| view.is_same(latest) || view.number < latest.number);
        let is_here = |member: &Uuid| views.iter().any(|view| view.own == *member && view.is_same(latest));
        is_newest && latest.members.iter().all(is_here)
    }
}

impl Server {
    /// What it found last.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Server::Down { report } | Server::Started { report, .. } => Some(report),
            Server::Broken { .. } => None,
        }
    }

    /// From where a start with positions was tried that, if it does not run now, came to nothing.
    pub fn tried(&self) -> Option<&Report> {
        match self {
            Server::Started {
                how: How::Restore,
                report,
            } => Some(report),
            Server::Started { .. } => None,
            Server::Down { report } => Some(report).filter(|report| report.was_restored),
            Server::Broken { tried, .. } => tried.as_ref(),
        }
    }

    fn how(&self) -> Option<How> {
        match self {
            Server::Down { .. } | Server::Broken { .. } => None,
            Server::Started { how, .. } => Some(*how),
        }
    }
}

impl Node {
    /// What it found, if that still holds.
    fn down(&self) -> Option<&Report> {
        match &self.server {
            Some(Server::Down { report }) if self.is_live => Some(report),
            _ => None,
        }
    }
}
