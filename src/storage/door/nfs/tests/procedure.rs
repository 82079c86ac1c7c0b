//! Every procedure, driven by an independent client.

use std::sync::atomic::Ordering;

use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::{Opaque, Pack};

use super::*;

pub fn at<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 {
        dir: dir.clone(),
        name: filename3::from(name.as_bytes()),
    }
}

fn mode(mode: u32) -> sattr3 {
    sattr3 {
        mode: Nfs3Option::Some(mode),
        ..sattr3::default()
    }
}

pub async fn create(client: &mut Client, dir: &nfs_fh3, name: &str) -> nfs_fh3 {
    let args = CREATE3args {
        where_: at(dir, name),
        how: createhow3::GUARDED(mode(0o644)),
    };
    client.create(&args).await.unwrap().unwrap().obj.unwrap()
}

pub async fn remove(client: &mut Client, dir: &nfs_fh3, name: &str) {
    let object = at(dir, name);
    client.remove(&REMOVE3args { object }).await.unwrap().unwrap();
}

async fn attributes(client: &mut Client, object: &nfs_fh3) -> fattr3 {
    let object = object.clone();
    client
        .getattr(&GETATTR3args { object })
        .await
        .unwrap()
        .unwrap()
        .obj_attributes
}

async fn write(client: &mut Client, file: &nfs_fh3, offset: u64, data: &[u8], stable: stable_how) -> WRITE3resok {
    let args = WRITE3args {
        file: file.clone(),
        offset,
        count: data.len() as u32,
        stable,
        data: Opaque::borrowed(data),
    };
    client.write(&args).await.unwrap().unwrap()
}

#[track_caller]
fn fails<T: std::fmt::Debug, E: std::fmt::Debug>(result: Nfs3Result<T, E>, expected: nfsstat3) {
    match result {
        Nfs3Result::Err((found, _)) => assert_eq!(found, expected),
        Nfs3Result::Ok(value) => panic!("{expected} expected: {value:?}"),
    }
}

#[tokio::test]
async fn files_are_written_read_and_committed() {
    let world = World::start().await;
    let (mut client, root) = (world.client(33).await, world.root().await);
    client.null().await.unwrap();
    let file = create(&mut client, &root, "file").await;
    let made = attributes(&mut client, &file).await;
    assert_eq!(
        (made.type_, made.mode, made.uid, made.gid),
        (ftype3::NF3REG, 0o644, 33, 33)
    );

    let data: Vec<u8> = (0..1 << 20).map(|index: u32| index as u8).collect();
    let written = write(&mut client, &file, 3, &data, stable_how::UNSTABLE).await;
    assert_eq!((written.count, written.committed), (1 << 20, stable_how::FILE_SYNC));
    assert_eq!(written.file_wcc.before.unwrap().size, 0);
    assert_eq!(written.file_wcc.after.unwrap().size, (1 << 20) + 3);

    for (offset, count, expected, is_end) in [
        (3, u32::MAX, &data[..], true),
        (3, 5, &data[..5], false),
        (4 << 20, 9, &[], true),
        (0, 3, &[0; 3], false),
    ] {
        let file = file.clone();
        let read = client.read(&READ3args { file, offset, count }).await.unwrap().unwrap();
        assert_eq!((read.count as usize, read.eof), (expected.len(), is_end));
        assert!(read.data.as_ref() == expected, "offset {offset}");
    }
    let args = COMMIT3args {
        file: file.clone(),
        offset: 0,
        count: 0,
    };
    assert_eq!(client.commit(&args).await.unwrap().unwrap().verf, written.verf);
}

