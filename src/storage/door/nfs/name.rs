//! Procedures on names: LOOKUP, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME, LINK (RFC 1813 §3.3.3, §3.3.8–15).

use nfs3_types::nfs3::{
    CREATE3resok, LINK3resok, LOOKUP3resok, NFS3_CREATEVERFSIZE, Nfs3Option, REMOVE3resok, RENAME3resok, nfsstat3,
    post_op_attr, wcc_data,
};

use super::convert::{self, STRING_MAX, is_dots};
use super::dispatch::{Context, Place, Results, parse_handle};
use super::handle::{Handle, Tree};
use super::xdr::{Garbage, Reader};
use crate::storage::call::{Attributes, Change, Creation, Inode, Kind, Mutation, Query, Reply};

pub async fn lookup(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let place = Place::parse(&mut arguments)?;
    arguments.end()?;
    let result = async {
        let (folder, name) = cx.place(&place).await?;
        let (attributes, dir_attributes) = find(cx, folder, name).await?;
        Ok(LOOKUP3resok {
            object: cx.door.handles.encode(Handle::of(folder.tree, &attributes)),
            obj_attributes: convert::after(&attributes, cx.door.handles.filesystem(folder.tree)),
            dir_attributes,
        })
    };
    Ok(Results::of(result.await, 1))
}

pub async fn create(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let place = Place::parse(&mut arguments)?;
    let (how, change) = match arguments.u32()? {
        0 => (Creation::Unchecked, convert::parse_change(&mut arguments)?),
        1 => (Creation::Guarded, convert::parse_change(&mut arguments)?),
        2 => {
            const { assert!(NFS3_CREATEVERFSIZE == size_of::<u64>()) };
            (Creation::Exclusive(arguments.u64()?), Change::default())
        }
        _ => return Err(Garbage),
    };
    arguments.end()?;
    let change = match convert::sized(change) {
        Ok(change) => change,
        Err(status) => return Ok(failed(status)),
    };
    make(cx, &place, |folder, name| Mutation::Create {
        folder,
        name,
        how,
        change,
    })
    .await
}

pub async fn make_folder(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let place = Place::parse(&mut arguments)?;
    let change = convert::parse_change(&mut arguments)?;
    arguments.end()?;
    make(cx, &place, |folder, name| Mutation::MakeFolder { folder, name, change }).await
}

pub async fn make_link(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let place = Place::parse(&mut arguments)?;
    let change = convert::parse_change(&mut arguments)?;
    let target = arguments.opaque(STRING_MAX)?;
    arguments.end()?;
    let target = match convert::target(&target) {
        Ok(target) => target,
        Err(status) => return Ok(failed(status)),
    };
    make(cx, &place, |folder, name| Mutation::MakeLink {
        folder,
        name,
        target,
        change,
    })
    .await
}

pub async fn make_node(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let place = Place::parse(&mut arguments)?;
    let kind = convert::parse_kind(arguments.u32()?).ok_or(Garbage)?;
    let (change, device) = match kind {
        Kind::Character | Kind::Block => {
            let change = convert::parse_change(&mut arguments)?;
            (change, (arguments.u32()?, arguments.u32()?))
        }
        Kind::Socket | Kind::Fifo => (convert::parse_change(&mut arguments)?, (0, 0)),
        Kind::File | Kind::Folder | Kind::Link => return Ok(failed(nfsstat3::NFS3ERR_BADTYPE)),
    };
    arguments.end()?;
    make(cx, &place, |folder, name| Mutation::MakeNode {
        folder,
        name,
        kind,
        device,
        change,
    })
    .await
}

/// The results of CREATE, MKDIR, SYMLINK and MKNOD are the same in XDR.
async fn make(
    cx: &Context<'_>,
    place: &Place,
    mutation: impl FnOnce(Inode, Vec<u8>) -> Mutation,
) -> Result<Results, Garbage> {
    let result = async {
        let (folder, name) = cx.place(place).await?;
        if is_dots(&name) {
            return Err(nfsstat3::NFS3ERR_EXIST);
        }
        let reply = cx.mutate(mutation(folder.inode, name)).await?;
        let Reply::Object {
            attributes,
            folder: changed,
        } = reply
        else {
            return Err(nfsstat3::NFS3ERR_SERVERFAULT);
        };
        let filesystem = cx.door.handles.filesystem(folder.tree);
        let object = cx.door.handles.encode(Handle::of(folder.tree, &attributes));
        Ok(CREATE3resok {
            obj: Nfs3Option::Some(object),
            obj_attributes: convert::after(&attributes, filesystem),
            dir_wcc: changed.map_or_else(wcc_data::default, |changed| convert::changed(&changed, filesystem)),
        })
    };
    Ok(Results::of(result.await, 2))
}

