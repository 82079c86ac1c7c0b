//! A cluster that writes, crashes, parts and comes back at random, under this algorithm and nothing else. Whoever begins it anew has
//! every write-set that anybody ever had, but for those that the operator gave up; and nobody who has such comes back with them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NODES: usize = 4;
const HISTORY: u128 = 7;

#[derive(Clone, Debug)]
enum Step {
    /// On the Primary component's first member; the rest have it, too, or get it with the next view.
    Write {
        is_spread: bool,
    },
    /// Its server dies; the others notice with the next `Part`.
    Crash(usize),
    Stop(usize),
    /// Members that do not run leave the view, if the rest have the majority.
    Part,
    /// Its machine goes away, or comes back.
    Power(usize),
    /// Its agent looks at its data, if its server does not run.
    Look(usize),
    /// The same, and they cannot be read.
    Fail(usize),
    /// Its agent decides by what is in the registry. Hearts may be heard late.
    Decide {
        node: usize,
        hears: [bool; NODES],
        sees_primary: bool,
    },
    /// Those that were let restore their view do, or give up.
    Restore,
    /// A joiner is synced, if there is a Primary component.
    Sync(usize),
    /// How much a member counts in the view from now on.
    Weigh(usize, u8),
    /// The operator's word, where nobody serves.
    Force(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        4 => any::<bool>().prop_map(|is_spread| Step::Write { is_spread }),
        3 => node().prop_map(Step::Crash),
        1 => node().prop_map(Step::Stop),
        3 => Just(Step::Part),
        2 => node().prop_map(Step::Power),
        5 => node().prop_map(Step::Look),
        1 => node().prop_map(Step::Fail),
        8 => (node(), any::<[bool; NODES]>(), any::<bool>())
            .prop_map(|(node, hears, sees_primary)| Step::Decide { node, hears, sees_primary }),
        1 => Just(Step::Restore),
        4 => node().prop_map(Step::Sync),
        1 => (node(), 1..3_u8).prop_map(|(node, weight)| Step::Weigh(node, weight)),
        1 => node().prop_map(Step::Force),
    ]
}

#[derive(Clone, Debug, Default)]
struct Disk {
    seqno: Option<i64>,
    view: Option<(u64, BTreeSet<u128>)>,
    /// Its id in views; a new one at each start but a restored one.
    id: u128,
    epoch: u64,
    /// It has write-sets that were given up.
    has_parted: bool,
    weight: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Runs {
    No,
    Joining,
    Restoring,
    Member,
}

#[derive(Debug)]
struct World {
    disks: Vec<Disk>,
    runs: Vec<Runs>,
    is_up: Vec<bool>,
    /// Members of the Primary component, those of which some have died perhaps.
    primary: BTreeSet<usize>,
    number: u64,
    ids: u128,
    written: i64,
    records: Vec<Option<Server>>,
    history: bool,
    epoch: u64,
    begun: Vec<(u64, i64)>,
    forced: Option<usize>,
}

impl World {
    fn new() -> Self {
        World {
            disks: vec![Disk::default(); NODES],
            runs: vec![Runs::No; NODES],
            is_up: vec![true; NODES],
            primary: BTreeSet::new(),
            number: 0,
            ids: 0,
            written: 0,
            records: vec![None; NODES],
            history: false,
            epoch: 0,
            begun: Vec::new(),
            forced: None,
        }
    }

    fn alive(&self) -> Vec<usize> {
        self.primary
            .iter()
            .copied()
            .filter(|at| self.runs[*at] == Runs::Member)
            .collect()
    }

    fn has_majority(&self) -> bool {
        let count = |at: &usize| u32::from(self.disks[*at].weight);
        let (alive, all) = (
            self.alive().iter().map(count).sum::<u32>(),
            self.primary.iter().map(count).sum(),
        );
        alive * 2 > all
    }

    /// All that run are in a new view, and have what any of them had.
    fn form(&mut self, members: BTreeSet<usize>) {
        self.number += 1;
        let newest = members.iter().filter_map(|at| self.disks[*at].seqno).max();
        let ids: BTreeSet<u128> = members.iter().map(|at| self.disks[*at].id).collect();
        for at in &members {
            self.disks[*at].seqno = newest;
            self.disks[*at].view = Some((self.number, ids.clone()));
            self.runs[*at] = Runs::Member;
        }
        self.primary = members;
    }

    fn end(&mut self, at: usize) {
        self.runs[at] = Runs::No;
    }

