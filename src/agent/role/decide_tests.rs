//! Decisions of one node, from looks made by hand.

use std::time::Duration;

use super::Seen;
use super::decide::{Act, Cause, Grounds, decide};
use super::memory::Memory;
use super::prefer::{self, Load};
use crate::cluster::{ADDRESSES, Fit, GALERA, Member, PINS, Place, Role, Seat, Snapshot, Standing, TRANSFERS};

const A: &str = "10.0.0.10/24";
const B: &str = "10.0.0.11/24";

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// All are members and live; n1, n2, n3 are fit for everything that moves, n4 not for the edge. Cron, db and cache are n4's.
fn calm(own: &str) -> Seen {
    let member = |name: &str| Member {
        name: name.into(),
        address: None,
        standing: Standing::Member,
        is_live: true,
        fit: Fit::EDGE.with(Fit::CRON),
    };
    let seat = |role| Seat {
        role,
        seat: String::new(),
        holder: Some("n4".into()),
        epoch: 1,
    };
    let mut seen = Seen {
        snapshot: Snapshot {
            own: own.into(),
            nodes: ["n1", "n2", "n3", "n4"].map(member).to_vec(),
            seats: [Role::Cron, Role::Db, Role::Cache].map(seat).to_vec(),
            settings: [(ADDRESSES.into(), A.into())].into(),
            ..Snapshot::default()
        },
        ..Seen::default()
    };
    seen.node("n4").fit = Fit::CRON;
    seen
}

impl Seen {
    fn with(mut self, holder: Option<&str>, epoch: u64) -> Self {
        self.snapshot.seats.push(Seat {
            role: Role::Edge,
            seat: A.into(),
            holder: holder.map(str::to_string),
            epoch,
        });
        self
    }

    fn node(&mut self, name: &str) -> &mut Member {
        let mut nodes = self.snapshot.nodes.iter_mut();
        nodes.find(|node| node.name == name).unwrap()
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        self.snapshot.settings.insert(key.into(), value.into());
        self
    }

    fn dead(mut self, name: &str) -> Self {
        self.node(name).is_live = false;
        self.silent.insert(name.into());
        self
    }

    /// Who comes first for the address.
    fn first(&self) -> String {
        let best = prefer::candidates(&self.snapshot, &edge(), &prefer::load(&self.snapshot));
        best[0].name.clone()
    }
}

fn edge() -> Place {
    Place::new(Role::Edge, A)
}

/// What it does of its own accord, `after` seconds of the same look.
fn after(seen: &Seen, memory: &mut Memory, now: f64) -> Vec<Act> {
    memory.observe(seen, seconds(now));
    decide(seen, memory, seconds(now), Some(seconds(now + 3.0)))
}

/// A node that acts for the address under this epoch.
fn acting(epoch: u64) -> Memory {
    let mut memory = Memory::default();
    memory.claimed(&edge(), epoch, seconds(0.0), seconds(1000.0));
    memory
}

#[test]
fn a_free_seat_is_claimed_by_the_best_first_and_by_the_others_later() {
    let seen = calm("n1").with(None, 4);
    let first = seen.first();
    for own in ["n1", "n2", "n3"] {
        let (seen, mut memory) = (calm(own).with(None, 4), Memory::default());
        let acts = after(&seen, &mut memory, 10.0);
        assert_eq!(!acts.is_empty(), own == first, "{own} {acts:?}");
        let acts = after(&seen, &mut memory, 10.7);
        let old = seen.record(&edge()).cloned();
        let claim = Act::Claim {
            place: edge(),
            old,
            why: Grounds::Free,
        };
        assert_eq!(acts, [claim], "{own}");
    }
}

