//! Structures of the kernel's FUSE protocol, version 7.31 and later, as they lie in memory (include/uapi/linux/fuse.h).
//! All fields are of this machine's byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $(pub $field: $kind),* }
    )*};
}

structures! {
    /// Before each request.
    InHeader { len: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32, extensions: u16, padding: u16 }
    /// Before each answer and notification.
    OutHeader { len: u32, error: i32, unique: u64 }
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_granularity: u32, max_pages: u16, map_alignment: u16, flags2: u32, unused: [u32; 7],
    }
    Attributes {
        ino: u64, size: u64, blocks: u64, accessed: u64, modified: u64, changed: u64, accessed_nanos: u32,
        modified_nanos: u32, changed_nanos: u32, mode: u32, links: u32, uid: u32, gid: u32, device: u32, block_size: u32, flags: u32,
    }
    EntryOut {
        node: u64, generation: u64, entry_valid: u64, attributes_valid: u64, entry_valid_nanos: u32,
        attributes_valid_nanos: u32, attributes: Attributes,
    }
    AttributesOut { valid: u64, valid_nanos: u32, padding: u32, attributes: Attributes }
    SetAttributesIn {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64, accessed: u64, modified: u64, changed: u64,
        accessed_nanos: u32, modified_nanos: u32, changed_nanos: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    MakeNodeIn { mode: u32, device: u32, umask: u32, padding: u32 }
    MakeFolderIn { mode: u32, umask: u32 }
    RenameIn { folder: u64 }
    Rename2In { folder: u64, flags: u32, padding: u32 }
    LinkIn { node: u64 }
    OpenIn { flags: u32, open_flags: u32 }
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    OpenOut { handle: u64, open_flags: u32, padding: u32 }
    ReleaseIn { handle: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    FlushIn { handle: u64, unused: u32, padding: u32, lock_owner: u64 }
    ReadIn { handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteIn { handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteOut { size: u32, padding: u32 }
    StatFsOut {
        blocks: u64, free: u64, available: u64, files: u64, free_files: u64, block_size: u32, name_max: u32,
        fragment_size: u32, padding: u32, spare: [u32; 6],
    }
    LockIn { handle: u64, owner: u64, start: u64, end: u64, kind: u32, pid: u32, flags: u32, padding: u32 }
    LockOut { start: u64, end: u64, kind: u32, pid: u32 }
    InterruptIn { unique: u64 }
    EntryHead { ino: u64, offset: u64, name_length: u32, kind: u32 }
    InvalidInode { ino: u64, offset: i64, length: i64 }
    InvalidEntry { folder: u64, name_length: u32, flags: u32 }
}

/// The protocol's version that is spoken here.
pub const MAJOR: u32 = 7;
pub const MINOR: u32 = 39;
/// The first with all that is used here: Linux 5.4.
pub const MINOR_LEAST: u32 = 31;
/// Since this one (Linux 6.2) a name can be told to be asked for again.
pub const MINOR_EXPIRES: u32 = 38;

/// Set by the kernel in the number of a request that it hands out again.
pub const RESENT: u64 = 1 << 63;

/// What a request asks (`enum fuse_opcode`).
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
}

/// Which fields of SETATTR count.
pub mod set {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ACCESSED: u32 = 1 << 4;
    pub const MODIFIED: u32 = 1 << 5;
    pub const ACCESSED_NOW: u32 = 1 << 7;
    pub const MODIFIED_NOW: u32 = 1 << 8;
}

/// How the kernel treats an open file.
pub mod open {
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const NO_FLUSH: u32 = 1 << 5;
}

/// A WRITE of what lies in the kernel's cache, on nobody's behalf.
pub const WRITE_OF_PAGES: u32 = 1 << 0;
/// This release also ends the flock of its owner.
pub const RELEASE_FLOCK: u32 = 1 << 1;
/// A lock of the flock family, not of fcntl.
pub const LOCK_FLOCK: u32 = 1 << 0;

/// Numbers of notifications (`enum fuse_notify_code`).
pub mod notify {
    pub const INVALID_INODE: i32 = 2;
    pub const INVALID_ENTRY: i32 = 3;
    pub const RESEND: i32 = 7;
    /// Flag of INVALID_ENTRY.
    pub const EXPIRE_ONLY: u32 = 1 << 0;
}

/// What INIT negotiates; the upper half travels in `flags2`.
pub mod feature {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const AUTO_INVALIDATE: u64 = 1 << 12;
    pub const READDIRPLUS: u64 = 1 << 13;
    pub const ASYNC_DIRECT: u64 = 1 << 15;
    pub const PARALLEL_LOOKUPS: u64 = 1 << 18;
    pub const ABORT_ERROR: u64 = 1 << 21;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_LINKS: u64 = 1 << 23;
    pub const INIT_EXTENDED: u64 = 1 << 30;
    pub const DIRECT_MMAP: u64 = 1 << 36;
    pub const RESEND: u64 = 1 << 39;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        let sizes = [
            (size_of::<InHeader>(), 40),
            (size_of::<OutHeader>(), 16),
            (size_of::<InitIn>(), 64),
            (size_of::<InitOut>(), 64),
            (size_of::<Attributes>(), 88),
            (size_of::<EntryOut>(), 128),
            (size_of::<AttributesOut>(), 104),
            (size_of::<SetAttributesIn>(), 88),
            (size_of::<ReadIn>(), 40),
            (size_of::<WriteIn>(), 40),
            (size_of::<StatFsOut>(), 80),
            (size_of::<LockIn>(), 48),
            (size_of::<EntryHead>(), 24),
        ];
        for (size, wanted) in sizes {
            assert_eq!(size, wanted);
        }
    }
}