    fn report(&self, at: usize) -> Report {
        let disk = &self.disks[at];
        let was_restored = match &self.records[at] {
            Some(Server::Started { how, .. }) => *how == How::Restore,
            Some(Server::Broken { tried, .. }) => tried.is_some(),
            _ => false,
        };
        let uuid = |number: u128| -> Uuid {
            let digits = format!("{number:032x}");
            format!(
                "{}-{}-{}-{}-{}",
                &digits[..8],
                &digits[8..12],
                &digits[12..16],
                &digits[16..20],
                &digits[20..]
            )
            .parse()
            .unwrap()
        };
        Report {
            position: disk.seqno.map_or(Position::NONE, |seqno| Position {
                uuid: uuid(HISTORY),
                seqno,
            }),
            is_safe: false,
            is_galera: disk.seqno.is_some(),
            has_portal: disk.seqno.is_some(),
            view: disk.view.as_ref().map(|(number, members)| View {
                own: uuid(disk.id),
                leader: uuid(1),
                number: *number,
                members: members.iter().map(|id| uuid(*id)).collect(),
            }),
            epoch: disk.epoch,
            was_restored,
        }
    }

    fn cluster(&self, hears: &[bool; NODES], sees_primary: bool, own: usize) -> Cluster {
        let nodes = self.records.iter().enumerate().map(|(at, server)| {
            let is_primary = sees_primary && self.has_majority() && self.alive().contains(&at);
            let node = Node {
                is_live: at == own || hears[at],
                is_primary,
                server: server.clone(),
            };
            (format!("n{at}"), node)
        });
        Cluster {
            nodes: nodes.collect(),
            history: self.history.then(|| self.report_uuid()),
            epoch: self.epoch,
            begun: self.begun.clone(),
            forced: self.forced.map(|at| format!("n{at}")),
        }
    }

    fn report_uuid(&self) -> Uuid {
        format!("00000000-0000-0000-0000-{HISTORY:012x}").parse().unwrap()
    }