#[test]
fn two_free_seats_go_to_two_nodes() {
    let both = format!("{A},{B}");
    let mut claims = Vec::new();
    for own in ["n1", "n2", "n3"] {
        let seen = calm(own).set(ADDRESSES, &both);
        claims.extend(
            after(&seen, &mut Memory::default(), 10.0)
                .into_iter()
                .map(|act| (own, act)),
        );
    }
    assert_eq!(claims.len(), 2, "{claims:?}");
    assert_ne!(claims[0].0, claims[1].0);
}

#[test]
fn a_holder_that_can_be_heard_keeps_its_seat_and_a_silent_one_loses_it() {
    let seen = calm("n2").with(Some("n1"), 4);
    let mut memory = Memory::default();
    for step in 0..100 {
        assert_eq!(after(&seen, &mut memory, f64::from(step)), []);
    }
    let seen = seen.dead("n1");
    after(&seen, &mut memory, 100.0);
    let acts = after(&seen, &mut memory, 100.7);
    assert!(
        matches!(
            &acts[..],
            [Act::Claim {
                why: Grounds::Silent,
                ..
            }]
        ),
        "{acts:?}"
    );
}

#[test]
fn without_an_acknowledged_heartbeat_nothing_is_claimed_or_held() {
    let seen = calm("n1").with(None, 4);
    let mut memory = Memory::default();
    memory.observe(&seen, seconds(1.0));
    assert_eq!(decide(&seen, &memory, seconds(9.0), None), []);
    assert_eq!(decide(&seen, &memory, seconds(9.0), Some(seconds(9.0))), []);
    let seen = calm("n1").with(Some("n1"), 4);
    assert_eq!(decide(&seen, &acting(4), seconds(9.0), None), []);
}

#[test]
fn a_holder_goes_on_once_for_each_heartbeat() {
    let (seen, mut memory) = (calm("n1").with(Some("n1"), 4), Memory::default());
    memory.claimed(&edge(), 4, seconds(1.0), seconds(4.0));
    let hold = Act::Hold {
        place: edge(),
        epoch: 4,
        until: seconds(5.0),
    };
    assert_eq!(after(&seen, &mut memory, 2.0), [hold]);
    memory.held(&edge(), 4, seconds(5.0));
    assert_eq!(after(&seen, &mut memory, 2.0), []);
}

#[test]
fn a_tenure_that_ran_out_is_claimed_anew() {
    let (seen, mut memory) = (calm("n1").with(Some("n1"), 4), Memory::default());
    memory.claimed(&edge(), 4, seconds(1.0), seconds(4.0));
    let acts = after(&seen, &mut memory, 4.0);
    assert!(
        matches!(
            &acts[..],
            [Act::Claim {
                why: Grounds::Again,
                ..
            }]
        ),
        "{acts:?}"
    );
    // As is what an earlier agent of this node held.
    let acts = after(&seen, &mut Memory::default(), 4.0);
    assert!(
        matches!(
            &acts[..],
            [Act::Claim {
                why: Grounds::Again,
                ..
            }]
        ),
        "{acts:?}"
    );
    let acts = after(&seen, &mut acting(3), 4.0);
    assert!(
        matches!(
            &acts[..],
            [Act::Claim {
                why: Grounds::Again,
                ..
            }]
        ),
        "{acts:?}"
    );
}

#[test]
fn a_task_ends_when_the_seat_is_another_ones() {
    for seen in [calm("n1").with(Some("n2"), 5), calm("n1").with(None, 4)] {
        assert_eq!(after(&seen, &mut acting(4), 2.0), [Act::Stop { place: edge() }]);
    }
    let unwanted = calm("n1").with(Some("n2"), 5).set(ADDRESSES, "");
    assert_eq!(after(&unwanted, &mut acting(4), 2.0), [Act::Stop { place: edge() }]);
}

fn cause(seen: &Seen, memory: &mut Memory, now: f64) -> Option<Cause> {
    match &after(seen, memory, now)[..] {
        [Act::GiveUp { why, .. }] => Some(why.clone()),
        _ => None,
    }
}

