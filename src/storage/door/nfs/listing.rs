//! READDIR and READDIRPLUS (RFC 1813 §3.3.16–17).
//!
//! Cookies on the wire: 0 is the start, 1 stands behind `.`, 2 behind `..`, and an entry's own cookie plus 2 behind it.
//! They stay valid while the folder changes, so the cookie verifier is always zero and never compared.

use nfs3_types::nfs3::{
    READDIR3resok, READDIRPLUS3resok, cookieverf3, dirlist3, dirlistplus3, entry3, entryplus3, filename3, nfsstat3,
    post_op_attr, post_op_fh3,
};
use nfs3_types::xdr_codec::{BoundedList, Opaque, Pack};

use super::convert::{self, OFFSET_MAX};
use super::dispatch::{Context, Results, parse_handle};
use super::handle::Handle;
use super::xdr::{Garbage, Reader};
use crate::storage::call::{Attributes, DATA_MAX, Entry, Kind, Query, Reply};

const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// An `entry3` in XDR without its name: the flag that it follows, its id and its cookie.
const ENTRY: u32 = 4 + 8 + 8;
/// The smallest `entry3` and `entryplus3`, with a name of up to four bytes: how many entries can fit at all.
const ENTRY_MIN: u32 = ENTRY + 8;
const ENTRY_PLUS_MIN: u32 = ENTRY_MIN + 88 + 40;
/// The flag that ends the list of entries.
const LIST_END: usize = 4;

/// A part of a folder's list, before it is cut to size.
struct Page {
    folder: Attributes,
    handle: Handle,
    entries: Vec<Entry>,
    is_end: bool,
}

pub async fn names(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    let (cookie, _verifier, count) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
    arguments.end()?;
    let result = async {
        let count = count.min(DATA_MAX as u32);
        let page = cx.page(&handle, cookie, count / ENTRY_MIN).await?;
        let dir_attributes = convert::after(&page.folder, cx.door.handles.filesystem(page.handle.tree));
        let mut list = list(&dir_attributes, count)?;
        let mut is_whole = true;
        for entry in &page.entries {
            let entry = entry3 {
                fileid: entry.inode.0,
                name: filename3(Opaque::borrowed(&entry.name)),
                cookie: entry.cookie,
            };
            is_whole = list.try_push(entry).is_ok();
            if !is_whole {
                break;
            }
        }
        let entries = list.into_inner();
        if entries.is_empty() && !is_whole {
            return Err(nfsstat3::NFS3ERR_TOOSMALL);
        }
        let eof = is_whole && page.is_end;
        let reply = READDIR3resok {
            dir_attributes,
            cookieverf: cookieverf3::default(),
            reply: dirlist3 { entries, eof },
        };
        Ok(Results::of(Ok(reply), 1))
    };
    Ok(result
        .await
        .unwrap_or_else(|status| Results::of(Err::<u32, _>(status), 1)))
}

pub async fn plus(cx: &Context<'_>, mut arguments: Reader) -> Result<Results, Garbage> {
    let handle = parse_handle(&mut arguments)?;
    let (cookie, _verifier) = (arguments.u64()?, arguments.u64()?);
    let (names_max, count) = (arguments.u32()?, arguments.u32()?);
    arguments.end()?;
    let result = async {
        let count = count.min(DATA_MAX as u32);
        let limit = (count / ENTRY_PLUS_MIN).min(names_max / ENTRY_MIN + 1);
        let page = cx.page(&handle, cookie, limit).await?;
        let filesystem = cx.door.handles.filesystem(page.handle.tree);
        let dir_attributes = convert::after(&page.folder, filesystem);
        let mut list = list(&dir_attributes, count)?;
        let (mut names_size, mut is_whole) = (0, true);
        for (index, entry) in page.entries.iter().enumerate() {
            let name = filename3(Opaque::borrowed(&entry.name));
            names_size += ENTRY as usize + name.packed_size();
            let handle = Handle::of(page.handle.tree, &entry.attributes);
            let entry = entryplus3 {
                fileid: entry.inode.0,
                name,
                cookie: entry.cookie,
                name_attributes: convert::after(&entry.attributes, filesystem),
                name_handle: post_op_fh3::Some(cx.door.handles.encode(handle)),
            };
            // `dircount` is the client's hint of how many names it wants: one always goes.
            is_whole = (index == 0 || names_size <= names_max as usize) && list.try_push(entry).is_ok();
            if !is_whole {
                break;
            }
        }
        let entries = list.into_inner();
        if entries.is_empty() && !is_whole {
            return Err(nfsstat3::NFS3ERR_TOOSMALL);
        }
        let eof = is_whole && page.is_end;
        let reply = READDIRPLUS3resok {
            dir_attributes,
            cookieverf: cookieverf3::default(),
            reply: dirlistplus3 { entries, eof },
        };
        Ok(Results::of(Ok(reply), 1))
    };
    Ok(result
        .await
        .unwrap_or_else(|status| Results::of(Err::<u32, _>(status), 1)))
}

/// A list of entries that, with all that stands around it, takes `count` bytes at most.
fn list<T: Pack>(folder: &post_op_attr, count: u32) -> Result<BoundedList<T>, nfsstat3> {
    let around = folder.packed_size() + cookieverf3::default().packed_size() + false.packed_size();
    match (count as usize).checked_sub(around) {
        Some(room) if room >= LIST_END => Ok(BoundedList::new(room)),
        _ => Err(nfsstat3::NFS3ERR_TOOSMALL),
    }
}

impl Context<'_> {
    /// Up to about `limit` entries after `cookie`, with cookies as on the wire.
    async fn page(&self, handle: &bytes::Bytes, cookie: u64, limit: u32) -> Result<Page, nfsstat3> {
        let handle = self.object(handle).await?;
        if cookie > OFFSET_MAX {
            return Err(nfsstat3::NFS3ERR_BAD_COOKIE);
        }
        let query = Query::List {
            folder: handle.inode,
            cookie: cookie.saturating_sub(DOT_DOT),
            limit: limit.max(1),
        };
        let Reply::List {
            entries: found,
            is_end,
            folder,
        } = self.query(query).await?
        else {
            return Err(nfsstat3::NFS3ERR_SERVERFAULT);
        };
        let mut entries = Vec::with_capacity(found.len() + 2);
        if cookie < DOT {
            entries.push(entry(b".", &folder, DOT));
        }
        if cookie < DOT_DOT {
            entries.push(entry(b"..", &self.parent(&folder).await, DOT_DOT));
        }
        for mut entry in found {
            entry.cookie = entry.cookie.checked_add(DOT_DOT).ok_or(nfsstat3::NFS3ERR_SERVERFAULT)?;
            entries.push(entry);
        }
        Ok(Page {
            folder,
            handle,
            entries,
            is_end,
        })
    }

    /// The folder above; the folder itself where the caller may not search it.
    async fn parent(&self, folder: &Attributes) -> Attributes {
        let query = Query::Lookup {
            folder: folder.inode,
            name: b"..".to_vec(),
        };
        match self.query(query).await {
            Ok(Reply::Object { attributes, .. }) if attributes.kind == Kind::Folder => attributes,
            _ => folder.clone(),
        }
    }
}

fn entry(name: &[u8], attributes: &Attributes, cookie: u64) -> Entry {
    Entry {
        name: name.to_vec(),
        inode: attributes.inode,
        cookie,
        attributes: attributes.clone(),
    }
}