    fn decide(&mut self, at: usize, hears: &[bool; NODES], sees_primary: bool) -> Result<(), TestCaseError> {
        let Some(Server::Down { report }) = self.records[at].clone() else {
            return Ok(());
        };
        if !self.is_up[at] || self.runs[at] != Runs::No {
            return Ok(());
        }
        if self.has_majority() {
            // The operator is not let say it, or takes it back.
            self.forced = None;
        }
        let start = decide(&self.cluster(hears, sees_primary, at), &format!("n{at}"));
        let mut started = |how| {
            self.records[at] = Some(Server::Started {
                how,
                report: report.clone(),
            })
        };
        match start {
            Start::Wait(_) => {}
            Start::Refuse(why) => return Err(TestCaseError::fail(format!("refused: {why}"))),
            Start::WithPosition => {
                started(How::Restore);
                self.runs[at] = Runs::Restoring;
            }
            Start::Join => {
                started(How::Join);
                prop_assert!(!self.disks[at].has_parted, "n{} comes back with what was given up", at);
                self.fresh_id(at);
                self.runs[at] = Runs::Joining;
            }
            Start::JoinAnew => {
                started(How::Anew);
                prop_assert!(self.disks[at].has_parted, "n{} gives its data up for nothing", at);
                self.disks[at].seqno = None;
                self.disks[at].has_parted = false;
                self.fresh_id(at);
                self.runs[at] = Runs::Joining;
            }
            Start::Bootstrap => {
                started(How::Bootstrap);
                self.begin(at)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, at: usize) -> Result<(), TestCaseError> {
        let own = self.disks[at].seqno;
        let mut from = own.unwrap_or(-1);
        prop_assert!(!self.has_majority(), "a Primary component lives");
        match self.forced.take() {
            Some(_) => {
                for disk in &mut self.disks {
                    disk.has_parted |= disk.seqno > own;
                }
                // The operator may choose what was given up before: then that is what counts, and the rest is given up.
                if std::mem::take(&mut self.disks[at].has_parted) {
                    from = -1;
                    for (other, disk) in self.disks.iter_mut().enumerate() {
                        disk.has_parted = other != at && disk.seqno.is_some();
                    }
                }
                // Their agents end them.
                for other in 0..NODES {
                    if self.runs[other] != Runs::Member {
                        self.end(other);
                    }
                }
            }
            None => {
                let whole = self.disks.iter().filter(|disk| !disk.has_parted);
                let newest = whole.filter_map(|disk| disk.seqno).max();
                prop_assert_eq!(own, newest, "n{} begins, others know more", at);
                prop_assert!(!self.disks[at].has_parted, "n{} begins from what was given up", at);
            }
        }
        self.epoch += 1;
        self.begun.push((self.epoch, from));
        self.history = true;
        self.fresh_id(at);
        self.number = 0;
        self.disks[at].seqno = Some(own.unwrap_or(0));
        self.form([at].into());
        Ok(())
    }

    /// As the supervisor prepares a start: the old view goes, then the epoch is noted.
    fn fresh_id(&mut self, at: usize) {
        self.ids += 1;
        self.disks[at].id = self.ids;
        self.disks[at].view = None;
        self.disks[at].epoch = self.epoch;
        self.disks[at].weight = 1;
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Write { is_spread } if self.primary.len() == self.alive().len() && !self.primary.is_empty() => {
                self.written = self.disks.iter().filter_map(|disk| disk.seqno).max().unwrap_or(0) + 1;
                let count = if is_spread { NODES } else { 1 };
                for at in self.alive().into_iter().take(count) {
                    self.disks[at].seqno = Some(self.written);
                }
            }
            Step::Crash(at) => self.end(at),
            Step::Stop(at) => {
                // Its farewell is a view of the others, which have what it had.
                if self.primary.len() == self.alive().len() && self.primary.contains(&at) {
                    let newest = self.alive().iter().filter_map(|at| self.disks[*at].seqno).max();
                    for at in self.alive() {
                        self.disks[at].seqno = newest;
                    }
                    let mut rest = self.primary.clone();
                    rest.remove(&at);
                    self.disks[at].view = None;
                    match rest.is_empty() {
                        true => self.primary.clear(),
                        false => self.form(rest),
                    }
                }
                self.end(at);
            }
            Step::Part if self.has_majority() => {
                let rest: BTreeSet<usize> = self.alive().into_iter().collect();
                if rest != self.primary {
                    self.form(rest);
                }
            }
            Step::Power(at) => {
                self.is_up[at] = !self.is_up[at];
                self.end(at);
            }
            Step::Look(at) if self.is_up[at] && self.runs[at] == Runs::No => {
                self.records[at] = Some(Server::Down {
                    report: self.report(at),
                });
            }
            Step::Fail(at) if self.is_up[at] && self.runs[at] == Runs::No && self.records[at].is_some() => {
                self.records[at] = Some(Server::Broken {
                    why: String::new(),
                    tried: self.records[at].as_ref().and_then(Server::tried).cloned(),
                });
            }
            Step::Decide {
                node,
                hears,
                sees_primary,
            } => self.decide(node, &hears, sees_primary)?,
            Step::Restore => self.restore(),
            Step::Weigh(at, weight) if self.primary.len() == self.alive().len() && self.primary.contains(&at) => {
                self.disks[at].weight = weight;
            }
            Step::Force(at) if !self.has_majority() && self.disks[at].seqno.is_some() => self.forced = Some(at),
            Step::Sync(at) if self.runs[at] == Runs::Joining && self.has_majority() => {
                let mut members: BTreeSet<usize> = self.alive().into_iter().collect();
                members.insert(at);
                self.form(members);
            }
            _ => {}
        }
        Ok(())
    }

    fn restore(&mut self) {
        let restoring: BTreeSet<usize> = (0..NODES).filter(|at| self.runs[*at] == Runs::Restoring).collect();
        let first = restoring.first().and_then(|at| self.disks[*at].view.clone());
        let ids: BTreeSet<u128> = restoring.iter().map(|at| self.disks[*at].id).collect();
        let is_same = restoring.iter().all(|at| self.disks[*at].view == first);
        match first {
            Some((number, members)) if is_same && members == ids => {
                self.number = number;
                self.form(restoring);
            }
            _ => restoring.into_iter().for_each(|at| self.end(at)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn who_begins_has_everything(steps in prop::collection::vec(step(), 1..160)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step)?;
        }
    }

    #[test]
    fn all_back_means_served_again(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step)?;
        }
        world.is_up = vec![true; NODES];
        // What still runs without a majority is ended by its agent.
        for at in 0..NODES {
            if !world.has_majority() {
                world.end(at);
            }
        }
        for _ in 0..3 * NODES {
            world.take(&Step::Part)?;
            for at in 0..NODES {
                world.take(&Step::Look(at))?;
            }
            for at in 0..NODES {
                world.take(&Step::Decide { node: at, hears: [true; NODES], sees_primary: true })?;
                world.take(&Step::Sync(at))?;
            }
            world.take(&Step::Restore)?;
        }
        prop_assert_eq!(world.alive().len(), NODES, "{:?}", world);
    }
}