#[test]
fn a_seat_that_nobody_wants_any_more_is_let_go() {
    let seen = calm("n1").with(Some("n1"), 4).set(ADDRESSES, B);
    assert_eq!(cause(&seen, &mut acting(4), 2.0), Some(Cause::Unwanted));
    let mut seen = calm("n1").with(Some("n1"), 4);
    seen.snapshot.nodes.remove(0);
    assert_eq!(cause(&seen, &mut acting(4), 2.0), Some(Cause::Left));
}

#[test]
fn a_draining_holder_goes_when_another_can_do_it() {
    let mut seen = calm("n1").with(Some("n1"), 4);
    seen.node("n1").standing = Standing::Draining;
    assert_eq!(cause(&seen, &mut acting(4), 2.0), Some(Cause::Drain));
    let seen = seen.dead("n2").dead("n3");
    assert_eq!(cause(&seen, &mut acting(4), 2.0), None);
    // It even takes it again, with nobody else there.
    let acts = after(&seen, &mut Memory::default(), 2.0);
    assert!(acts.iter().any(|act| matches!(
        act,
        Act::Claim {
            why: Grounds::Again,
            ..
        }
    )));
}

#[test]
fn an_unfit_holder_goes_after_a_while_when_another_can_do_it() {
    let mut seen = calm("n1").with(Some("n1"), 4);
    seen.node("n1").fit = Fit::NONE;
    let mut memory = acting(4);
    assert_eq!(cause(&seen, &mut memory, 2.0), None);
    assert_eq!(cause(&seen, &mut memory, 3.9), None);
    assert_eq!(cause(&seen, &mut memory, 4.0), Some(Cause::Unfit));
    let seen = seen.dead("n2").dead("n3");
    assert_eq!(cause(&seen, &mut memory, 9.0), None);
}

#[test]
fn a_transfer_is_obeyed_if_its_node_can_take_the_seat() {
    let mut seen = calm("n1").with(Some("n1"), 4).set(TRANSFERS, &format!("edge/{A}=n2"));
    assert_eq!(cause(&seen, &mut acting(4), 2.0), Some(Cause::Transfer("n2".into())));
    seen.node("n2").fit = Fit::CRON;
    assert_eq!(cause(&seen, &mut acting(4), 2.0), None);
    // The others leave it to the node that shall have it.
    for (own, is_first) in [("n1", false), ("n2", true), ("n3", false)] {
        let seen = calm(own).with(None, 4).set(TRANSFERS, &format!("edge/{A}=n2"));
        let mut memory = Memory::default();
        assert_eq!(after(&seen, &mut memory, 2.0).is_empty(), !is_first);
        assert_eq!(after(&seen, &mut memory, 4.9).is_empty(), !is_first);
        assert!(!after(&seen, &mut memory, 6.0).is_empty());
    }
}

#[test]
fn a_pinned_node_asks_for_its_seat_when_all_has_been_calm() {
    let seen = calm("n2").with(Some("n1"), 4).set(PINS, "edge=n2,cron=n1");
    let mut memory = Memory::default();
    assert_eq!(after(&seen, &mut memory, 1.0), []);
    assert_eq!(after(&seen, &mut memory, 10.0), []);
    assert_eq!(after(&seen, &mut memory, 11.0), [Act::Ask { place: edge() }]);
    let asked = seen.clone().set(TRANSFERS, &format!("edge/{A}=n2"));
    assert_eq!(after(&asked, &mut memory, 12.0), []);
    // A pin does not keep others out while its node is dead.
    let dead = calm("n3").with(None, 4).set(PINS, "edge=n2").dead("n2");
    assert_ne!(dead.first(), "n2");
    // A flap of its fitness begins the wait anew.
    let mut unfit = seen.clone();
    unfit.node("n2").fit = Fit::NONE;
    assert_eq!(after(&unfit, &mut memory, 13.0), []);
    assert_eq!(after(&seen, &mut memory, 14.0), []);
}

