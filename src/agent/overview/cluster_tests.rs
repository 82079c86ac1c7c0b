//! Clusters in all their states: the verdict, its reason, and what each node's row says.

use std::collections::BTreeMap;

use super::cluster::*;
use super::facts::{Certificate, Facts};
use super::node::{Overview, Verdict};
use crate::cluster::{Fit, Member, Role, Seat, Snapshot, Standing};
use crate::storage::command::{self, Report};

pub const DAY: u64 = 24 * 3600;
pub const NOW: u64 = 20_000 * DAY;

/// Three nodes in the best of health: n1 has the database, the cache, the address and the jobs, n2 leads the storage.
pub struct World {
    pub snapshot: Snapshot,
    pub own: Overview,
    pub others: BTreeMap<String, Heard>,
}

fn copy(name: &str) -> command::Member {
    command::Member {
        name: name.into(),
        votes: true,
        in_sync: true,
        lag: Some(0),
        ..command::Member::default()
    }
}

fn report(node: &str) -> Report {
    Report {
        node: node.into(),
        role: if node == "n2" {
            command::Role::Leader
        } else {
            command::Role::Follower
        },
        leader: Some("n2".into()),
        copies: 3,
        wanted: 3,
        members: ["n1", "n2", "n3"].map(copy).into(),
        ..Report::default()
    }
}

fn overview(node: &str) -> Overview {
    Overview {
        verdict: Verdict::Healthy,
        reason: String::new(),
        node: node.into(),
        version: "0.4.1".into(),
        portal: "https://host1/".into(),
        admin: "https://10.0.0.1:8443".into(),
        services: Vec::new(),
        facts: Facts {
            cpu: Some(21),
            storage: Some(report(node)),
            portal_certificate: Some(Certificate {
                until: NOW + 61 * DAY,
                ..Certificate::default()
            }),
            ..Facts::default()
        },
    }
}

impl World {
    pub fn new() -> Self {
        let member = |number: u8| Member {
            name: format!("n{number}"),
            address: Some(([10, 0, 0, number], 7400).into()),
            standing: Standing::Member,
            is_live: true,
            fit: [Fit::EDGE, Fit::WEB].into_iter().fold(Fit::NONE, Fit::with),
        };
        let seat = |role, seat: &str| Seat {
            role,
            seat: seat.into(),
            holder: Some("n1".into()),
            epoch: 1,
        };
        let mut nodes: Vec<Member> = (1..=3).map(member).collect();
        nodes[0].fit = nodes[0].fit.with(Fit::DB).with(Fit::CACHE);
        let answer = |node: &str| {
            let answer = Answer::Came {
                overview: Box::new(overview(node)),
                skew: (3, 1),
            };
            (node.to_string(), Heard { answer, silent: None })
        };
        World {
            snapshot: Snapshot {
                revision: 9,
                own: "n1".into(),
                nodes,
                seats: vec![
                    seat(Role::Edge, "10.0.0.10/24"),
                    seat(Role::Cron, ""),
                    seat(Role::Db, ""),
                    seat(Role::Cache, ""),
                ],
                settings: [("portal.domain".to_string(), "portal.example.com".to_string())].into(),
                ..Snapshot::default()
            },
            own: overview("n1"),
            others: [answer("n2"), answer("n3")].into(),
        }
    }

    pub fn look(&self) -> Cluster {
        assemble(&Seen {
            snapshot: &self.snapshot,
            own: &self.own,
            fit: Fit::NONE,
            others: &self.others,
            now: NOW,
        })
    }

    pub fn other(&mut self, name: &str) -> &mut Overview {
        match &mut self.others.get_mut(name).unwrap().answer {
            Answer::Came { overview, .. } => overview,
            Answer::Missing(why) => panic!("{why}"),
        }
    }

    /// Switched off.
    pub fn lose(&mut self, number: usize, seconds: u64) {
        let node = &mut self.snapshot.nodes[number - 1];
        node.is_live = false;
        let heard = Heard {
            answer: Answer::Missing("no answer".into()),
            silent: Some(seconds),
        };
        self.others.insert(node.name.clone(), heard);
    }

