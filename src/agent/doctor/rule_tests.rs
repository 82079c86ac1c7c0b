//! Each rule finds what it is for, and nothing in a cluster that does well.

use super::*;
use crate::agent::overview::cluster_tests::{DAY, NOW, World};
use crate::agent::overview::{Answer, Certificate, Row};
use crate::agent::{Kind, Phase};
use crate::base::Health;
use crate::cert::{self, ByWhom, Entry, Failure, Source};
use crate::cluster::{Role, Seat, Standing};

/// A cluster without a finding.
fn world() -> World {
    let mut world = World::new();
    let address = ("edge.addresses".to_string(), "10.0.0.10/24".to_string());
    world.snapshot.settings.extend([address]);
    world
}

fn examined(world: &World, ports: &[Reach]) -> Vec<Finding> {
    let cluster = world.look();
    let facts = Facts {
        cluster: &cluster,
        ports,
    };
    examine(&facts)
}

/// The only finding.
#[track_caller]
fn only(world: &World, id: &str) -> Finding {
    let mut found = examined(world, &[]);
    let ids: Vec<&str> = found.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, [id], "{found:#?}");
    found.remove(0)
}

fn service(name: &str, health: Health, detail: &str) -> Row {
    Row {
        name: name.into(),
        kind: Kind::Module,
        phase: Phase::Ready,
        health,
        pid: Some(7),
        restarts: 0,
        seconds: 60,
        detail: detail.into(),
    }
}

#[test]
fn a_well_cluster_has_no_finding() {
    assert_eq!(examined(&world(), &[]), []);
}

#[test]
fn a_silent_node_is_told_with_its_silence_and_what_to_do() {
    let mut world = world();
    world.lose(3, 12);
    let found = only(&world, "node.silent");
    assert_eq!(found.severity, Severity::Fail);
    assert_eq!(
        found.evidence,
        "its heart has not been seen to beat for 12 s; its agent does not answer (no answer)"
    );
    assert!(
        found.remedy.ends_with("bitrix-node node remove n3 --force"),
        "{}",
        found.remedy
    );
}

#[test]
fn an_agent_that_does_not_answer_while_its_heart_beats_is_another_matter() {
    let mut world = world();
    world.others.get_mut("n2").unwrap().answer = Answer::Missing("cannot connect".into());
    let found = only(&world, "node.mute");
    assert_eq!(found.evidence, "its heart beats, but: cannot connect");
    assert!(found.remedy.contains("between n1 and 10.0.0.2"), "{}", found.remedy);
}

#[test]
fn drained_nodes_and_mixed_versions_are_reminded_of() {
    let mut world = world();
    world.snapshot.nodes[1].standing = Standing::Draining;
    assert!(only(&world, "node.draining").remedy.ends_with("node undrain n2"));
    world.snapshot.nodes[1].standing = Standing::Member;
    world.other("n3").version = "0.4.0".into();
    assert_eq!(only(&world, "node.version").evidence, "0.4.1 on n1 and n2, 0.4.0 on n3");
}

#[test]
fn clocks_apart_are_told_when_it_is_beyond_doubt() {
    let mut world = world();
    let set = |world: &mut World, millis| match &mut world.others.get_mut("n2").unwrap().answer {
        Answer::Came { skew, .. } => *skew = millis,
        Answer::Missing(_) => unreachable!(),
    };
    set(&mut world, (900, 450));
    assert_eq!(examined(&world, &[]), []);
    set(&mut world, (-900, 20));
    let found = only(&world, "node.clock");
    assert_eq!(found.severity, Severity::Warn);
    assert_eq!(found.evidence, "its clock is 0.9 s behind the one of n1");
    set(&mut world, (3_600_000, 20));
    let found = only(&world, "node.clock");
    assert_eq!(found.severity, Severity::Fail);
    assert_eq!(found.evidence, "its clock is 3600.0 s ahead of the one of n1");
}