#[test]
fn what_was_refused_is_left_to_others_and_tried_later() {
    let (seen, mut memory) = (calm("n1").with(Some("n1"), 4), acting(4));
    memory.refused(&edge(), seconds(2.0));
    assert_eq!(cause(&seen, &mut memory, 2.0), Some(Cause::Cooling));
    let free = calm("n1").with(None, 4).dead("n2").dead("n3");
    assert!(
        !after(&free, &mut memory, 2.5)
            .iter()
            .any(|act| matches!(act, Act::Claim { place, .. } if *place == edge()))
    );
    assert!(
        after(&free, &mut memory, 3.0)
            .iter()
            .any(|act| matches!(act, Act::Claim { place, .. } if *place == edge()))
    );
}

#[test]
fn after_losses_a_seat_is_taken_early_only_when_nobody_else_does() {
    let (seen, mut memory) = (calm("n1").with(None, 4), Memory::default());
    for _ in 0..5 {
        memory.claimed(&edge(), 1, seconds(1.0), seconds(2.0));
        memory.lost(&edge(), seconds(2.0));
    }
    assert_eq!(after(&seen, &mut memory, 3.0), []);
    assert_eq!(after(&seen, &mut memory, 6.9), []);
    assert!(!after(&seen, &mut memory, 7.0).is_empty());
}

#[test]
fn database_and_cache_stay_where_they_are() {
    let mut seen = calm("n1").with(Some("n1"), 4).dead("n4");
    seen.node("n1").fit = Fit::EDGE.with(Fit::DB).with(Fit::CACHE);
    seen.snapshot.seats.retain(|seat| seat.role != Role::Cron);
    let mut memory = acting(4);
    memory.observe(&seen, seconds(1.0));
    assert_eq!(decide(&seen, &memory, seconds(60.0), None), []);
    seen.snapshot.seats.retain(|seat| seat.role != Role::Db);
    let acts = after(&seen, &mut memory, 1.0);
    assert!(
        matches!(&acts[..], [Act::Claim { place, why: Grounds::Free, .. }] if place.role == Role::Db),
        "{acts:?}"
    );
}

#[test]
fn a_database_with_copies_goes_to_another_node_as_soon_as_it_fails() {
    let place = Place::new(Role::Db, "");
    let mut seen = calm("n4").set(GALERA, "{}");
    seen.snapshot.seats.retain(|seat| seat.role == Role::Db);
    for node in ["n1", "n4"] {
        let node = seen.node(node);
        node.fit = node.fit.with(Fit::DB);
    }
    let mut memory = Memory::default();
    memory.claimed(&place, 1, seconds(0.0), seconds(1000.0));
    let of_it = |acts: Vec<Act>| {
        let it = |act: &Act| match act {
            Act::Claim { place, .. } | Act::GiveUp { place, .. } | Act::Hold { place, .. } => place.role == Role::Db,
            _ => false,
        };
        acts.into_iter().filter(it).collect::<Vec<_>>()
    };
    assert_eq!(
        of_it(after(&seen, &mut memory, 1.0)),
        [],
        "it holds it already, and longer"
    );
    seen.node("n4").fit = Fit::CRON;
    of_it(after(&seen, &mut memory, 2.0));
    let acts = of_it(after(&seen, &mut memory, 2.2));
    assert!(matches!(&acts[..], [Act::GiveUp { why: Cause::Unfit, .. }]), "{acts:?}");
    // With no other that is synced it keeps the seat, and with it everybody's place to wait at.
    seen.node("n1").fit = Fit::EDGE;
    assert_eq!(of_it(after(&seen, &mut memory, 9.0)), []);
}

/// n4 writes for as long as anybody looks; n1 and n2 have the data, too.
fn written() -> (Seen, Memory, Place) {
    let place = Place::new(Role::Db, "");
    let mut seen = calm("n4").set(GALERA, "{}");
    seen.snapshot.seats.retain(|seat| seat.role == Role::Db);
    for node in ["n1", "n2", "n4"] {
        seen.node(node).fit = Fit::DB;
    }
    let mut memory = Memory::default();
    memory.claimed(&place, 1, seconds(0.0), seconds(1000.0));
    (seen, memory, place)
}