    #[track_caller]
    fn is(&self, verdict: Verdict, reason: &str) {
        let cluster = self.look();
        assert_eq!((cluster.verdict, cluster.reason.as_str()), (verdict, reason));
    }
}

fn roles(row: &NodeRow) -> String {
    let part = |part: &Part| format!("{}{}", part.name, if part.is_held { "*" } else { "" });
    row.roles.iter().map(part).collect::<Vec<_>>().join(" ")
}

#[test]
fn three_well_nodes_are_healthy() {
    let world = World::new();
    world.is(Verdict::Healthy, "");
    let cluster = world.look();
    assert_eq!(cluster.domain, "portal.example.com");
    let quorum = cluster.quorum.unwrap();
    assert_eq!((quorum.present, quorum.voters, quorum.has_leader), (3, 3, true));
    let rows: Vec<(String, Option<u64>)> = cluster.nodes.iter().map(|row| (roles(row), row.lag)).collect();
    let expected = [
        ("edge* web db* cache* files cron*", Some(0)),
        ("edge web files*", None),
        ("edge web files", Some(0)),
    ];
    assert_eq!(rows, expected.map(|(roles, lag)| (roles.to_string(), lag)));
    assert_eq!(cluster.data.database.as_deref(), Some("n1"));
    assert!(cluster.nodes.iter().all(|row| row.state == State::Ready));
    assert_eq!((cluster.nodes[0].skew, cluster.nodes[1].skew), (None, Some((3, 1))));
}

#[test]
fn a_silent_node_degrades_and_is_named_with_its_silence() {
    let mut world = World::new();
    world.lose(3, 12);
    let leader = world.other("n2").facts.storage.as_mut().unwrap();
    leader.members[2].in_sync = false;
    leader.members[2].lag = Some(812);
    leader.copies = 2;
    world.is(
        Verdict::Degraded,
        "n3 is silent for 12 s; 2 of 3 copies of the files, n3 is behind",
    );
    let cluster = world.look();
    let row = &cluster.nodes[2];
    assert_eq!((row.state, row.silent, row.lag), (State::Silent, Some(12), Some(812)));
    assert_eq!(roles(row), "");
    assert_eq!(cluster.quorum.unwrap().present, 2);
}

#[test]
fn an_agent_that_hangs_is_told_from_a_node_that_is_gone() {
    let mut world = World::new();
    world.others.get_mut("n2").unwrap().answer = Answer::Missing("no answer within 1s".into());
    world.is(Verdict::Degraded, "the agent of n2 does not answer");
    let row = &world.look().nodes[1];
    assert_eq!(
        (row.state, row.unanswered.as_str()),
        (State::Mute, "no answer within 1s")
    );
    // Where nobody can be asked, the heart counts.
    world.others.clear();
    world.is(Verdict::Healthy, "");
}

#[test]
fn without_php_or_the_database_it_is_down() {
    let mut world = World::new();
    for node in &mut world.snapshot.nodes {
        node.standing = Standing::Draining;
    }
    world.is(Verdict::Down, "no node runs PHP");
    let mut world = World::new();
    world.snapshot.nodes[0].fit = Fit::WEB;
    world.is(Verdict::Down, "the database on n1 does not answer");
    world.snapshot.seats[2].holder = None;
    world.is(Verdict::Down, "no node has the database");
    // Seen from another node: the one that has it is off.
    let mut world = World::new();
    (world.own, world.snapshot.own) = (overview("n3"), "n3".into());
    world.others.remove("n3");
    world.lose(1, 5);
    world.is(Verdict::Down, "n1, which has the database, is silent");
}

#[test]
fn what_is_not_ready_for_the_first_time_is_no_fault_yet() {
    let mut world = World::new();
    (world.own.verdict, world.own.reason) = (Verdict::Starting, "waiting for php-fpm".into());
    world.is(Verdict::Starting, "n1: waiting for php-fpm");
    for node in &mut world.snapshot.nodes {
        node.fit = Fit::DB;
    }
    world.is(Verdict::Starting, "no node runs PHP; n1: waiting for php-fpm");
}