#[tokio::test]
async fn a_verifier_that_changes_shows_in_commit_and_stable_writes_are_committed() {
    let world = World::start().await;
    world.memory.is_durable.store(false, Ordering::Relaxed);
    let (mut client, root) = (world.client(0).await, world.root().await);
    let file = create(&mut client, &root, "file").await;
    let unstable = write(&mut client, &file, 0, b"a", stable_how::UNSTABLE).await;
    assert_eq!(unstable.committed, stable_how::UNSTABLE);
    assert_eq!(world.memory.commits.load(Ordering::Relaxed), 0);
    let stable = write(&mut client, &file, 0, b"a", stable_how::FILE_SYNC).await;
    assert_eq!(stable.committed, stable_how::FILE_SYNC);
    assert_eq!(world.memory.commits.load(Ordering::Relaxed), 1);
    world.memory.verifier.store(2, Ordering::Relaxed);
    let args = COMMIT3args {
        file,
        offset: 0,
        count: 0,
    };
    assert_ne!(client.commit(&args).await.unwrap().unwrap().verf, unstable.verf);
}

#[tokio::test]
async fn writes_that_cannot_be_are_refused() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let file = create(&mut client, &root, "file").await;
    for (offset, count, error) in [
        (0, 2, nfsstat3::NFS3ERR_INVAL),
        (i64::MAX as u64, 1, nfsstat3::NFS3ERR_FBIG),
        (u64::MAX, 1, nfsstat3::NFS3ERR_FBIG),
    ] {
        let args = WRITE3args {
            file: file.clone(),
            offset,
            count,
            stable: stable_how::FILE_SYNC,
            data: Opaque::borrowed(b"x"),
        };
        fails(client.write(&args).await.unwrap(), error);
    }
    let args = SETATTR3args {
        object: file.clone(),
        new_attributes: sattr3 {
            size: Nfs3Option::Some(1 << 63),
            ..sattr3::default()
        },
        guard: Nfs3Option::None,
    };
    fails(client.setattr(&args).await.unwrap(), nfsstat3::NFS3ERR_FBIG);
    let data = vec![7; (1 << 20) + 100];
    assert_eq!(
        write(&mut client, &file, 0, &data, stable_how::FILE_SYNC).await.count,
        1 << 20
    );
}

#[tokio::test]
async fn setattr_keeps_to_its_guard() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let object = create(&mut client, &root, "file").await;
    let before = attributes(&mut client, &object).await;
    let mut args = SETATTR3args {
        object: object.clone(),
        new_attributes: sattr3 {
            size: Nfs3Option::Some(10),
            uid: Nfs3Option::Some(33),
            mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 {
                seconds: 77,
                nseconds: 8,
            }),
            ..mode(0o4751)
        },
        guard: Nfs3Option::Some(before.ctime),
    };
    let after = client.setattr(&args).await.unwrap().unwrap().obj_wcc.after.unwrap();
    assert_eq!(
        (after.mode, after.uid, after.size, after.mtime.seconds),
        (0o4751, 33, 10, 77)
    );
    fails(client.setattr(&args).await.unwrap(), nfsstat3::NFS3ERR_NOT_SYNC);
    args.guard = Nfs3Option::None;
    client.setattr(&args).await.unwrap().unwrap();
    fails(
        world.client(34).await.setattr(&args).await.unwrap(),
        nfsstat3::NFS3ERR_PERM,
    );
}

#[tokio::test]
async fn access_follows_the_callers_permissions() {
    let world = World::start().await;
    let (mut root_user, root) = (world.client(0).await, world.root().await);
    let file = create(&mut root_user, &root, "file").await;
    let mut user = world.client(33).await;
    for (object, expected) in [
        (&file, ACCESS3_READ),
        (
            &root,
            ACCESS3_READ | ACCESS3_LOOKUP | ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE,
        ),
    ] {
        let object = object.clone();
        let found = user.access(&ACCESS3args { object, access: 63 }).await.unwrap().unwrap();
        assert_eq!(found.access, expected);
        assert!(found.obj_attributes.is_some());
    }
    let args = SETATTR3args {
        object: file.clone(),
        new_attributes: mode(0o600),
        guard: Nfs3Option::None,
    };
    root_user.setattr(&args).await.unwrap().unwrap();
    let args = READ3args {
        file,
        offset: 0,
        count: 1,
    };
    fails(user.read(&args).await.unwrap(), nfsstat3::NFS3ERR_ACCES);
}