/// Why it gives the database up, if it does.
fn left(seen: &Seen, memory: &mut Memory, now: f64) -> Option<Cause> {
    let acts = after(seen, memory, now).into_iter();
    let mut left = acts.filter_map(|act| match act {
        Act::GiveUp { place, why, .. } if place.role == Role::Db => Some(why),
        _ => None,
    });
    left.next()
}

#[test]
fn a_writer_whose_disk_is_full_leaves_the_seat_to_one_that_has_room() {
    let (mut seen, mut memory, _) = written();
    assert_eq!(left(&seen, &mut memory, 1.0), None);
    seen.node("n4").fit = Fit::DB.with(Fit::FULL);
    assert_eq!(left(&seen, &mut memory, 2.0), None, "for a moment it may be");
    assert_eq!(left(&seen, &mut memory, 3.9), None);
    assert_eq!(left(&seen, &mut memory, 4.0), Some(Cause::Full));
    // Where all are full, none is better.
    for node in ["n1", "n2"] {
        seen.node(node).fit = Fit::DB.with(Fit::FULL);
    }
    assert_eq!(left(&seen, &mut memory, 6.0), None);
    seen.node("n2").fit = Fit::DB;
    assert_eq!(left(&seen, &mut memory, 7.0), Some(Cause::Full));
    seen.node("n2").is_live = false;
    assert_eq!(left(&seen, &mut memory, 9.0), None, "that one is not there");
    // One that has the room, and not the data, is none either.
    seen.node("n3").fit = Fit::CRON;
    assert_eq!(left(&seen, &mut memory, 11.0), None);
}

#[test]
fn a_disk_that_is_full_again_and_again_for_a_moment_moves_nothing() {
    let (mut seen, mut memory, _) = written();
    for step in 0..40 {
        seen.node("n4").fit = if step % 2 == 0 {
            Fit::DB.with(Fit::FULL)
        } else {
            Fit::DB
        };
        assert_eq!(left(&seen, &mut memory, f64::from(step)), None);
    }
}

#[test]
fn one_whose_disk_is_full_comes_last_and_is_not_sent_there() {
    let (mut seen, mut memory, place) = written();
    seen.snapshot.seats[0].holder = None;
    let first = |seen: &Seen| {
        let best = prefer::candidates(&seen.snapshot, &place, &Load::new());
        best.iter().map(|node| node.name.clone()).collect::<Vec<_>>()
    };
    let best = first(&seen)[0].clone();
    seen.node(&best).fit = Fit::DB.with(Fit::FULL);
    assert_eq!(first(&seen).last(), Some(&best));
    // Nor does the operator's word bring it there, or its pin have it ask.
    let mut sent = seen.clone().set(TRANSFERS, &format!("db={best}"));
    assert_ne!(first(&sent)[0], best);
    sent.snapshot.seats[0].holder = Some("n4".into());
    if best != "n4" {
        assert_eq!(left(&sent, &mut memory, 1.0), None);
    }
    sent.node(&best).fit = Fit::DB;
    assert_eq!(first(&sent)[0], best);
}

#[test]
fn a_full_disk_says_nothing_of_other_roles() {
    let mut seen = calm("n1").with(Some("n1"), 4);
    seen.node("n1").fit = Fit::EDGE.with(Fit::FULL);
    let mut memory = acting(4);
    after(&seen, &mut memory, 1.0);
    let acts = after(&seen, &mut memory, 9.0);
    assert!(!acts.iter().any(|act| matches!(act, Act::GiveUp { .. })), "{acts:?}");
}

