//! Who may do what: POSIX permission bits, owners, sticky and set-id bits, names. Pure.

use crate::storage::call::{Attributes, Caller, Change, Error, Kind, NAME_MAX, SetTime};

pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const EXECUTE: u32 = 1;

pub const SET_UID: u32 = 0o4000;
pub const SET_GID: u32 = 0o2000;
pub const STICKY: u32 = 0o1000;
const GROUP_EXECUTE: u32 = 0o010;
const ALL_BITS: u32 = 0o7777;

/// What an object gets when its maker names no mode. A file of exclusive creation gets its mode by the SETATTR that follows.
const NEW_FILE_MODE: u32 = 0o600;
const NEW_FOLDER_MODE: u32 = 0o700;
const LINK_MODE: u32 = 0o777;

pub fn is_root(caller: &Caller) -> bool {
    caller.uid == 0
}

pub fn is_in_group(caller: &Caller, gid: u32) -> bool {
    caller.gid == gid || caller.groups.contains(&gid)
}

fn is_owner(of: &Attributes, caller: &Caller) -> bool {
    is_root(caller) || caller.uid == of.uid
}

/// Permission bits that the caller has: of the owner, else of the group, else of the others; never a union of them.
/// Root reads and writes everything, and executes what anybody may execute.
pub fn granted(of: &Attributes, caller: &Caller) -> u32 {
    if is_root(caller) {
        let can_execute = of.kind == Kind::Folder || of.mode & 0o111 != 0;
        return READ | WRITE | if can_execute { EXECUTE } else { 0 };
    }
    let shift = if caller.uid == of.uid {
        6
    } else if is_in_group(caller, of.gid) {
        3
    } else {
        0
    };
    (of.mode >> shift) & 7
}

pub fn need(of: &Attributes, caller: &Caller, bits: u32) -> Result<(), Error> {
    if granted(of, caller) & bits == bits {
        Ok(())
    } else {
        Err(Error::Access)
    }
}

/// Data calls do not carry the rights that were checked at open, so the owner is always let through; and who may execute
/// a program may read it (RFC 1813 §4.4).
pub fn may_read(of: &Attributes, caller: &Caller) -> Result<(), Error> {
    if is_owner(of, caller) || granted(of, caller) & (READ | EXECUTE) != 0 {
        Ok(())
    } else {
        Err(Error::Access)
    }
}

/// As `may_read`: the owner is always let through.
pub fn may_write(of: &Attributes, caller: &Caller) -> Result<(), Error> {
    if is_owner(of, caller) {
        return Ok(());
    }
    need(of, caller, WRITE)
}

/// To take a name out of `folder`: in a sticky one only the owner of the object or of the folder may.
pub fn may_remove(folder: &Attributes, object: &Attributes, caller: &Caller) -> Result<(), Error> {
    need(folder, caller, WRITE | EXECUTE)?;
    if folder.mode & STICKY != 0 && !is_owner(object, caller) && !is_owner(folder, caller) {
        return Err(Error::NotOwner);
    }
    Ok(())
}

/// May the caller change these attributes? The object's kind against a size is not looked at here.
pub fn may_set(of: &Attributes, caller: &Caller, change: &Change) -> Result<(), Error> {
    if change.mode.is_some() && !is_owner(of, caller) {
        return Err(Error::NotOwner);
    }
    if change
        .uid
        .is_some_and(|uid| !is_root(caller) && (caller.uid != of.uid || uid != of.uid))
    {
        return Err(Error::NotOwner);
    }
    let is_allowed_group = |gid| is_root(caller) || caller.uid == of.uid && (gid == of.gid || is_in_group(caller, gid));
    if change.gid.is_some_and(|gid| !is_allowed_group(gid)) {
        return Err(Error::NotOwner);
    }
    let times = [change.accessed, change.modified];
    if times.iter().any(|time| matches!(time, Some(SetTime::At(_)))) && !is_owner(of, caller) {
        return Err(Error::NotOwner);
    }
    if times.iter().any(Option::is_some) && !is_owner(of, caller) {
        need(of, caller, WRITE)?;
    }
    if change.size.is_some() {
        may_write(of, caller)?;
    }
    Ok(())
}

/// The mode after data was written or cut by somebody who is not root: no program keeps the rights of its owner then.
pub fn mode_after_write(of: &Attributes, caller: &Caller) -> u32 {
    if is_root(caller) {
        of.mode
    } else {
        without_set_id(of.mode)
    }
}

/// Set-gid without group execution marks mandatory locking and stays.
fn without_set_id(mode: u32) -> u32 {
    let mode = mode & !SET_UID;
    if mode & GROUP_EXECUTE != 0 {
        mode & !SET_GID
    } else {
        mode
    }
}

/// The mode that results from a permitted change.
pub fn mode_after_set(of: &Attributes, caller: &Caller, change: &Change) -> u32 {
    let mut mode = of.mode;
    let is_given_away = change.uid.is_some() || change.gid.is_some();
    if is_given_away && of.kind != Kind::Folder {
        mode = without_set_id(mode);
    }
    if change.size.is_some() && !is_root(caller) {
        mode = without_set_id(mode);
    }
    if let Some(wanted) = change.mode {
        mode = wanted & ALL_BITS;
        if !is_root(caller) && !is_in_group(caller, change.gid.unwrap_or(of.gid)) {
            mode &= !SET_GID;
        }
        if is_given_away && of.kind != Kind::Folder {
            mode = without_set_id(mode);
        }
    }
    mode
}

/// Owner, group and mode of something new in `folder`. Only root gives to others what it makes.
pub fn of_new(folder: &Attributes, caller: &Caller, kind: Kind, change: &Change) -> Result<(u32, u32, u32), Error> {
    let is_inherited = folder.mode & SET_GID != 0;
    let uid = change.uid.unwrap_or(caller.uid);
    let gid = change.gid.unwrap_or(if is_inherited { folder.gid } else { caller.gid });
    let is_own_group = is_root(caller) || is_in_group(caller, gid);
    if !is_root(caller) && uid != caller.uid || change.gid.is_some() && !is_own_group {
        return Err(Error::NotOwner);
    }
    let mut mode = match kind {
        Kind::Link => return Ok((uid, gid, LINK_MODE)),
        Kind::Folder => change.mode.unwrap_or(NEW_FOLDER_MODE),
        _ => change.mode.unwrap_or(NEW_FILE_MODE),
    } & ALL_BITS;
    if !is_own_group {
        mode &= !SET_GID;
    }
    if kind == Kind::Folder && is_inherited {
        mode |= SET_GID;
    }
    Ok((uid, gid, mode))
}

/// A name that may be made or removed.
pub fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong);
    }
    let is_reserved = matches!(name, b"" | b"." | b"..");
    if is_reserved || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Error::Invalid);
    }
    Ok(())
}
