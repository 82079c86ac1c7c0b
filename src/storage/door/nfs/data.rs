//! READLINK, READ, WRITE, COMMIT (RFC 1813 §3.3.5–7, §3.3.21).

use nfs3_types::nfs3::{
    COMMIT3resok, Nfs3Option, READ3resok, READLINK3resok, WRITE3resok, nfspath3, nfsstat3, stable_how, wcc_data,
    writeverf3,
};
use nfs3_types::xdr_codec::{Opaque, Pack};

use super::convert::{self, OFFSET_MAX};
use super::dispatch::{Context, Results, parse_handle};
use super::record::RECORD_MAX;
use super::xdr::{Garbage, Reader, pack};
use crate::storage::call::{DATA_MAX, Inode, Mutation, Query, Reply};

pub async fn read_link(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    arguments.end()?;
    let result = async {
        let (handle, attributes) = cx.current(&handle).await?;
        let inode = handle.inode;
        match cx.query(Query::ReadLink { inode }).await? {
            Reply::Target(target) => Ok(READLINK3resok {
                symlink_attributes: convert::after(&attributes, cx.door.handles.filesystem(handle.tree)),
                data: nfspath3::from(target),
            }),
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    Ok(Results::of(result.await, 1))
}

pub async fn read(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    let (offset, count) = (arguments.u64()?, arguments.u32()?);
    arguments.end()?;
    let result = async {
        let handle = cx.object(&handle).await?;
        if offset > OFFSET_MAX {
            return Err(nfsstat3::NFS3ERR_INVAL);
        }
        let (inode, count) = (handle.inode, count.min(DATA_MAX as u32));
        match cx.query(Query::Read { inode, offset, count }).await? {
            Reply::Data {
                data,
                is_end,
                attributes,
            } => {
                let file = convert::after(&attributes, cx.door.handles.filesystem(handle.tree));
                Ok((file, is_end, data))
            }
            _ => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        }
    };
    match result.await {
        Ok((file_attributes, eof, data)) => {
            let count = u32::try_from(data.len()).expect("at most DATA_MAX was asked for");
            // The data itself follows the head without being copied; its length is packed here.
            let head = READ3resok {
                file_attributes,
                count,
                eof,
                data: Opaque::borrowed(&[]),
            };
            let mut results = Results::of(Ok(head), 1);
            results.head.truncate(results.head.len() - count.packed_size());
            pack(&count, &mut results.head);
            results.data = data;
            Ok(results)
        }
        Err(status) => Ok(Results::of(Err::<u32, _>(status), 1)),
    }
}

pub async fn write(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    let (offset, count, stable) = (arguments.u64()?, arguments.u32()?, arguments.u32()?);
    let stable = match stable {
        0 => stable_how::UNSTABLE,
        1 => stable_how::DATA_SYNC,
        2 => stable_how::FILE_SYNC,
        _ => return Err(Garbage),
    };
    let mut data = arguments.opaque(RECORD_MAX)?;
    arguments.end()?;
    let result = async {
        let handle = cx.object(&handle).await?;
        if data.len() != count as usize {
            return Err(nfsstat3::NFS3ERR_INVAL);
        }
        // The client sends the rest again.
        data.truncate(DATA_MAX);
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > OFFSET_MAX) {
            return Err(nfsstat3::NFS3ERR_FBIG);
        }
        // Read before the write: if the verifier changes meanwhile, the client's COMMIT shows it another one.
        let verifier = cx.door.calls.verifier();
        let (inode, count) = (handle.inode, data.len() as u32);
        let Reply::Written { changed, .. } = cx.mutate(Mutation::Write { inode, offset, data }).await? else {
            return Err(nfsstat3::NFS3ERR_SERVERFAULT);
        };
        let committed = settle(cx, inode, stable, verifier).await?;
        Ok(WRITE3resok {
            file_wcc: convert::changed(&changed, cx.door.handles.filesystem(handle.tree)),
            count,
            committed,
            verf: writeverf3(verifier.to_be_bytes()),
        })
    };
    Ok(Results::of(result.await, 2))
}

/// Makes a write as stable as was asked; says how stable it is.
async fn settle(cx: &Context<'_>, inode: Inode, stable: stable_how, verifier: u64) -> Result<stable_how, nfsstat3> {
    if cx.door.calls.is_durable() {
        return Ok(stable_how::FILE_SYNC);
    }
    if stable != stable_how::UNSTABLE {
        cx.commit(inode).await?;
        if cx.door.calls.verifier() != verifier {
            // The data may have been lost between the write and the commit.
            return Err(nfsstat3::NFS3ERR_JUKEBOX);
        }
    }
    Ok(stable)
}

pub async fn commit(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    // Offset and count: a client may ask for a part; the whole file is committed.
    let (_, _) = (arguments.u64()?, arguments.u32()?);
    arguments.end()?;
    let result = async {
        let handle = cx.object(&handle).await?;
        cx.commit(handle.inode).await?;
        // Read after the commit: writes lost before it must not look committed.
        let verifier = cx.door.calls.verifier();
        let attributes = cx.attributes(handle.inode).await?;
        Ok(COMMIT3resok {
            file_wcc: wcc_data {
                before: Nfs3Option::None,
                after: convert::after(&attributes, cx.door.handles.filesystem(handle.tree)),
            },
            verf: writeverf3(verifier.to_be_bytes()),
        })
    };
    Ok(Results::of(result.await, 2))
}