#[test]
fn a_writer_that_its_group_has_let_go_is_one_no_more() {
    let mut seen = calm("n1").set(GALERA, "{}");
    seen.snapshot.seats.retain(|seat| seat.role != Role::Cache);
    let own = seen.node("n1");
    own.fit = own.fit.with(Fit::DB);
    let claims = |seen: &Seen, asked: f64, group: &[&str]| {
        let mut seen = seen.clone();
        (seen.group.asked, seen.group.nodes) = (seconds(asked), group.iter().map(ToString::to_string).collect());
        let mut memory = Memory::default();
        // The record is known since then.
        after(&seen, &mut memory, 1.0);
        let acts = after(&seen, &mut memory, 9.0).into_iter();
        acts.filter_map(|act| match act {
            Act::Claim { place, why, .. } if place.role != Role::Edge => Some((place.role, why)),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    let taken = [(Role::Db, Grounds::Silent)];
    assert_eq!(claims(&seen, 1.3, &["n1", "n2"]), taken, "and no other role of it");
    assert_eq!(claims(&seen, 1.2, &["n1", "n2"]), [], "it may have come after that");
    assert_eq!(claims(&seen, 1.3, &["n1", "n4"]), [], "it is in the group");
    assert_eq!(claims(&seen, 1.3, &["n2", "n3"]), [], "this node is in none");
}

#[test]
fn the_storages_leader_comes_last() {
    for leader in ["n1", "n2", "n3"] {
        let mut seen = calm("n1").with(None, 4);
        let node = seen.node(leader);
        node.fit = node.fit.with(Fit::LEADER);
        assert_ne!(seen.first(), leader);
    }
    let mut alone = calm("n1").with(None, 4).dead("n2").dead("n3");
    alone.node("n1").fit = Fit::EDGE.with(Fit::LEADER);
    assert_eq!(alone.first(), "n1");
}

#[test]
fn seats_spread_over_the_nodes() {
    let seen = calm("n1");
    let mut counts = Load::new();
    for number in 0..300_u32 {
        let place = Place::new(Role::Edge, format!("10.0.1.{number}/24"));
        let best = prefer::candidates(&seen.snapshot, &place, &Load::new())[0].name.clone();
        *counts.entry(best).or_default() += 1;
    }
    assert!(counts.values().all(|count| (60..140).contains(count)), "{counts:?}");
}

#[test]
fn backups_are_made_beside_the_writer_and_leave_a_node_that_becomes_it() {
    let place = Place::new(Role::Backup, "");
    let mut seen = calm("n1").set(GALERA, "{}");
    seen.snapshot.seats.retain(|seat| seat.role == Role::Db);
    for node in ["n1", "n4"] {
        let node = seen.node(node);
        node.fit = node.fit.with(Fit::DB).with(Fit::BACKUP);
    }
    let first = |seen: &Seen| prefer::candidates(&seen.snapshot, &place, &Load::new())[0].name.clone();
    assert_eq!(first(&seen), "n1", "n4 is written to");
    seen.snapshot.seats[0].holder = Some("n1".into());
    assert_eq!(first(&seen), "n4");
    seen.snapshot.seats.push(Seat {
        role: Role::Backup,
        seat: String::new(),
        holder: Some("n1".into()),
        epoch: 1,
    });
    let cause = |seen: &Seen| {
        let mut memory = Memory::default();
        memory.claimed(&place, 1, seconds(0.0), seconds(1000.0));
        let mut acts = after(seen, &mut memory, 1.0).into_iter();
        acts.find_map(|act| match act {
            Act::GiveUp { place, why, .. } if place.role == Role::Backup => Some(why),
            _ => None,
        })
    };
    assert_eq!(cause(&seen), Some(Cause::Writes));
    let pinned = seen.clone().set(PINS, "backup=n1");
    assert_eq!(cause(&pinned), None, "the operator wants it so");
    seen.node("n4").fit = Fit::EDGE;
    assert_eq!(cause(&seen), None, "there is no other");
}
