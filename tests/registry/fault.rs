//! Files that are damaged, newer, lost by hand or another registry's; and the copy on the local disk.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bitrix_node::registry::{
    Change, Error, Files, Hearts, LastSeen, PathFiles, Publish, Registry, VERSIONS_KEPT, resealed_with_schema,
};

use super::contract::setting;
use super::{publish, through};
use crate::support::storage::Door;

async fn folder_with(path: &Path, versions: u64) -> Arc<dyn Files> {
    let files: Arc<dyn Files> = Arc::new(PathFiles::open(path).await.unwrap());
    let registry = publish(files.clone(), "n1");
    for number in 0..versions {
        registry
            .commit(Change::put(setting("a", &number.to_string())))
            .await
            .unwrap();
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_version_is_refused_and_not_built_upon() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder_with(folder.path(), 3).await;
    let path = folder.path().join("v3");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[9000] ^= 4;
    for damage in [&flipped[..], &whole[..whole.len() / 2], b""] {
        std::fs::write(&path, damage).unwrap();
        let registry = publish(files.clone(), "n2");
        let error = registry.read().await.unwrap_err();
        assert!(
            matches!(&error, Error::Damaged(why) if why.contains("v3") && why.contains("registry export")),
            "{error}"
        );
        assert!(matches!(
            registry.commit(Change::default()).await,
            Err(Error::Damaged(_))
        ));
        assert!(!folder.path().join("v4").exists());
        assert!(registry.revision().await.is_err());
    }
    // A whole version under the wrong name.
    std::fs::copy(folder.path().join("v2"), &path).unwrap();
    assert!(matches!(
        publish(files.clone(), "n2").read().await,
        Err(Error::Damaged(_))
    ));
    std::fs::write(&path, whole).unwrap();
    assert_eq!(publish(files, "n2").read().await.unwrap().revision, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_and_not_built_upon() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder_with(folder.path(), 2).await;
    let path = folder.path().join("v2");
    let newer = resealed_with_schema(&std::fs::read(&path).unwrap(), 99).unwrap();
    std::fs::write(&path, newer).unwrap();
    let registry = publish(files, "n2");
    let error = registry.commit(Change::default()).await.unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("update bitrix-node"));
    assert!(!folder.path().join("v3").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_by_hand_is_missed_only_where_it_matters() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder_with(folder.path(), VERSIONS_KEPT + 10).await;
    let registry = publish(files.clone(), "n2");
    let newest = registry.read().await.unwrap();
    // All but the newest version, and the name for people: the floor is in the image, nothing is lost.
    for name in files.list().await.unwrap() {
        if name != format!("v{}", newest.revision) && name != "hb" {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
    let fresh = publish(files.clone(), "n3");
    let next = fresh.commit(Change::put(setting("b", ""))).await.unwrap();
    assert_eq!((next.revision, next.floor), (newest.revision + 1, newest.floor + 1));
    assert!(folder.path().join("current.db").exists());

    // The newest ones, or all: who has seen more refuses what is left.
    for survivor in [Some(newest.revision), None] {
        for name in files.list().await.unwrap() {
            if name != "hb" && survivor.is_none_or(|revision| name != format!("v{revision}")) {
                std::fs::remove_file(folder.path().join(name)).unwrap();
            }
        }
        assert!(matches!(fresh.read().await, Err(Error::Damaged(_))));
        assert!(matches!(fresh.commit(Change::default()).await, Err(Error::Damaged(_))));
        let restarted = Publish::new(files.clone(), "n3", 8, Some(&next));
        assert!(matches!(
            restarted.commit(Change::default()).await,
            Err(Error::Damaged(_))
        ));
    }
    assert!(!folder.path().join("v1").exists(), "nobody began anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_registry_in_the_place_is_refused() {
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seen = publish(folder_with(mine.path(), 2).await, "n1").read().await.unwrap();
    let files = folder_with(other.path(), 5).await;
    let registry = Publish::new(files, "n1", 8, Some(&seen));
    assert!(matches!(registry.read().await, Err(Error::Damaged(why)) if why.contains("another registry")));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_bounded_and_current_is_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder_with(folder.path(), VERSIONS_KEPT + 30).await;
    // A sleeper's file that is still wanted, and one that is not.
    for name in ["t79.n9.0000000000000001.0", "t3.n9.0000000000000001.1"] {
        files.create(name, "x".into()).await.unwrap();
    }
    let registry = publish(files.clone(), "n2");
    let newest = registry.commit(Change::put(setting("b", ""))).await.unwrap();
    let names = files.list().await.unwrap();
    assert_eq!(
        names.len() as u64,
        VERSIONS_KEPT + 3,
        "versions, current.db, hb, one file of a sleeper: {names:?}"
    );
    assert!(names.contains(&"t79.n9.0000000000000001.0".to_string()));
    let version = format!("v{}", newest.revision);
    assert_eq!(
        files.look("current.db").await.unwrap(),
        files.look(&version).await.unwrap()
    );
    let mode = std::fs::metadata(folder.path().join(version))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_seen_version_outlives_the_registry_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder_with(&folder.path().join("registry"), 2).await;
    let registry = publish(files, "n1");
    let (view, image) = registry.newest().await.unwrap();
    let last_seen = LastSeen::new(folder.path());
    assert!(last_seen.load().await.unwrap().is_none());
    last_seen.save(image).await.unwrap();
    let loaded = last_seen.load().await.unwrap().unwrap();
    assert!(loaded.is_last_seen && !view.is_last_seen);
    assert_eq!((loaded.revision, loaded.setting("a")), (2, Some("1")));
    let path = folder.path().join("last.db");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&path, "x").unwrap();
    assert!(matches!(last_seen.load().await, Err(Error::Damaged(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn hearts_beat_through_the_door_and_are_seen() {
    let door = Door::open();
    let (one, two) = (through(&door.socket(), "n1"), through(&door.socket(), "n2"));
    let mine = Hearts::new(one.clone(), "n1".into(), 1);
    assert!(!mine.may_hold(), "nothing was acknowledged yet");
    let judge = Hearts::new(two, "n2".into(), 2);
    let nodes = ["n1".to_string(), "n2".into(), "n3".into()];
    for _ in 0..3 {
        mine.beat(0).await.unwrap();
        judge.look(&nodes).await.unwrap();
    }
    assert!(mine.may_hold());
    assert!(judge.silent().is_empty());
    let names = one.list().await.unwrap();
    assert!(names.contains(&"hb".to_string()), "{names:?}");
    let content = one.read("hb/n1", 100).await.unwrap().unwrap();
    assert_eq!(&content[..], b"2 0000000000000001 00000000000000000003 00000000\n");
    // Removed by hand, it is there again with the next one.
    one.remove("hb/n1").await.unwrap();
    mine.beat(0).await.unwrap();
    assert!(one.look("hb/n1").await.unwrap().is_some());
    door.close().await;
}
