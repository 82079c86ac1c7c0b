//! Between the types of calls and those of NFSv3 (RFC 1813 §2.5, §2.6). Pure.

use nfs3_types::nfs3::{Nfs3Option, fattr3, ftype3, nfsstat3, nfstime3, post_op_attr, specdata3, wcc_attr, wcc_data};

use super::xdr::{Garbage, Reader};
use crate::storage::call::{Attributes, Change, Changed, Error, Kind, NAME_MAX, SetTime, TARGET_MAX, Time};

/// Longest name or path that is decoded at all, so that a too long one gets its NFS error; MNTPATHLEN is 1024.
pub const STRING_MAX: usize = 8192;

/// Largest offset and size: what fits a client's `off_t`.
pub const OFFSET_MAX: u64 = i64::MAX as u64;

const NANOSECONDS: u32 = 1_000_000_000;

pub fn status(error: Error) -> nfsstat3 {
    match error {
        Error::NotFound => nfsstat3::NFS3ERR_NOENT,
        Error::Access | Error::Locked => nfsstat3::NFS3ERR_ACCES,
        Error::NotOwner => nfsstat3::NFS3ERR_PERM,
        Error::Exists => nfsstat3::NFS3ERR_EXIST,
        Error::NotFolder => nfsstat3::NFS3ERR_NOTDIR,
        Error::IsFolder => nfsstat3::NFS3ERR_ISDIR,
        Error::Invalid | Error::WrongType => nfsstat3::NFS3ERR_INVAL,
        Error::TooLarge => nfsstat3::NFS3ERR_FBIG,
        Error::NoSpace => nfsstat3::NFS3ERR_NOSPC,
        Error::NameTooLong => nfsstat3::NFS3ERR_NAMETOOLONG,
        Error::NotEmpty => nfsstat3::NFS3ERR_NOTEMPTY,
        Error::Stale => nfsstat3::NFS3ERR_STALE,
        Error::TooManyLinks => nfsstat3::NFS3ERR_MLINK,
        Error::NotSync => nfsstat3::NFS3ERR_NOT_SYNC,
        Error::Io | Error::NoSession => nfsstat3::NFS3ERR_IO,
        Error::Unavailable => nfsstat3::NFS3ERR_JUKEBOX,
    }
}

/// What a name or a link's target may be.
pub fn name(bytes: &[u8]) -> Result<Vec<u8>, nfsstat3> {
    match bytes {
        [] => Err(nfsstat3::NFS3ERR_INVAL),
        _ if bytes.len() > NAME_MAX => Err(nfsstat3::NFS3ERR_NAMETOOLONG),
        _ if memchr::memchr2(b'/', 0, bytes).is_some() => Err(nfsstat3::NFS3ERR_INVAL),
        _ => Ok(bytes.to_vec()),
    }
}

pub fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// A size that a file can have.
pub fn sized(change: Change) -> Result<Change, nfsstat3> {
    match change.size {
        Some(size) if size > OFFSET_MAX => Err(nfsstat3::NFS3ERR_FBIG),
        _ => Ok(change),
    }
}

/// Target of a symbolic link.
pub fn target(bytes: &[u8]) -> Result<Vec<u8>, nfsstat3> {
    match bytes {
        [] => Err(nfsstat3::NFS3ERR_INVAL),
        _ if bytes.len() > TARGET_MAX => Err(nfsstat3::NFS3ERR_NAMETOOLONG),
        _ if bytes.contains(&0) => Err(nfsstat3::NFS3ERR_INVAL),
        _ => Ok(bytes.to_vec()),
    }
}

pub fn attributes(from: &Attributes, filesystem: u64) -> fattr3 {
    fattr3 {
        type_: kind(from.kind),
        mode: from.mode & 0o7777,
        nlink: from.links,
        uid: from.uid,
        gid: from.gid,
        size: from.size,
        used: from.used,
        rdev: specdata3 {
            specdata1: from.device.0,
            specdata2: from.device.1,
        },
        fsid: filesystem,
        fileid: from.inode.0,
        atime: time(from.accessed),
        mtime: time(from.modified),
        ctime: time(from.changed),
    }
}

