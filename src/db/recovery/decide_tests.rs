//! Recorded states: the crash cases that were measured on real servers, and states in which other operators' algorithms lost data.
//! One row each.

use std::collections::BTreeMap;

use super::*;

const HISTORY: &str = "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b";
const FOREIGN: &str = "0d8a3a10-e9f2-11f1-a5c1-1f2e3d4c5b6a";

fn uuid(text: &str) -> Uuid {
    text.parse().unwrap()
}

/// The id of a node in its group's views.
fn id(node: char) -> Uuid {
    uuid(&format!("{node}0000000-0000-0000-0000-00000000000{node}"))
}

fn view(own: char, number: u64, members: &str) -> View {
    View {
        own: id(own),
        leader: id(members.chars().next().unwrap()),
        number,
        members: members.chars().map(id).collect(),
    }
}

/// A crashed node of the cluster.
fn crashed(seqno: i64) -> Report {
    Report {
        position: Position {
            uuid: uuid(HISTORY),
            seqno,
        },
        is_safe: false,
        is_galera: true,
        has_portal: true,
        view: None,
        epoch: 4,
        was_restored: false,
    }
}

fn seen(own: char, number: u64, members: &str, seqno: i64) -> Report {
    Report {
        view: Some(view(own, number, members)),
        ..crashed(seqno)
    }
}

/// A data folder that was just made.
fn fresh() -> Report {
    Report {
        position: Position::NONE,
        is_galera: false,
        has_portal: false,
        epoch: 0,
        ..crashed(0)
    }
}

/// Copying the data was cut short; the provider calls such a node safe in some versions.
fn emptied() -> Report {
    Report {
        position: Position::NONE,
        is_safe: true,
        has_portal: false,
        ..crashed(0)
    }
}

fn node(is_live: bool, server: Option<Server>) -> Node {
    Node {
        is_live,
        is_primary: false,
        server,
    }
}

fn down(report: Report) -> Node {
    node(true, Some(Server::Down { report }))
}

fn started(how: How, report: Report) -> Node {
    node(true, Some(Server::Started { how, report }))
}

fn primary() -> Node {
    Node {
        is_primary: true,
        ..started(How::Join, crashed(5))
    }
}

/// Its machine is away; what it said last does not count.
fn away(report: Report) -> Node {
    node(false, Some(Server::Down { report }))
}

fn lost(how: How) -> Node {
    node(
        false,
        Some(Server::Started {
            how,
            report: crashed(5),
        }),
    )
}

fn cluster<const N: usize>(nodes: [Node; N]) -> Cluster {
    let named = nodes.into_iter().enumerate();
    Cluster {
        nodes: named.map(|(index, node)| (format!("n{}", index + 1), node)).collect(),
        history: Some(uuid(HISTORY)),
        epoch: 4,
        begun: vec![(3, 0), (4, 0)],
        forced: None,
    }
}

fn new_cluster<const N: usize>(nodes: [Node; N]) -> Cluster {
    Cluster {
        history: None,
        epoch: 0,
        ..cluster(nodes)
    }
}

/// What n1, n2 … do, in short: J, A (anew), P, B; W and R with the text's first words.
fn outcome(cluster: &Cluster) -> String {
    let decided: BTreeMap<&String, Start> = cluster.nodes.keys().map(|name| (name, decide(cluster, name))).collect();
    let is_down =
        |name: &String| matches!(cluster.nodes[name].server, Some(Server::Down { .. })) && cluster.nodes[name].is_live;
    let short = decided.iter().map(|(name, start)| match start {
        _ if !is_down(name) => '-',
        Start::Join => 'J',
        Start::JoinAnew => 'A',
        Start::WithPosition => 'P',
        Start::Bootstrap => 'B',
        Start::Wait(_) => 'W',
        Start::Refuse(_) => 'R',
    });
    short.collect()
}

type Row = (&'static str, Cluster, &'static str);

