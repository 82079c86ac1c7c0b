//! Who may do what, as a table.

use super::world::{ROOT, mode, user};
use crate::storage::call::{Attributes, Caller, Change, Error, Inode, Kind, SetTime, Time};
use crate::storage::state::access::{
    check_name, granted, may_read, may_remove, may_set, may_write, mode_after_set, mode_after_write, of_new,
};

const OWNER: u32 = 1000;
const GROUP: u32 = 2000;

fn object(kind: Kind, mode: u32) -> Attributes {
    Attributes {
        inode: Inode(9),
        generation: 1,
        kind,
        mode,
        links: 1,
        uid: OWNER,
        gid: GROUP,
        size: 0,
        used: 0,
        device: (0, 0),
        accessed: Time::default(),
        modified: Time::default(),
        changed: Time::default(),
    }
}

fn file(mode: u32) -> Attributes {
    object(Kind::File, mode)
}

fn folder(mode: u32) -> Attributes {
    object(Kind::Folder, mode)
}

fn owner() -> Caller {
    user(OWNER)
}

fn member() -> Caller {
    Caller {
        groups: vec![5, GROUP],
        ..user(1001)
    }
}

fn stranger() -> Caller {
    user(1002)
}

#[test]
fn the_first_class_that_fits_decides_alone() {
    for (bits, of_owner, of_member, of_stranger, of_root) in [
        (0o000, 0, 0, 0, 6),
        (0o700, 7, 0, 0, 7),
        (0o070, 0, 7, 0, 7),
        (0o007, 0, 0, 7, 7),
        (0o640, 6, 4, 0, 6),
        (0o466, 4, 6, 6, 6),
        (0o751, 7, 5, 1, 7),
    ] {
        let of = file(bits);
        let got = [owner(), member(), stranger(), ROOT].map(|caller| granted(&of, &caller));
        assert_eq!(got, [of_owner, of_member, of_stranger, of_root], "{bits:o}");
    }
    assert_eq!(granted(&folder(0), &ROOT), 7, "root searches every folder");
}

#[test]
fn data_calls_let_the_owner_through_and_executing_is_reading() {
    assert!(may_read(&file(0), &owner()).is_ok());
    assert!(may_write(&file(0o444), &owner()).is_ok());
    assert!(may_read(&file(0o711), &stranger()).is_ok());
    assert_eq!(may_read(&file(0o700), &stranger()), Err(Error::Access));
    assert_eq!(may_write(&file(0o644), &member()), Err(Error::Access));
    assert!(may_write(&file(0), &ROOT).is_ok());
}

#[test]
fn a_sticky_folder_lets_only_owners_remove() {
    let mine = Attributes {
        uid: 1002,
        ..file(0o644)
    };
    let shared = folder(0o1777);
    assert_eq!(may_remove(&shared, &file(0o777), &stranger()), Err(Error::NotOwner));
    assert!(may_remove(&shared, &mine, &stranger()).is_ok(), "owner of the object");
    assert!(may_remove(&shared, &mine, &owner()).is_ok(), "owner of the folder");
    assert!(may_remove(&shared, &mine, &ROOT).is_ok());
    assert!(may_remove(&folder(0o777), &file(0), &stranger()).is_ok(), "not sticky");
    assert_eq!(may_remove(&folder(0o755), &mine, &stranger()), Err(Error::Access));
    assert_eq!(
        may_remove(&folder(0o762), &mine, &stranger()),
        Err(Error::Access),
        "no search"
    );
}

fn uid(uid: u32) -> Change {
    Change {
        uid: Some(uid),
        ..Change::default()
    }
}

fn gid(gid: u32) -> Change {
    Change {
        gid: Some(gid),
        ..Change::default()
    }
}

fn modified(time: SetTime) -> Change {
    Change {
        modified: Some(time),
        ..Change::default()
    }
}