#[tokio::test]
async fn creation_is_unchecked_guarded_or_exclusive() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let mut args = CREATE3args {
        where_: at(&root, "file"),
        how: createhow3::EXCLUSIVE(createverf3([7; 8])),
    };
    let first = client.create(&args).await.unwrap().unwrap().obj.unwrap();
    assert_eq!(client.create(&args).await.unwrap().unwrap().obj.unwrap(), first);
    args.how = createhow3::EXCLUSIVE(createverf3([8; 8]));
    fails(client.create(&args).await.unwrap(), nfsstat3::NFS3ERR_EXIST);
    args.how = createhow3::GUARDED(sattr3::default());
    fails(client.create(&args).await.unwrap(), nfsstat3::NFS3ERR_EXIST);
    args.how = createhow3::UNCHECKED(mode(0o640));
    let again = client.create(&args).await.unwrap().unwrap();
    assert_eq!((again.obj.unwrap(), again.obj_attributes.unwrap().mode), (first, 0o640));
}

#[tokio::test]
async fn folders_links_and_devices_are_made_and_looked_up() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let args = MKDIR3args {
        where_: at(&root, "folder"),
        attributes: mode(0o1750),
    };
    let made = client.mkdir(&args).await.unwrap().unwrap();
    assert_eq!(made.obj_attributes.unwrap().mode, 0o1750);
    assert!(made.dir_wcc.before.is_some());
    let folder = made.obj.unwrap();
    let args = SYMLINK3args {
        where_: at(&folder, "link"),
        symlink: symlinkdata3 {
            symlink_attributes: sattr3::default(),
            symlink_data: nfspath3::from(&b"../some/where"[..]),
        },
    };
    let symlink = client.symlink(&args).await.unwrap().unwrap().obj.unwrap();
    let read = client.readlink(&READLINK3args { symlink }).await.unwrap().unwrap();
    assert_eq!(read.data.as_ref(), b"../some/where");
    let file = READLINK3args {
        symlink: folder.clone(),
    };
    fails(client.readlink(&file).await.unwrap(), nfsstat3::NFS3ERR_INVAL);
    let what = mknoddata3::NF3BLK(devicedata3 {
        dev_attributes: mode(0o660),
        spec: specdata3 {
            specdata1: 8,
            specdata2: 1,
        },
    });
    let where_ = at(&folder, "device");
    let made = client.mknod(&MKNOD3args { where_, what }).await.unwrap().unwrap();
    let made = made.obj_attributes.unwrap();
    assert_eq!(
        (made.type_, made.rdev.specdata1, made.rdev.specdata2),
        (ftype3::NF3BLK, 8, 1)
    );
    let where_ = at(&folder, "fifo");
    let what = mknoddata3::NF3FIFO(mode(0o600));
    client.mknod(&MKNOD3args { where_, what }).await.unwrap().unwrap();

    for (dir, name, expected) in [
        (&root, "folder", &folder),
        (&folder, "..", &root),
        (&folder, ".", &folder),
        (&root, "..", &root),
    ] {
        let what = at(dir, name);
        let found = client.lookup(&LOOKUP3args { what }).await.unwrap().unwrap();
        assert_eq!(&found.object, expected, "{name}");
    }
    let what = at(&root, "nothing");
    fails(
        client.lookup(&LOOKUP3args { what }).await.unwrap(),
        nfsstat3::NFS3ERR_NOENT,
    );
    let object = at(&root, "folder");
    fails(
        client.rmdir(&RMDIR3args { object }).await.unwrap(),
        nfsstat3::NFS3ERR_NOTEMPTY,
    );
    for name in ["link", "device", "fifo"] {
        remove(&mut client, &folder, name).await;
    }
    let object = at(&root, "folder");
    client.rmdir(&RMDIR3args { object }).await.unwrap().unwrap();
    let object = folder;
    fails(
        client.getattr(&GETATTR3args { object }).await.unwrap(),
        nfsstat3::NFS3ERR_STALE,
    );
}