#[test]
fn services_mounts_and_the_registry_are_told_with_their_own_words() {
    let mut world = world();
    world.own.services = vec![service("cache", Health::Failed, "exit status: 1")];
    let found = only(&world, "service");
    assert_eq!(
        (found.severity, found.cause.as_str()),
        (Severity::Fail, "cache on n1 is not well")
    );
    assert_eq!(found.evidence, "ready: exit status: 1");
    assert_eq!(found.remedy, "bitrix-node logs --module cache -n 50");

    world.own.services = vec![service(
        "mount",
        Health::Failed,
        "files on /srv hangs: no answer within 5s",
    )];
    let found = only(&world, "mount");
    assert_eq!(found.evidence, "files on /srv hangs: no answer within 5s");

    world.own.services = vec![service("agent", Health::Degraded, "the files do not answer")];
    assert_eq!(only(&world, "registry").evidence, "the files do not answer");
    world.snapshot.is_stale = true;
    assert_eq!(
        only(&world, "registry").evidence,
        "the files do not answer",
        "told once"
    );
    world.own.services.clear();
    assert_eq!(only(&world, "registry").cause, "the registry does not answer here");

    world.snapshot.is_stale = false;
    world.other("n2").services = vec![Row {
        restarts: 3,
        ..service("push", Health::Good, "")
    }];
    let found = only(&world, "service.restarts");
    assert_eq!(found.remedy, "on n2: bitrix-node logs --module push -n 50");
}

#[test]
fn what_a_machine_lacks_is_told() {
    let mut world = world();
    world.other("n3").facts.missing_extensions = vec!["mysqli".into(), "gd".into()];
    let found = only(&world, "php.extension");
    assert_eq!(found.evidence, "php-fpm -m does not list mysqli, gd");
    assert!(
        found.remedy.contains("apt-get install php-gd php-mysql)"),
        "{}",
        found.remedy
    );
    world.other("n3").facts.missing_extensions.clear();
    world.other("n3").facts.missing_packages = vec!["galera-4".into(), "socat".into()];
    assert_eq!(
        only(&world, "database.package").evidence,
        "not installed: galera-4, socat"
    );
    world.other("n3").facts.missing_packages.clear();
    world.other("n2").facts.is_database_full = true;
    assert!(only(&world, "database.full").cause.ends_with("of n2 is full"));
    world.other("n2").facts.is_database_full = false;
    world.own.facts.sysctl = vec!["net.ipv4.tcp_tw_reuse = \"1\"".into()];
    let found = only(&world, "sysctl");
    assert_eq!(
        (found.severity, found.remedy.starts_with("bitrix-node sysctl ")),
        (Severity::Warn, true)
    );
    world.own.facts.sysctl.clear();
    for (share, severity) in [(85, Severity::Warn), (95, Severity::Fail)] {
        world.own.facts.disk = Some(share);
        assert_eq!(only(&world, "disk").severity, severity);
    }
    world.own.facts.disk = Some(84);
    world.own.facts.memory = Some(95);
    assert_eq!(only(&world, "memory").evidence, "95 % are used");
}

#[test]
fn a_blocked_port_is_told_and_those_of_a_silent_node_are_not() {
    let mut world = world();
    let reach = |to: &str, error: Option<&str>| Reach {
        from: "n1".into(),
        to: to.into(),
        module: "storage".into(),
        address: format!("{to}:7401"),
        error: error.map(str::to_string),
    };
    let ports = [reach("n2", None), reach("n3", Some("no answer within 2s"))];
    let found = examined(&world, &ports);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (
            found[0].id.as_str(),
            found[0].cause.as_str(),
            found[0].evidence.as_str()
        ),
        (
            "port",
            "n1 does not reach the storage of n3",
            "n3:7401: no answer within 2s"
        )
    );
    world.lose(3, 12);
    let found = examined(&world, &ports);
    assert!(found.iter().all(|finding| finding.id != "port"), "{found:#?}");
}

#[test]
fn certificates_are_judged_by_what_is_left() {
    let mut world = world();
    let until = |from: u64, until: u64| {
        Some(Certificate {
            from,
            until,
            is_self_signed: false,
        })
    };
    world.own.facts.portal_certificate = until(0, NOW + 10 * DAY);
    assert_eq!(examined(&world, &[]), []);
    world.own.facts.portal_certificate = until(0, NOW + 9 * DAY);
    assert_eq!(only(&world, "certificate.portal").evidence, "it ends in 9 d");
    world.own.facts.portal_certificate = until(0, NOW - 2 * DAY);
    let found = only(&world, "certificate.portal");
    assert_eq!(
        (found.severity, found.evidence.as_str()),
        (Severity::Fail, "it ended 2 d ago")
    );
    world.own.facts.portal_certificate = None;
    world.own.facts.node_certificate = until(0, NOW + 7 * DAY);
    assert!(only(&world, "certificate.node").evidence.starts_with("it has 7 d left"));
    world.own.facts.node_certificate = until(NOW + DAY, NOW + 20 * DAY);
    assert!(only(&world, "certificate.node").remedy.contains("timedatectl"));
}