fn failed(status: nfsstat3) -> Results {
    Results::of(Err::<u32, _>(status), 2)
}

pub async fn remove(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let place = Place::parse(&mut arguments)?;
    arguments.end()?;
    let dots = nfsstat3::NFS3ERR_INVAL;
    take_away(cx, &place, dots, |folder, name| Mutation::Remove { folder, name }).await
}

pub async fn remove_folder(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let place = Place::parse(&mut arguments)?;
    arguments.end()?;
    let dots = nfsstat3::NFS3ERR_NOTEMPTY;
    take_away(cx, &place, dots, |folder, name| Mutation::RemoveFolder { folder, name }).await
}

/// The results of REMOVE and RMDIR are the same in XDR. `dots`: what is said of `..`.
async fn take_away(
    cx: &Context<'_>,
    place: &Place,
    dots: nfsstat3,
    mutation: impl FnOnce(Inode, Vec<u8>) -> Mutation,
) -> Result<Results, Garbage> {
    let result = async {
        let (folder, name) = cx.place(place).await?;
        match name.as_slice() {
            b"." => return Err(nfsstat3::NFS3ERR_INVAL),
            b".." => return Err(dots),
            _ => {}
        }
        match cx.mutate(mutation(folder.inode, name)).await? {
            Reply::Removed { folder: changed } => Ok(REMOVE3resok {
                dir_wcc: convert::changed(&changed, cx.door.handles.filesystem(folder.tree)),
            }),
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    Ok(Results::of(result.await, 2))
}

pub async fn rename(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let (from, to) = (Place::parse(&mut arguments)?, Place::parse(&mut arguments)?);
    arguments.end()?;
    let result = async {
        let ((from, name), (to, new_name)) = (cx.place(&from).await?, cx.place(&to).await?);
        same_tree(from.tree, to.tree)?;
        if is_dots(&name) || is_dots(&new_name) {
            return Err(nfsstat3::NFS3ERR_INVAL);
        }
        let mutation = Mutation::Rename {
            from: from.inode,
            name,
            to: to.inode,
            new_name,
        };
        let filesystem = cx.door.handles.filesystem(from.tree);
        match cx.mutate(mutation).await? {
            Reply::Renamed { from, to } => Ok(RENAME3resok {
                fromdir_wcc: convert::changed(&from, filesystem),
                todir_wcc: convert::changed(&to, filesystem),
            }),
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    Ok(Results::of(result.await, 4))
}

pub async fn link(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    let place = Place::parse(&mut arguments)?;
    arguments.end()?;
    let result = async {
        let object = cx.object(&handle).await?;
        let (folder, name) = cx.place(&place).await?;
        same_tree(object.tree, folder.tree)?;
        if is_dots(&name) {
            return Err(nfsstat3::NFS3ERR_EXIST);
        }
        let mutation = Mutation::Link {
            inode: object.inode,
            folder: folder.inode,
            name,
        };
        let filesystem = cx.door.handles.filesystem(object.tree);
        match cx.mutate(mutation).await? {
            Reply::Linked { attributes, folder } => Ok(LINK3resok {
                file_attributes: convert::after(&attributes, filesystem),
                linkdir_wcc: convert::changed(&folder, filesystem),
            }),
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    Ok(Results::of(result.await, 3))
}

fn same_tree(one: Tree, other: Tree) -> Result<(), nfsstat3> {
    if one == other {
        Ok(())
    } else {
        Err(nfsstat3::NFS3ERR_XDEV)
    }
}

/// The object of that name, `.` and `..` included, and the folder's attributes where they came along.
async fn find(cx: &Context<'_>, folder: Handle, name: Vec<u8>) -> Result<(Attributes, post_op_attr), nfsstat3> {
    let filesystem = cx.door.handles.filesystem(folder.tree);
    let inode = folder.inode;
    if name == b"." {
        let attributes = cx.attributes(inode).await?;
        if attributes.kind != Kind::Folder {
            return Err(nfsstat3::NFS3ERR_NOTDIR);
        }
        let after = convert::after(&attributes, filesystem);
        return Ok((attributes, after));
    }
    match cx.query(Query::Lookup { folder: inode, name }).await? {
        Reply::Object { attributes, folder } => {
            let after = folder.map(|folder| convert::after(&folder.after, filesystem));
            Ok((attributes, after.unwrap_or_default()))
        }
        _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
    }
}
