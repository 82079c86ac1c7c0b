//! Which data are given up, by the elections since theirs.

use super::*;

const HISTORY: &str = "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b";

fn report(epoch: u64, seqno: i64) -> Report {
    Report {
        position: Position {
            uuid: HISTORY.parse().unwrap(),
            seqno,
        },
        is_safe: false,
        is_galera: true,
        has_portal: true,
        view: None,
        epoch,
        was_restored: false,
    }
}

fn node(is_primary: bool, report: Report) -> Node {
    Node {
        is_live: true,
        is_primary,
        server: Some(Server::Down { report }),
    }
}

/// Election 6 had all that election 5 had made, by number 115; election 7 had less, by the operator's word.
fn cluster(nodes: [(&str, Node); 2]) -> Cluster {
    Cluster {
        nodes: nodes.map(|(name, node)| (name.to_string(), node)).into(),
        history: Some(HISTORY.parse().unwrap()),
        epoch: 7,
        begun: vec![(6, 115), (7, 100)],
        forced: None,
    }
}

#[test]
fn what_any_later_election_had_not_is_given_up() {
    let cluster = cluster([("n1", node(false, report(5, 1))), ("n2", node(true, report(7, 1)))]);
    for (epoch, seqno, has_parted) in [
        (5, 100, false),
        (5, 101, true),
        (5, 110, true),
        (5, 116, true),
        (6, 100, false),
        (6, 130, true),
        (7, 900, false),
        // Its next one is not known any more.
        (4, 1, true),
    ] {
        assert_eq!(cluster.has_parted(&report(epoch, seqno)), has_parted, "{epoch}:{seqno}");
    }
    let torn = Cluster {
        epoch: 8,
        begun: vec![(6, 115), (8, 200)],
        ..cluster
    };
    assert!(torn.has_parted(&report(5, 1)), "one between is not known");
}

#[test]
fn it_comes_back_with_a_copy_and_begins_nothing() {
    let served = cluster([("n1", node(false, report(5, 110))), ("n2", node(true, report(7, 120)))]);
    assert_eq!(decide(&served, "n1"), Start::JoinAnew);
    let all_down = cluster([("n1", node(false, report(5, 110))), ("n2", node(false, report(7, 105)))]);
    assert_eq!(decide(&all_down, "n2"), Start::Bootstrap);
    assert!(matches!(decide(&all_down, "n1"), Start::Wait(_)));
}