fn come_to_one_end(rows: &[Row]) {
    let mut faults = Vec::new();
    for (what, cluster, expected) in rows {
        let found = outcome(cluster);
        if found != *expected {
            let all: Vec<Start> = cluster.nodes.keys().map(|name| decide(cluster, name)).collect();
            faults.push(format!("{what}: {found}, not {expected}: {all:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn who_crashed_and_returned_begins_where_it_was() {
    come_to_one_end(&[
        (
            "one node crashes, the others live: it joins",
            cluster([primary(), primary(), down(crashed(5))]),
            "--J",
        ),
        (
            "two come back at once: one after the other",
            cluster([primary(), started(How::Join, crashed(5)), down(crashed(5))]),
            "--W",
        ),
        (
            "kill -9 of all, the views are the same: all start with positions; left to itself the provider forms an empty history",
            cluster([
                down(seen('1', 9, "123", 63)),
                down(seen('2', 9, "123", 63)),
                down(seen('3', 9, "123", 64)),
            ]),
            "PPP",
        ),
        (
            "the same while n1 was started so already",
            cluster([
                started(How::Restore, seen('1', 9, "123", 63)),
                down(seen('2', 9, "123", 63)),
                down(seen('3', 9, "123", 64)),
            ]),
            "-PP",
        ),
        (
            "the same, but that came to nothing: elected by number",
            cluster([
                down(Report {
                    was_restored: true,
                    ..seen('1', 9, "123", 63)
                }),
                down(Report {
                    was_restored: true,
                    ..seen('2', 9, "123", 64)
                }),
                down(Report {
                    was_restored: true,
                    ..seen('3', 9, "123", 64)
                }),
            ]),
            "WBW",
        ),
        (
            "n1 dies, 50 writes, n2 and n3 die, all return: no Primary forms by itself; n2 is elected, not n1",
            cluster([
                down(seen('1', 9, "123", 64)),
                down(seen('2', 10, "23", 115)),
                down(seen('3', 10, "23", 114)),
            ]),
            "WBW",
        ),
        (
            "stale n1 and n2 return, n3 is lost: n3 may have acknowledged what n2 has not",
            cluster([
                down(seen('1', 9, "123", 64)),
                down(seen('2', 10, "23", 115)),
                lost(How::Join),
            ]),
            "WW-",
        ),
    ]);
}

#[test]
fn who_may_have_more_is_waited_for() {
    come_to_one_end(&[
        (
            "n2 and n3 return, n1 was left behind before: nobody waits for it",
            cluster([
                lost(How::Join),
                down(seen('2', 10, "23", 115)),
                down(seen('3', 10, "23", 116)),
            ]),
            "-WB",
        ),
        (
            "stale n1 first and alone",
            cluster([down(seen('1', 9, "123", 64)), lost(How::Join), lost(How::Join)]),
            "W--",
        ),
        (
            "n1 shut down in order, and its view with it; n2 and n3 are away",
            cluster([down(crashed(118)), lost(How::Join), lost(How::Join)]),
            "W--",
        ),
        (
            "graceful stop of all: the last one to stop has the highest number, whatever the flags say",
            cluster([
                down(Report {
                    is_safe: true,
                    ..crashed(118)
                }),
                down(crashed(119)),
                down(crashed(120)),
            ]),
            "WWB",
        ),
        (
            "what n3 said before its machine went away does not count",
            cluster([down(crashed(118)), down(crashed(119)), away(crashed(120))]),
            "WW-",
        ),
        (
            "two nodes, one lost, the survivor was in their last view",
            cluster([down(seen('1', 3, "12", 40)), lost(How::Join)]),
            "W-",
        ),
        (
            "two nodes, n2 left in order before n1 crashed alone",
            cluster([down(seen('1', 4, "1", 40)), away(crashed(39))]),
            "B-",
        ),
        (
            "n2 has data whose number cannot be found: they may be the newest",
            cluster([down(crashed(64)), down(crashed(-1)), down(crashed(63))]),
            "WWW",
        ),
        (
            "the same while its view is the newest one, and all of that are here",
            cluster([
                down(seen('1', 9, "12", 64)),
                down(seen('2', 9, "12", -1)),
                lost(How::Join),
            ]),
            "WW-",
        ),
    ]);
}

#[test]
fn an_election_breaks_the_chain_of_views() {
    come_to_one_end(&[
        (
            "n3 was left behind before, and nobody needs its number",
            cluster([
                down(seen('1', 10, "12", 64)),
                down(seen('2', 10, "12", 65)),
                down(seen('3', 9, "123", -1)),
            ]),
            "WBW",
        ),
        (
            "an election broke the chain of views: n2 was never in the new one, n1 wrote on alone and is lost",
            cluster([
                lost(How::Bootstrap),
                down(Report {
                    epoch: 3,
                    ..seen('2', 57, "2", 115)
                }),
            ]),
            "-W",
        ),
        (
            "two that both claim the newest view prove nothing",
            cluster([
                down(seen('1', 9, "1", 64)),
                down(seen('2', 9, "2", 65)),
                lost(How::Join),
            ]),
            "WW-",
        ),
        (
            "elected n2 begins: the others wait for it",
            cluster([
                down(crashed(64)),
                started(How::Bootstrap, crashed(115)),
                down(crashed(115)),
            ]),
            "W-W",
        ),
    ]);
}

#[test]
fn who_cannot_start_is_waited_for_only_by_what_it_may_have() {
    let broken = || {
        let why = "its data cannot be recovered".into();
        node(true, Some(Server::Broken { why, tried: None }))
    };
    come_to_one_end(&[
        (
            "n1 began the cluster and is damaged now; n2 and n3 went on without it, and come back",
            cluster([broken(), down(seen('2', 10, "23", 115)), down(seen('3', 10, "23", 114))]),
            "-BW",
        ),
        (
            "it was in the last view: it may have newer data",
            cluster([broken(), down(seen('2', 9, "123", 115)), down(seen('3', 9, "123", 114))]),
            "-WW",
        ),
        (
            "n3 was joining when it broke: nobody waits for its turn",
            cluster([primary(), down(crashed(5)), broken()]),
            "-J-",
        ),
    ]);
}

#[test]
fn states_in_which_others_lost_data() {
    come_to_one_end(&[
        (
            "mariadb-operator 1701, 1816: an emptied node whose flag says it is safe",
            cluster([down(emptied()), down(crashed(115)), down(crashed(114))]),
            "WBW",
        ),
        (
            "the same while the only node with data is away: an empty one never begins",
            cluster([down(emptied()), down(emptied()), lost(How::Join)]),
            "WW-",
        ),
        (
            "mariadb-operator 1108: histories are not compared, only numbers",
            cluster([
                down(crashed(64)),
                down(Report {
                    position: Position {
                        uuid: uuid(FOREIGN),
                        seqno: 9000,
                    },
                    ..crashed(0)
                }),
                down(crashed(63)),
            ]),
            "RRR",
        ),
        (
            "mariadb-operator 424: a node that is being filled again and again hides that nobody is left",
            cluster([
                down(seen('1', 9, "12", 64)),
                down(seen('2', 9, "12", 64)),
                started(How::Join, emptied()),
            ]),
            "BW-",
        ),
        (
            "kubeblocks 2996: node 0 at number 7 while others have 8 and 9",
            cluster([down(crashed(7)), down(crashed(8)), down(crashed(9))]),
            "WWB",
        ),
        (
            "kubeblocks 2997: the newest cannot be proven",
            cluster([down(crashed(7)), down(crashed(8)), node(true, None)]),
            "WW-",
        ),
        (
            "bitnami charts 2260: node 0 begins whenever it starts; here it joins",
            cluster([down(crashed(7)), primary(), primary()]),
            "J--",
        ),
        (
            "containers 54037: a wish to begin that stayed behind; a Primary component lives",
            Cluster {
                forced: Some("n1".into()),
                ..cluster([down(crashed(7)), primary(), primary()])
            },
            "J--",
        ),
    ]);
}

#[test]
fn data_of_strangers_stay() {
    come_to_one_end(&[
        (
            "data of another history are not overwritten by joining",
            cluster([
                primary(),
                down(Report {
                    position: Position {
                        uuid: uuid(FOREIGN),
                        seqno: 10,
                    },
                    ..crashed(0)
                }),
            ]),
            "-R",
        ),
        (
            "nor are those of a server that was none of Galera's",
            cluster([
                primary(),
                down(Report {
                    has_portal: true,
                    ..fresh()
                }),
            ]),
            "-R",
        ),
        (
            "copying was cut short: it joins again",
            cluster([
                primary(),
                down(Report {
                    has_portal: true,
                    ..emptied()
                }),
            ]),
            "-J",
        ),
    ]);
}

#[test]
fn a_cluster_without_data_begins_once() {
    come_to_one_end(&[
        ("the first node alone", new_cluster([down(fresh())]), "B"),
        (
            "three new ones",
            new_cluster([down(fresh()), down(fresh()), down(fresh())]),
            "BWW",
        ),
        (
            "a portal moves into the cluster: its node begins, whatever its name",
            new_cluster([
                down(fresh()),
                down(Report {
                    has_portal: true,
                    ..fresh()
                }),
            ]),
            "WB",
        ),
        (
            "two portals: the operator must say which",
            new_cluster([
                down(Report {
                    has_portal: true,
                    ..fresh()
                }),
                down(Report {
                    has_portal: true,
                    ..fresh()
                }),
            ]),
            "RR",
        ),
        (
            "n2 has not reported: it may have the portal",
            new_cluster([down(fresh()), node(true, None)]),
            "W-",
        ),
        (
            "a registry that was lost does not know of the data",
            new_cluster([down(crashed(64)), down(fresh())]),
            "RR",
        ),
        (
            "the first node ended before its history was noted",
            Cluster {
                epoch: 1,
                ..new_cluster([down(Report { epoch: 1, ..crashed(2) }), down(fresh())])
            },
            "BW",
        ),
        (
            "the operator's word",
            Cluster {
                forced: Some("n2".into()),
                ..cluster([down(crashed(64)), down(crashed(63)), lost(How::Join)])
            },
            "WB-",
        ),
    ]);
}

#[test]
fn whom_it_waits_for_is_said() {
    let cluster = cluster([down(crashed(64)), lost(How::Join), node(false, None)]);
    let Start::Wait(why) = decide(&cluster, "n1") else {
        panic!("it waits")
    };
    assert!(why.starts_with("n2, n3 may have newer data;"), "{why}");
    let strange = decide(&cluster, "n9");
    assert!(matches!(strange, Start::Wait(_)), "{strange:?}");
}

/// The operator had n2 begin at 115 when n1, which knew more, was away: that was election 5.
fn forced_before<const N: usize>(nodes: [Node; N]) -> Cluster {
    Cluster {
        epoch: 6,
        begun: vec![(4, 10), (5, 115), (6, 130)],
        ..cluster(nodes)
    }
}

#[test]
fn changes_that_were_given_up_do_not_come_back() {
    let since = |seqno| Report {
        epoch: 6,
        ..crashed(seqno)
    };
    come_to_one_end(&[
        (
            "what n1 has more than n2 had is lost: what it lacks since does not fit on it, although it has fewer",
            forced_before([down(crashed(120)), primary()]),
            "A-",
        ),
        (
            "n1 had not more than n2 when that began",
            forced_before([down(crashed(115)), primary()]),
            "J-",
        ),
        (
            "of the newest election, whatever its number",
            forced_before([down(since(131)), primary()]),
            "J-",
        ),
        (
            "all went down again: the higher number is the lost one",
            forced_before([down(crashed(140)), down(since(135))]),
            "WB",
        ),
        (
            "the election after its own is not known any more",
            Cluster {
                begun: vec![(6, 130)],
                ..forced_before([down(crashed(1)), primary()])
            },
            "A-",
        ),
        (
            "it copies already: the next one waits",
            forced_before([started(How::Anew, crashed(120)), primary(), down(crashed(9))]),
            "--W",
        ),
    ]);
}