#[tokio::test]
async fn rename_replaces_and_link_tells_the_winner_by_fileid() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let (mine, other) = (
        create(&mut client, &root, "mine").await,
        create(&mut client, &root, "other").await,
    );
    let link = |file: &nfs_fh3| LINK3args {
        file: file.clone(),
        link: at(&root, "v1"),
    };
    let linked = client.link(&link(&mine)).await.unwrap().unwrap();
    let winner = linked.file_attributes.unwrap();
    assert_eq!(winner.nlink, 2);
    fails(client.link(&link(&other)).await.unwrap(), nfsstat3::NFS3ERR_EXIST);
    let what = at(&root, "v1");
    let found = client.lookup(&LOOKUP3args { what }).await.unwrap().unwrap();
    assert_eq!(found.obj_attributes.unwrap().fileid, winner.fileid);
    assert_eq!(found.object, mine, "one handle for all names");

    let args = RENAME3args {
        from: at(&root, "other"),
        to: at(&root, "v1"),
    };
    let renamed = client.rename(&args).await.unwrap().unwrap();
    assert!(renamed.fromdir_wcc.after.is_some() && renamed.todir_wcc.before.is_some());
    let what = at(&root, "v1");
    assert_eq!(
        client.lookup(&LOOKUP3args { what }).await.unwrap().unwrap().object,
        other
    );
}

#[tokio::test]
async fn nothing_moves_between_the_trees() {
    let world = World::start().await;
    let (mut agent, registry) = world.agent().await;
    let (mut client, portal) = (world.client(0).await, world.root().await);
    let file = create(&mut client, &portal, "file").await;
    let link = at(&registry, "file");
    fails(
        agent.link(&LINK3args { file, link }).await.unwrap(),
        nfsstat3::NFS3ERR_XDEV,
    );
    let (from, to) = (at(&portal, "file"), at(&registry, "file"));
    fails(
        agent.rename(&RENAME3args { from, to }).await.unwrap(),
        nfsstat3::NFS3ERR_XDEV,
    );
    let object = registry;
    let inner = agent
        .getattr(&GETATTR3args { object })
        .await
        .unwrap()
        .unwrap()
        .obj_attributes;
    assert_ne!(inner.fsid, attributes(&mut client, &portal).await.fsid);
}

#[tokio::test]
async fn limits_are_told() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let args = FSINFO3args { fsroot: root.clone() };
    let info = client.fsinfo(&args).await.unwrap().unwrap();
    assert_eq!((info.rtmax, info.wtmax, info.properties), (1 << 20, 1 << 20, 0x1b));
    let args = FSSTAT3args { fsroot: root.clone() };
    let space = client.fsstat(&args).await.unwrap().unwrap();
    assert_eq!((space.tbytes, space.abytes, space.ffiles), (1 << 40, 1 << 39, 900));
    let conf = client.pathconf(&PATHCONF3args { object: root }).await.unwrap().unwrap();
    assert!(conf.name_max == 255 && conf.no_trunc && conf.chown_restricted && !conf.case_insensitive);
}

#[tokio::test]
async fn hostile_names_get_clear_errors() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let long = "x".repeat(256);
    for (name, error) in [
        ("a/b", nfsstat3::NFS3ERR_INVAL),
        ("a\0b", nfsstat3::NFS3ERR_INVAL),
        ("", nfsstat3::NFS3ERR_INVAL),
        (&long, nfsstat3::NFS3ERR_NAMETOOLONG),
        (".", nfsstat3::NFS3ERR_EXIST),
        ("..", nfsstat3::NFS3ERR_EXIST),
    ] {
        let args = CREATE3args {
            where_: at(&root, name),
            how: createhow3::UNCHECKED(sattr3::default()),
        };
        fails(client.create(&args).await.unwrap(), error);
        let object = at(&root, name);
        assert!(matches!(
            client.remove(&REMOVE3args { object }).await.unwrap(),
            Nfs3Result::Err(_)
        ));
    }
    create(&mut client, &root, &long[..255]).await;
}