#[test]
fn who_may_set_what() {
    let now = modified(SetTime::Now);
    let then = modified(SetTime::At(Time::default()));
    let both = Caller {
        groups: vec![7],
        ..owner()
    };
    let no = Err(Error::NotOwner);
    for (bits, caller, change, wanted) in [
        (0o666, owner(), mode(0o600), Ok(())),
        (0o666, stranger(), mode(0o600), no),
        (0o666, ROOT, mode(0o600), Ok(())),
        (0o666, owner(), uid(OWNER), Ok(())),
        (0o666, owner(), uid(5), no),
        (0o666, ROOT, uid(5), Ok(())),
        (0o666, both.clone(), gid(7), Ok(())),
        (0o666, both, gid(8), no),
        (0o666, owner(), gid(GROUP), Ok(())),
        (0o666, member(), gid(GROUP), no),
        (0o666, stranger(), now.clone(), Ok(())),
        (0o644, stranger(), now.clone(), Err(Error::Access)),
        (0o000, owner(), now, Ok(())),
        (0o666, stranger(), then.clone(), no),
        (0o000, owner(), then, Ok(())),
        (0o644, stranger(), super::world::size(0), Err(Error::Access)),
        (0o666, stranger(), super::world::size(0), Ok(())),
    ] {
        assert_eq!(
            may_set(&file(bits), &caller, &change),
            wanted,
            "{bits:o} {caller:?} {change:?}"
        );
    }
}

#[test]
fn set_id_bits_go_with_writing_and_giving_away() {
    assert_eq!(mode_after_write(&file(0o6755), &owner()), 0o755);
    assert_eq!(mode_after_write(&file(0o6755), &ROOT), 0o6755);
    assert_eq!(
        mode_after_write(&file(0o2745), &owner()),
        0o2745,
        "marks mandatory locking"
    );
    assert_eq!(mode_after_set(&file(0o6755), &ROOT, &uid(5)), 0o755);
    assert_eq!(mode_after_set(&folder(0o6755), &ROOT, &uid(5)), 0o6755);
    assert_eq!(
        mode_after_set(&file(0o644), &owner(), &mode(0o2755)),
        0o755,
        "not of the group"
    );
    assert_eq!(mode_after_set(&file(0o644), &ROOT, &mode(0o6755)), 0o6755);
    assert_eq!(mode_after_set(&file(0o644), &ROOT, &mode(0o177_777)), 0o7777);
}

#[test]
fn new_objects_take_owner_and_group_from_caller_or_folder() {
    let plain = folder(0o777);
    let shared = folder(0o2777);
    let none = Change::default();
    assert_eq!(
        of_new(&plain, &stranger(), Kind::File, &mode(0o644)),
        Ok((1002, 1002, 0o644))
    );
    assert_eq!(
        of_new(&shared, &stranger(), Kind::File, &mode(0o644)),
        Ok((1002, GROUP, 0o644))
    );
    assert_eq!(
        of_new(&shared, &stranger(), Kind::Folder, &mode(0o755)),
        Ok((1002, GROUP, 0o2755))
    );
    assert_eq!(
        of_new(&shared, &stranger(), Kind::File, &mode(0o2755)),
        Ok((1002, GROUP, 0o755))
    );
    assert_eq!(
        of_new(&shared, &member(), Kind::File, &mode(0o2755)),
        Ok((1001, GROUP, 0o2755))
    );
    assert_eq!(of_new(&plain, &stranger(), Kind::Link, &none), Ok((1002, 1002, 0o777)));
    assert_eq!(of_new(&plain, &stranger(), Kind::File, &uid(5)), Err(Error::NotOwner));
    assert_eq!(of_new(&plain, &stranger(), Kind::File, &gid(5)), Err(Error::NotOwner));
    assert_eq!(of_new(&plain, &ROOT, Kind::File, &uid(5)), Ok((5, 0, 0o600)));
}

#[test]
fn names_are_bytes_but_not_any() {
    for name in [&b"a"[..], b"...", b" ", b"\xff", &[b'n'; 255]] {
        assert_eq!(check_name(name), Ok(()));
    }
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
        assert_eq!(check_name(name), Err(Error::Invalid));
    }
    assert_eq!(check_name(&[b'n'; 256]), Err(Error::NameTooLong));
}