pub fn after(from: &Attributes, filesystem: u64) -> post_op_attr {
    Nfs3Option::Some(attributes(from, filesystem))
}

pub fn changed(from: &Changed, filesystem: u64) -> wcc_data {
    wcc_data {
        before: Nfs3Option::Some(wcc_attr {
            size: from.before.size,
            mtime: time(from.before.modified),
            ctime: time(from.before.changed),
        }),
        after: after(&from.after, filesystem),
    }
}

/// NFSv3 counts seconds without sign, in 32 bits: times outside 1970..2106 become the nearest one.
pub fn time(from: Time) -> nfstime3 {
    let seconds = from.seconds.clamp(0, i64::from(u32::MAX));
    nfstime3 {
        seconds: u32::try_from(seconds).expect("just clamped"),
        nseconds: from.nanoseconds,
    }
}

fn kind(from: Kind) -> ftype3 {
    match from {
        Kind::File => ftype3::NF3REG,
        Kind::Folder => ftype3::NF3DIR,
        Kind::Link => ftype3::NF3LNK,
        Kind::Fifo => ftype3::NF3FIFO,
        Kind::Socket => ftype3::NF3SOCK,
        Kind::Character => ftype3::NF3CHR,
        Kind::Block => ftype3::NF3BLK,
    }
}

/// `ftype3` of a MKNOD; `None`: not one of RFC 1813.
pub fn parse_kind(word: u32) -> Option<Kind> {
    Some(match word {
        1 => Kind::File,
        2 => Kind::Folder,
        3 => Kind::Block,
        4 => Kind::Character,
        5 => Kind::Link,
        6 => Kind::Socket,
        7 => Kind::Fifo,
        _ => return None,
    })
}

/// Reads a `sattr3`.
pub fn parse_change(reader: &mut Reader) -> Result<Change, Garbage> {
    Ok(Change {
        mode: reader.optional(Reader::u32)?.map(|mode| mode & 0o7777),
        uid: reader.optional(Reader::u32)?,
        gid: reader.optional(Reader::u32)?,
        size: reader.optional(Reader::u64)?,
        accessed: parse_set_time(reader)?,
        modified: parse_set_time(reader)?,
    })
}

fn parse_set_time(reader: &mut Reader) -> Result<Option<SetTime>, Garbage> {
    Ok(match reader.u32()? {
        0 => None,
        1 => Some(SetTime::Now),
        2 => Some(SetTime::At(parse_time(reader)?)),
        _ => return Err(Garbage),
    })
}

/// Reads an `nfstime3`.
pub fn parse_time(reader: &mut Reader) -> Result<Time, Garbage> {
    let (seconds, nanoseconds) = (i64::from(reader.u32()?), reader.u32()?);
    if nanoseconds >= NANOSECONDS {
        return Err(Garbage);
    }
    Ok(Time { seconds, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_folder_can_hold_are_refused() {
        assert_eq!(name(b"a\xff"), Ok(b"a\xff".to_vec()));
        assert_eq!(name(&[b'x'; 255]).map(|name| name.len()), Ok(255));
        for (bad, error) in [
            (&b""[..], nfsstat3::NFS3ERR_INVAL),
            (b"a/b", nfsstat3::NFS3ERR_INVAL),
            (b"a\0b", nfsstat3::NFS3ERR_INVAL),
            (&[b'x'; 256], nfsstat3::NFS3ERR_NAMETOOLONG),
        ] {
            assert_eq!(name(bad), Err(error));
        }
        assert_eq!(target(b"/a/b"), Ok(b"/a/b".to_vec()));
        assert_eq!(target(&[b'x'; 4096]), Err(nfsstat3::NFS3ERR_NAMETOOLONG));
    }

    #[test]
    fn times_beyond_the_wire_become_the_nearest() {
        let at = |seconds| Time {
            seconds,
            nanoseconds: 1,
        };
        assert_eq!(time(at(-5)).seconds, 0);
        assert_eq!(time(at(1 << 40)).seconds, u32::MAX);
    }
}
