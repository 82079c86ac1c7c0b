//! The door's values as the kernel wants them, and back. Pure.

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::wire::abi::{self, set};
use crate::storage::call::{Attributes, Change, Error, Kind, SetTime, Time};

/// How long the kernel may answer from what it was told. What was promised is recalled when it is true no longer. Nothing is promised
/// with a listing, nor with the answer to a change: of those the time alone bounds how old they can be.
pub const PROMISED: Duration = Duration::from_secs(3);
pub const UNPROMISED: Duration = Duration::from_secs(1);

pub fn attributes(of: &Attributes) -> abi::Attributes {
    let seconds = |time: Time| time.seconds.cast_unsigned();
    abi::Attributes {
        ino: of.inode.0,
        size: of.size,
        blocks: of.used.div_ceil(512),
        accessed: seconds(of.accessed),
        modified: seconds(of.modified),
        changed: seconds(of.changed),
        accessed_nanos: of.accessed.nanoseconds,
        modified_nanos: of.modified.nanoseconds,
        changed_nanos: of.changed.nanoseconds,
        mode: of.mode | file_type(of.kind),
        links: of.links,
        uid: of.uid,
        gid: of.gid,
        device: device(of.device),
        block_size: 4096,
        flags: 0,
    }
}

pub fn entry(of: &Attributes, valid: Duration) -> abi::EntryOut {
    abi::EntryOut {
        node: of.inode.0,
        generation: u64::from(of.generation),
        entry_valid: valid.as_secs(),
        attributes_valid: valid.as_secs(),
        entry_valid_nanos: valid.subsec_nanos(),
        attributes_valid_nanos: valid.subsec_nanos(),
        attributes: attributes(of),
    }
}

/// That there is no such name.
pub fn absence(valid: Duration) -> abi::EntryOut {
    abi::EntryOut {
        entry_valid: valid.as_secs(),
        entry_valid_nanos: valid.subsec_nanos(),
        ..abi::EntryOut::default()
    }
}

pub fn attributes_for(of: &Attributes, valid: Duration) -> abi::AttributesOut {
    abi::AttributesOut {
        valid: valid.as_secs(),
        valid_nanos: valid.subsec_nanos(),
        padding: 0,
        attributes: attributes(of),
    }
}

fn file_type(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Folder => libc::S_IFDIR,
        Kind::Link => libc::S_IFLNK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
        Kind::Character => libc::S_IFCHR,
        Kind::Block => libc::S_IFBLK,
    }
}

/// As entries of a folder have it (`d_type`).
pub fn entry_type(kind: Kind) -> u32 {
    file_type(kind) >> 12
}

/// `None`: not a type of file.
pub fn kind(mode: u32) -> Option<Kind> {
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Kind::File,
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFCHR => Kind::Character,
        libc::S_IFBLK => Kind::Block,
        _ => return None,
    })
}

/// Twelve bits of the major number between the lowest eight and the rest of the minor one.
fn device((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

pub fn device_numbers(device: u32) -> (u32, u32) {
    ((device >> 8) & 0xfff, device & 0xff | (device >> 12) & 0xfff00)
}

pub fn change(of: &abi::SetAttributesIn) -> Change {
    let given = |bit: u32, value: u32| (of.valid & bit != 0).then_some(value);
    let time = |bit: u32, now: u32, seconds: u64, nanoseconds: u32| {
        let at = SetTime::At(Time {
            seconds: seconds.cast_signed(),
            nanoseconds,
        });
        (of.valid & bit != 0).then_some(if of.valid & now != 0 { SetTime::Now } else { at })
    };
    Change {
        mode: given(set::MODE, of.mode & 0o7777),
        uid: given(set::UID, of.uid),
        gid: given(set::GID, of.gid),
        size: (of.valid & set::SIZE != 0).then_some(of.size),
        accessed: time(set::ACCESSED, set::ACCESSED_NOW, of.accessed, of.accessed_nanos),
        modified: time(set::MODIFIED, set::MODIFIED_NOW, of.modified, of.modified_nanos),
    }
}

pub fn errno(error: Error) -> i32 {
    (match error {
        Error::NotFound => Errno::ENOENT,
        Error::Access => Errno::EACCES,
        Error::NotOwner => Errno::EPERM,
        Error::Exists => Errno::EEXIST,
        Error::NotFolder => Errno::ENOTDIR,
        Error::IsFolder => Errno::EISDIR,
        Error::Invalid | Error::WrongType => Errno::EINVAL,
        Error::TooLarge => Errno::EFBIG,
        Error::NoSpace => Errno::ENOSPC,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::Stale => Errno::ESTALE,
        Error::TooManyLinks => Errno::EMLINK,
        Error::Locked | Error::NotSync | Error::Unavailable => Errno::EAGAIN,
        Error::Io | Error::NoSession => Errno::EIO,
    }) as i32
}

/// The part of a lock's range that the kernel names by its last byte, up to the end of all files.
pub fn range(start: u64, last: u64) -> (u64, u64) {
    let end = if last >= i64::MAX.cast_unsigned() {
        u64::MAX
    } else {
        last + 1
    };
    (start, end)
}

/// The inverse of `range`.
pub fn last_byte(end: u64) -> u64 {
    if end == u64::MAX {
        i64::MAX.cast_unsigned()
    } else {
        end.saturating_sub(1)
    }
}

/// Version of an inode's contents: what the kernel has of them is true while it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    changed: Time,
    size: u64,
}

impl Version {
    pub fn of(attributes: &Attributes) -> Self {
        Version {
            changed: attributes.changed,
            size: attributes.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        for numbers in [(0, 0), (8, 1), (259, 70_000), (0xfff, 0xfffff)] {
            assert_eq!(device_numbers(device(numbers)), numbers);
        }
    }

    #[test]
    fn a_lock_to_the_end_of_all_files_has_no_end() {
        assert_eq!(range(5, i64::MAX.cast_unsigned()), (5, u64::MAX));
        assert_eq!(range(5, 9), (5, 10));
        assert_eq!((last_byte(10), last_byte(u64::MAX)), (9, i64::MAX.cast_unsigned()));
    }

    #[test]
    fn only_what_is_marked_is_set() {
        let of = abi::SetAttributesIn {
            valid: set::MODE | set::SIZE | set::MODIFIED | set::MODIFIED_NOW | set::ACCESSED,
            mode: 0o100_640,
            size: 9,
            uid: 4,
            accessed: 7,
            accessed_nanos: 8,
            ..abi::SetAttributesIn::default()
        };
        let change = change(&of);
        assert_eq!((change.mode, change.size, change.uid), (Some(0o640), Some(9), None));
        assert_eq!(change.modified, Some(SetTime::Now));
        let at = Time {
            seconds: 7,
            nanoseconds: 8,
        };
        assert_eq!(change.accessed, Some(SetTime::At(at)));
    }
}