#[test]
fn a_storage_without_majority_names_who_is_missed() {
    let mut world = world();
    world.lose(2, 9);
    world.lose(3, 9);
    world.own.facts.storage.as_mut().unwrap().leader = None;
    let found = examined(&world, &[]);
    let quorum = found.iter().find(|finding| finding.id == "storage.quorum").unwrap();
    assert_eq!(
        quorum.evidence,
        "1 of 3 voters are here, and nobody leads; silent: n2, n3"
    );
    assert!(
        quorum.remedy.ends_with("storage recover --i-have-lost n2,n3"),
        "{}",
        quorum.remedy
    );
}

#[test]
fn copies_votes_and_members_of_the_storage_are_counted() {
    let mut world = world();
    let leader = world.other("n2").facts.storage.as_mut().unwrap();
    (leader.members[2].in_sync, leader.members[2].lag) = (false, Some(812));
    assert_eq!(only(&world, "storage.copy").evidence, "812 entries of the log");

    let mut world = self::world();
    world.other("n2").facts.storage.as_mut().unwrap().members[2].votes = false;
    assert!(only(&world, "storage.votes").remedy.contains("--witness"));

    let mut world = self::world();
    world.other("n2").facts.storage.as_mut().unwrap().members.pop();
    let found = examined(&world, &[]);
    let ids: Vec<&str> = found.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["storage.votes", "storage.member"]);
    assert_eq!(found[1].remedy, "bitrix-node storage add n3 10.0.0.3");

    let mut world = self::world();
    let own = world.own.facts.storage.as_mut().unwrap();
    (own.is_full, own.free_bytes) = (true, 9 << 20);
    assert_eq!(only(&world, "storage.full").evidence, "9 MiB are free on its disk");
}

#[test]
fn seats_without_a_holder_are_told() {
    let mut world = world();
    world.snapshot.seats[0].holder = None;
    assert_eq!(only(&world, "edge").evidence, "its seat is free, and no node takes it");
    world.snapshot.seats[0].holder = Some("n1".into());
    world.snapshot.settings.remove("edge.addresses");
    assert_eq!(only(&world, "edge").severity, Severity::Warn);

    let mut world = self::world();
    world.snapshot.seats[1].holder = None;
    assert_eq!(only(&world, "role").cause, "the portal's jobs do not run");

    let mut world = self::world();
    world.snapshot.seats[2].holder = None;
    assert_eq!(only(&world, "database").cause, "no node has the database");
    world.snapshot.seats[2].holder = Some("n2".into());
    world.lose(2, 9);
    let found = examined(&world, &[]);
    assert!(
        found
            .iter()
            .any(|finding| finding.id == "database" && finding.cause.contains("on n2")),
        "{found:#?}"
    );
}

#[test]
fn rules_have_names_of_their_own() {
    let mut names: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), COUNT);
}

/// With a certificate from the first of August to the tenth of October 2024; `NOW` is the fourth of that month.
fn with_certificate(world: &mut World, source: Source, edit: impl FnOnce(&mut Entry)) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["a.example".to_string()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2024, 8, 1);
    parameters.not_after = rcgen::date_time_ymd(2024, 10, 10);
    let mut entry = Entry::new(vec!["a.example".into()], source);
    entry.certificate = Some(cert::Certificate {
        chain: parameters.self_signed(&key).unwrap().pem(),
        key: cert::Sealed(String::new()),
    });
    edit(&mut entry);
    world.snapshot.settings.insert(entry.key(), entry.to_string());
}

#[test]
fn an_imported_certificate_is_to_be_replaced_in_time_and_one_that_does_not_come_is_told() {
    let mut imported = world();
    with_certificate(&mut imported, Source::Import, |_| {});
    let found = only(&imported, "certificate.cluster");
    assert!(
        found.evidence.contains("6 d") && found.remedy.contains("cert import"),
        "{found:?}"
    );

    let source = Source::Acme {
        directory: "d".into(),
        by: ByWhom::Operator,
    };
    let mut failing = world();
    let failure = |count| Failure {
        why: "no such name".into(),
        count,
        at: NOW,
        again: NOW + 60,
    };
    with_certificate(&mut failing, source.clone(), |entry| entry.failure = Some(failure(2)));
    failing.snapshot.seats.push(Seat {
        role: Role::Acme,
        seat: String::new(),
        holder: Some("n1".into()),
        epoch: 1,
    });
    // Six of seventy days are less than a tenth; two failures alone are nothing yet.
    assert!(only(&failing, "certificate.cluster").cause.contains("at its end"));
    with_certificate(&mut failing, source, |entry| {
        entry.failure = Some(failure(3));
        entry.certificate = None;
    });
    let found = only(&failing, "certificate.cluster");
    assert!(
        found.evidence.contains("no such name") && found.remedy.contains("cert renew"),
        "{found:?}"
    );
}
