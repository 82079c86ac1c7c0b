//! Names made, removed and moved. Who made a thing owns it; the kernel has checked that it may.

use nix::errno::Errno;
use nix::libc;

use super::ask::Number;
use super::convert::{self, UNPROMISED, device_numbers, errno, kind};
use super::door::Door;
use super::wire::abi::InHeader;
use super::wire::{Answer, Ask, Body, abi};
use crate::storage::call::{Attributes, Change, Creation, Error, Inode, Kind, Mutation, Reply, SetTime};

const SETTABLE: u32 = 0o7777;

/// Answers what makes, removes or moves a name.
pub async fn answer(door: &Door, header: &InHeader, ask: Ask) -> Answer {
    let folder = Inode(header.node);
    let made = |mode: u32| Change {
        mode: Some(mode & SETTABLE),
        uid: Some(header.uid),
        ..Change::default()
    };
    let mutation = match ask {
        Ask::MakeFolder { name, of } => Mutation::MakeFolder {
            folder,
            name,
            change: made(of.mode),
        },
        Ask::MakeLink { name, target } => Mutation::MakeLink {
            folder,
            name,
            target,
            change: made(0o777),
        },
        Ask::MakeNode { name, of } => match kind(of.mode) {
            None => return Err(Errno::EINVAL as i32),
            Some(Kind::File) => Mutation::Create {
                folder,
                name,
                how: Creation::Guarded,
                change: made(of.mode),
            },
            Some(kind) => Mutation::MakeNode {
                folder,
                name,
                kind,
                device: device_numbers(of.device),
                change: made(of.mode),
            },
        },
        Ask::Link { node, name } => Mutation::Link {
            inode: Inode(node),
            folder,
            name,
        },
        Ask::Remove(name) => Mutation::Remove { folder, name },
        Ask::RemoveFolder(name) => Mutation::RemoveFolder { folder, name },
        Ask::Rename {
            name,
            folder: to,
            new_name,
            flags: 0,
        } => Mutation::Rename {
            from: folder,
            name,
            to: Inode(to),
            new_name,
        },
        // Neither exchange nor "only if there is none".
        _ => return Err(Errno::EINVAL as i32),
    };
    let number = Number::of(header.unique);
    match door.ask.change_in(header.gid, number, mutation).await {
        Ok(Reply::Object { attributes, .. } | Reply::Linked { attributes, .. }) => {
            Ok(Body::of(&convert::entry(&attributes, UNPROMISED)))
        }
        Ok(_) => Ok(Body::default()),
        Err(error) => Err(errno(error)),
    }
}

/// A new file, open.
pub async fn create(door: &Door, header: &InHeader, name: Vec<u8>, of: &abi::CreateIn) -> Result<Attributes, Error> {
    let has = |flag: i32| of.flags & flag.cast_unsigned() != 0;
    let how = if has(libc::O_EXCL) {
        Creation::Guarded
    } else {
        Creation::Unchecked
    };
    let change = Change {
        mode: Some(of.mode & SETTABLE),
        uid: Some(header.uid),
        // Another node may have been first; then its file is cut.
        size: has(libc::O_TRUNC).then_some(0),
        ..Change::default()
    };
    let mutation = Mutation::Create {
        folder: Inode(header.node),
        name,
        how,
        change,
    };
    let number = Number::of(header.unique);
    match door.ask.change_in(header.gid, number, mutation).await? {
        Reply::Object { attributes, .. } => Ok(attributes),
        _ => Err(Error::Io),
    }
}

/// SETATTR. What was written before comes before it.
pub async fn set(door: &Door, header: &InHeader, of: &abi::SetAttributesIn) -> Answer {
    let inode = Inode(header.node);
    door.writes.quiet(inode).await;
    let change = convert::change(of);
    if change == Change::default() {
        let attributes = door.ask.attributes(inode).await.map_err(errno)?;
        return Ok(Body::of(&convert::attributes_for(&attributes, UNPROMISED)));
    }
    let is_timeless = !matches!(change.modified, Some(SetTime::At(_)));
    let mutation = Mutation::Set {
        inode,
        change,
        guard: None,
    };
    let number = Number::of(header.unique);
    match door.ask.change(number, mutation).await {
        Ok(Reply::Set(changed)) => {
            if is_timeless {
                door.pages.follow(&changed);
            }
            Ok(Body::of(&convert::attributes_for(&changed.after, UNPROMISED)))
        }
        Ok(_) => Err(Errno::EIO as i32),
        Err(error) => Err(errno(error)),
    }
}
