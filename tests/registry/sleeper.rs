//! Authors that fall asleep in the middle of a commit, while others go on so far that what they wanted to make is collected.

use std::sync::Arc;

use bitrix_node::registry::{Change, Files, Link, PathFiles, Publish, Registry, VERSIONS_KEPT, View};

use super::contract::setting;
use super::{OpenFiles, publish, through};
use crate::support::gated::{Gated, Step};
use crate::support::storage::Door;

/// The sleeper's version is collected, and more.
const OTHERS: u64 = VERSIONS_KEPT + 5;

pub struct Night {
    sleeper: Arc<Gated>,
    /// What the sleeper's commit returned.
    returned: Arc<View>,
    /// The newest version in the end.
    end: Arc<View>,
}

/// 1. One version. 2. The sleeper wants to make version 2 and falls asleep. 3. Another makes many. 4. The sleeper wakes.
pub async fn night(open: OpenFiles<'_>, step: Step, keeps_temporaries: bool) -> Night {
    let other = publish(Gated::new(open("n1"), Step::Never, keeps_temporaries), "n1");
    other.commit(Change::put(setting("first", ""))).await.unwrap();
    let sleeper = Gated::new(open("n2"), step, false);
    let registry = publish(sleeper.clone(), "n2");
    let commit = async { registry.commit(Change::put(setting("sleeper", ""))).await.unwrap() };
    let meanwhile = async {
        sleeper.fell_asleep().await;
        for number in 0..OTHERS {
            other
                .commit(Change::put(setting("other", &number.to_string())))
                .await
                .unwrap();
        }
        assert!(open("n3").look("v2").await.unwrap().is_none(), "version 2 is collected");
        sleeper.wake();
    };
    let (returned, ()) = tokio::join!(commit, meanwhile);
    let end = other.read().await.unwrap();
    let rows = end
        .history
        .iter()
        .filter(|commit| commit.summary == "setting sleeper")
        .count();
    assert_eq!(rows, 1, "once, not twice");
    assert_eq!(end.revision, OTHERS + 2, "one version for each commit");
    after_the_night(open, &end).await;
    Night { sleeper, returned, end }
}

/// Nothing that the night left leads anybody astray, and it is cleared away.
async fn after_the_night(open: OpenFiles<'_>, end: &View) {
    let fresh: Publish = publish(open("n4"), "n4");
    assert_eq!(*fresh.read().await.unwrap(), *end);
    assert!(fresh.version(2).await.unwrap().is_none());
    let mut floor = end.floor;
    for number in 0..3 {
        floor = fresh
            .commit(Change::put(setting("later", &number.to_string())))
            .await
            .unwrap()
            .floor;
    }
    let names = open("n4").list().await.unwrap();
    let old: Vec<_> = names
        .iter()
        .filter(|name| {
            name.strip_prefix('v')
                .is_some_and(|n| n.parse::<u64>().unwrap() < floor)
        })
        .collect();
    assert!(old.is_empty(), "{old:?}");
    let versions = fresh.versions().await.unwrap();
    assert_eq!(versions.len() as u64, VERSIONS_KEPT);
}

/// Whether the sleeper's LINK shall find its file, and what it comes to.
pub const NIGHTS: [(Step, bool, Link); 3] = [
    // The file to be linked was collected with the version.
    (Step::BeforeLink, false, Link::Gone),
    // It is still there: the LINK succeeds, far below the newest version. The trap is real.
    (Step::BeforeLink, true, Link::Made),
    // It had published before it fell asleep, and must not do so again.
    (Step::AfterLink, false, Link::Made),
];

pub fn check(slept: &Night, step: Step, link: Link) {
    assert_eq!(slept.sleeper.links.lock().unwrap().first(), Some(&link));
    match step {
        Step::AfterLink => assert_eq!(slept.returned.revision, 2),
        _ => assert_eq!(slept.returned, slept.end, "it was made anew"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_in_a_folder_neither_wins_wrongly_nor_commits_twice() {
    for (step, keeps_temporaries, link) in NIGHTS {
        let folder = tempfile::tempdir().unwrap();
        let files: Arc<dyn Files> = Arc::new(PathFiles::open(folder.path()).await.unwrap());
        check(&night(&|_| files.clone(), step, keeps_temporaries).await, step, link);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_at_the_storages_door_neither_wins_wrongly_nor_commits_twice() {
    for (step, keeps_temporaries, link) in NIGHTS {
        let door = Door::open();
        let socket = door.socket();
        let open = |node: &str| through(&socket, node);
        check(&night(&open, step, keeps_temporaries).await, step, link);
        door.close().await;
    }
}
