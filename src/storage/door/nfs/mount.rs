//! MOUNT version 3 (RFC 1813 §5), on NFS's own port. No list of mounts is kept, for it could only be wrong: DUMP is empty.

use nfs3_types::mount::{dirpath, export_node, exports, fhandle3, mountlist, mountres3, mountres3_ok, mountstat3};
use nfs3_types::rpc::auth_flavor;
use nfs3_types::xdr_codec::{List, Opaque, Pack};

use super::convert::STRING_MAX;
use super::dispatch::{Context, Peer, Results};
use super::handle::{Handle, Tree};
use super::xdr::{Garbage, Reader, pack};

pub(super) async fn procedure(
    cx: &Context<'_>,
    number: u32,
    mut arguments: Reader,
) -> Result<Option<Results>, Garbage> {
    match number {
        0 => arguments.end()?,
        1 => {
            let path = arguments.opaque(STRING_MAX)?;
            arguments.end()?;
            return Ok(Some(packed(&mount(cx, &path).await)));
        }
        2 => {
            arguments.end()?;
            return Ok(Some(packed(&mountlist::default())));
        }
        3 => {
            arguments.opaque(STRING_MAX)?;
            arguments.end()?;
        }
        4 => arguments.end()?,
        5 => {
            arguments.end()?;
            return Ok(Some(packed(&exported(cx.peer))));
        }
        _ => return Ok(None),
    }
    Ok(Some(Results::default()))
}

fn packed(value: &impl Pack) -> Results {
    let mut results = Results::default();
    pack(value, &mut results.head);
    results
}

/// Paths must match to the letter. The registry is there for the unix socket only.
async fn mount(cx: &Context<'_>, path: &[u8]) -> mountres3<'static> {
    let Some(tree) = Tree::ALL.into_iter().find(|tree| tree.path().as_bytes() == path) else {
        return mountres3::Err(mountstat3::MNT3ERR_NOENT);
    };
    if !cx.peer.may_use(tree) {
        return mountres3::Err(mountstat3::MNT3ERR_ACCES);
    }
    let Ok(root) = cx.attributes(tree.root()).await else {
        return mountres3::Err(mountstat3::MNT3ERR_IO);
    };
    let handle = cx.door.handles.encode(Handle::of(tree, &root));
    mountres3::Ok(mountres3_ok {
        fhandle: fhandle3(handle.data),
        auth_flavors: vec![auth_flavor::AUTH_UNIX as u32],
    })
}

fn exported(peer: &Peer) -> exports<'static, 'static> {
    let trees = Tree::ALL.into_iter().filter(|tree| peer.may_use(*tree));
    let node = |tree: Tree| export_node {
        ex_dir: dirpath(Opaque::borrowed(tree.path().as_bytes())),
        // No groups: everyone who may connect.
        ex_groups: List::default(),
    };
    List(trees.map(node).collect())
}