#[tokio::test]
async fn forged_and_stale_handles_are_told_apart() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    let file = create(&mut client, &root, "file").await;
    let mut forged = file.data.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for bytes in [forged, Vec::new(), vec![1; 64]] {
        let object = nfs_fh3 {
            data: Opaque::owned(bytes),
        };
        fails(
            client.getattr(&GETATTR3args { object }).await.unwrap(),
            nfsstat3::NFS3ERR_BADHANDLE,
        );
    }
    // A handle of the same inode in another life of the cluster's data.
    let handles = Handles::new(7, [9; 16]);
    let file_handle = handles.decode(&file.data.to_vec().into()).unwrap();
    let object = handles.encode(super::super::handle::Handle {
        generation: file_handle.generation + 1,
        ..file_handle
    });
    fails(
        client.getattr(&GETATTR3args { object: object.clone() }).await.unwrap(),
        nfsstat3::NFS3ERR_STALE,
    );
    let args = READ3args {
        file: object,
        offset: 0,
        count: 1,
    };
    fails(client.read(&args).await.unwrap(), nfsstat3::NFS3ERR_STALE);
    remove(&mut client, &root, "file").await;
    fails(
        client.getattr(&GETATTR3args { object: file }).await.unwrap(),
        nfsstat3::NFS3ERR_STALE,
    );
}

#[tokio::test]
async fn calls_wait_for_a_leader_and_then_succeed() {
    let world = World::start().await;
    let (mut client, root) = (world.client(0).await, world.root().await);
    world.memory.unavailable.store(5, Ordering::Relaxed);
    create(&mut client, &root, "file").await;
    assert_eq!(world.memory.unavailable.load(Ordering::Relaxed), 0);
}

/// A door without a leader, and what asks it for the status of a call.
fn leaderless() -> (Arc<Memory>, Door) {
    let memory = Arc::new(Memory::new());
    memory.unavailable.store(u32::MAX, Ordering::Relaxed);
    let door = Door::new(memory.clone(), Handles::new(7, [9; 16]));
    (memory, door)
}

async fn ask(door: &Door, number: u32, arguments: &impl Pack) -> u32 {
    let peer = super::super::dispatch::Peer {
        address: None,
        port: 0,
        is_stranger: false,
    };
    let record = nfs(1, number, &packed(arguments))[4..].to_vec();
    let call = super::super::rpc::parse(record.into()).unwrap();
    status(&door.answer(&peer, call).await.head[4..])
}

fn portal(door: &Door) -> nfs_fh3 {
    door.handles.encode(super::super::handle::Handle {
        tree: super::super::Tree::Portal,
        inode: crate::storage::call::PORTAL,
        generation: 0,
    })
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_who_reads_is_told_to_come_back() {
    let (memory, door) = leaderless();
    let object = portal(&door);
    let arguments = GETATTR3args { object };
    assert_eq!(ask(&door, 1, &arguments).await, nfsstat3::NFS3ERR_JUKEBOX as u32);
    memory.unavailable.store(0, Ordering::Relaxed);
    assert_eq!(
        ask(&door, 1, &arguments).await,
        0,
        "the same request again is tried again"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_a_change_waits_for_its_outcome() {
    let (memory, door) = leaderless();
    let object = at(&portal(&door), "file");
    let arguments = REMOVE3args { object };
    let removed = ask(&door, 12, &arguments);
    tokio::pin!(removed);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, &mut removed).await.is_err(), "not answered");
    memory.unavailable.store(0, Ordering::Relaxed);
    assert_eq!(removed.await, nfsstat3::NFS3ERR_NOENT as u32);
}