#[test]
fn a_node_that_is_down_only_degrades_while_another_serves() {
    let mut world = World::new();
    world.snapshot.nodes[1].fit = Fit::NONE;
    let other = world.other("n2");
    (other.verdict, other.reason) = (Verdict::Down, "php-fpm: exit status: 1".into());
    world.is(Verdict::Degraded, "n2: php-fpm: exit status: 1");
    assert_eq!(world.look().nodes[1].state, State::Down);
}

#[test]
fn files_without_quorum_wait_and_pages_go_on() {
    let mut world = World::new();
    world.lose(2, 9);
    world.lose(3, 9);
    let own = world.own.facts.storage.as_mut().unwrap();
    own.leader = None;
    world.is(
        Verdict::Degraded,
        "n2 is silent for 9 s; n3 is silent for 9 s; no quorum of the storage (1 of 3 are here): changes of files wait",
    );
}

#[test]
fn seats_that_nobody_holds_are_told() {
    let mut world = World::new();
    for seat in [0, 1, 3] {
        world.snapshot.seats[seat].holder = None;
    }
    let reason = "no node holds the address 10.0.0.10/24; no node runs the portal's jobs; no node has the cache";
    world.is(Verdict::Degraded, reason);
    // A holder that left the cluster is none.
    let mut world = World::new();
    world.snapshot.seats[1].holder = Some("n9".into());
    world.is(Verdict::Degraded, "no node runs the portal's jobs");
}

#[test]
fn certificates_near_their_end_degrade() {
    let until = |days: u64| {
        let certificate = Certificate::default();
        Some(Certificate {
            until: NOW + days * DAY,
            ..certificate
        })
    };
    let mut world = World::new();
    world.own.facts.portal_certificate = until(10);
    world.other("n2").facts.node_certificate = until(8);
    world.is(Verdict::Healthy, "");
    world.own.facts.portal_certificate = until(9);
    world.other("n2").facts.node_certificate = until(7);
    world.is(
        Verdict::Degraded,
        "n1: the portal's certificate ends in 9 d; n2: its certificate for other nodes ends in 7 d",
    );
    let mut world = World::new();
    world.own.facts.portal_certificate = Some(Certificate::default());
    world.is(Verdict::Degraded, "n1: the portal's certificate has ended");
}

#[test]
fn a_node_without_a_registry_is_a_cluster_of_one() {
    let mut own = overview("n1");
    own.facts.storage = None;
    own.facts.files = "local".into();
    let look = |own: &Overview, fit| {
        assemble(&Seen {
            snapshot: &Snapshot::default(),
            own,
            fit,
            others: &BTreeMap::new(),
            now: NOW,
        })
    };
    let cluster = look(&own, Fit::WEB.with(Fit::DB));
    assert_eq!((cluster.verdict, cluster.reason.as_str()), (Verdict::Healthy, ""));
    assert_eq!((cluster.domain.as_str(), cluster.quorum), ("https://host1/", None));
    assert_eq!(cluster.data.copies, None);
    assert_eq!((cluster.nodes.len(), cluster.nodes[0].address.as_str()), (1, ""));
    (own.verdict, own.reason) = (Verdict::Degraded, "cache: exit status: 1".into());
    let cluster = look(&own, Fit::WEB.with(Fit::DB));
    assert_eq!(
        cluster.reason, "cache: exit status: 1",
        "of one node the name is no news"
    );
    assert_eq!(look(&own, Fit::DB).verdict, Verdict::Down);
}

#[test]
fn the_document_survives_the_wire() {
    let mut world = World::new();
    world.lose(3, 12);
    let cluster = world.look();
    let text = serde_json::to_string(&cluster).unwrap();
    assert_eq!(serde_json::from_str::<Cluster>(&text).unwrap(), cluster);
}
