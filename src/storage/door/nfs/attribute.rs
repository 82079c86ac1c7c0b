//! GETATTR, SETATTR, ACCESS, FSSTAT, FSINFO, PATHCONF (RFC 1813 §3.3.1, 2, 4, 18, 19, 20).

use nfs3_types::nfs3::{
    ACCESS3_DELETE, ACCESS3_EXECUTE, ACCESS3_EXTEND, ACCESS3_LOOKUP, ACCESS3_MODIFY, ACCESS3_READ, ACCESS3resok,
    FSF3_CANSETTIME, FSF3_HOMOGENEOUS, FSF3_LINK, FSF3_SYMLINK, FSINFO3resok, FSSTAT3resok, GETATTR3resok,
    PATHCONF3resok, SETATTR3resok, nfsstat3, nfstime3,
};

use super::convert;
use super::dispatch::{Context, Results, parse_handle};
use super::xdr::{Garbage, Reader};
use crate::storage::call::{DATA_MAX, Kind, Mutation, NAME_MAX, Query, Reply};

/// What clients are told to ask for at once when they list a folder.
const LISTING_WANTED: u32 = 64 << 10;
/// File systems that replicas keep their files on allow no more: ext4 has 65,000 links, two of which are the replica's own.
const LINKS_MAX: u32 = 64_998;
/// Preferred multiple of READ and WRITE: a page of the client.
const PAGE: u32 = 4096;

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;

pub async fn get(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    arguments.end()?;
    let result = async {
        let (handle, attributes) = cx.current(&handle).await?;
        let filesystem = cx.door.handles.filesystem(handle.tree);
        Ok(GETATTR3resok {
            obj_attributes: convert::attributes(&attributes, filesystem),
        })
    };
    Ok(Results::of(result.await, 0))
}

pub async fn set(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    let change = convert::parse_change(&mut arguments)?;
    let guard = arguments.optional(convert::parse_time)?;
    arguments.end()?;
    let result = async {
        let handle = cx.object(&handle).await?;
        let (inode, change) = (handle.inode, convert::sized(change)?);
        match cx.mutate(Mutation::Set { inode, change, guard }).await? {
            Reply::Set(changed) => Ok(SETATTR3resok {
                obj_wcc: convert::changed(&changed, cx.door.handles.filesystem(handle.tree)),
            }),
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    Ok(Results::of(result.await, 2))
}

pub async fn access(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    let asked = arguments.u32()?;
    arguments.end()?;
    let result = async {
        let (handle, attributes) = cx.current(&handle).await?;
        let inode = handle.inode;
        let wanted = READ | WRITE | EXECUTE;
        match cx.query(Query::Access { inode, wanted }).await? {
            Reply::Access(granted) => Ok(ACCESS3resok {
                obj_attributes: convert::after(&attributes, cx.door.handles.filesystem(handle.tree)),
                access: asked & rights(granted, attributes.kind),
            }),
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    Ok(Results::of(result.await, 1))
}

/// ACCESS bits from permission bits. Entries of a folder change only with search permission too.
fn rights(granted: u32, kind: Kind) -> u32 {
    let (may_write, may_execute) = (granted & WRITE != 0, granted & EXECUTE != 0);
    let is_folder = kind == Kind::Folder;
    let mut rights = 0;
    for (bits, is_granted) in [
        (ACCESS3_READ, granted & READ != 0),
        (ACCESS3_LOOKUP, is_folder && may_execute),
        (ACCESS3_EXECUTE, !is_folder && may_execute),
        (
            ACCESS3_MODIFY | ACCESS3_EXTEND,
            may_write && (!is_folder || may_execute),
        ),
        (ACCESS3_DELETE, is_folder && may_write && may_execute),
    ] {
        if is_granted {
            rights |= bits;
        }
    }
    rights
}

pub async fn space(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    arguments.end()?;
    let result = async {
        let (handle, attributes) = cx.current(&handle).await?;
        let inode = handle.inode;
        match cx.query(Query::Space { inode }).await? {
            Reply::Space(space) => Ok(FSSTAT3resok {
                obj_attributes: convert::after(&attributes, cx.door.handles.filesystem(handle.tree)),
                tbytes: space.total_bytes,
                fbytes: space.free_bytes,
                abytes: space.free_bytes,
                tfiles: space.total_inodes,
                ffiles: space.free_inodes,
                afiles: space.free_inodes,
                invarsec: 0,
            }),
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    Ok(Results::of(result.await, 1))
}

pub async fn limits(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    arguments.end()?;
    let result = async {
        let (handle, attributes) = cx.current(&handle).await?;
        let data_max = DATA_MAX as u32;
        Ok(FSINFO3resok {
            obj_attributes: convert::after(&attributes, cx.door.handles.filesystem(handle.tree)),
            rtmax: data_max,
            rtpref: data_max,
            rtmult: PAGE,
            wtmax: data_max,
            wtpref: data_max,
            wtmult: PAGE,
            dtpref: LISTING_WANTED,
            maxfilesize: i64::MAX as u64,
            time_delta: nfstime3 {
                seconds: 0,
                nseconds: 1,
            },
            properties: FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME,
        })
    };
    Ok(Results::of(result.await, 1))
}

pub async fn path_limits(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    arguments.end()?;
    let result = async {
        let (handle, attributes) = cx.current(&handle).await?;
        Ok(PATHCONF3resok {
            obj_attributes: convert::after(&attributes, cx.door.handles.filesystem(handle.tree)),
            linkmax: LINKS_MAX,
            name_max: NAME_MAX as u32,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        })
    };
    Ok(Results::of(result.await, 1))
}
