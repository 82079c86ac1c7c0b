//! The file verbs that all doors speak, and their answers. Richer than NFSv3: server-side append, open and close,
//! flock and fcntl locks. Attributes come with every reply. No I/O and no wire format here.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Identity of a file, folder or link. Given once, never reused; handles derive from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Inode(pub u64);

/// Root of the tree that PHP sees, and of the one that the agent's registry lies in.
pub const PORTAL: Inode = Inode(1);
pub const REGISTRY: Inode = Inode(2);

/// Longest name in bytes (NAME_MAX) and longest target of a symbolic link (PATH_MAX).
pub const NAME_MAX: usize = 255;
pub const TARGET_MAX: usize = 4095;
/// Largest READ and WRITE.
pub const DATA_MAX: usize = 1 << 20;

/// Who asks. Permissions are checked against this where the call is executed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Seconds and nanoseconds since 1970, chosen by the leader or given by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    File,
    Folder,
    Link,
    Fifo,
    Socket,
    Character,
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub inode: Inode,
    pub generation: u32,
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky: 0o7777.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Bytes on disk.
    pub used: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    pub accessed: Time,
    pub modified: Time,
    pub changed: Time,
}

/// What SETATTR and creation may set; `None` leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<SetTime>,
    pub modified: Option<SetTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The leader's clock.
    Now,
    At(Time),
}

/// How a file is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Creation {
    /// Take a file that is there.
    Unchecked,
    /// Fail if the name is there.
    Guarded,
    /// As guarded, but a repetition with the same verifier succeeds (RFC 1813 §3.3.8).
    Exclusive(u64),
}

/// Calls that change nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    Attributes {
        inode: Inode,
    },
    Lookup {
        folder: Inode,
        name: Vec<u8>,
    },
    /// Which of these permission bits (4 read, 2 write, 1 execute or search) the caller has.
    Access {
        inode: Inode,
        wanted: u32,
    },
    ReadLink {
        inode: Inode,
    },
    Read {
        inode: Inode,
        offset: u64,
        count: u32,
    },
    /// Entries after `cookie` (0: from the start), in an order that stays the same while the folder changes.
    List {
        folder: Inode,
        cookie: u64,
        limit: u32,
    },
    Space {
        inode: Inode,
    },
    /// Would this lock be granted? Answers who stands in the way.
    TestLock {
        inode: Inode,
        lock: Lock,
    },
}

/// Calls that change something; each becomes one operation of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    /// `guard`: only if the change time is still this one.
    Set {
        inode: Inode,
        change: Change,
        guard: Option<Time>,
    },
    Write {
        inode: Inode,
        offset: u64,
        data: Bytes,
    },
    /// Writes at the end as it is when the operation is applied.
    Append {
        inode: Inode,
        data: Bytes,
    },
    Create {
        folder: Inode,
        name: Vec<u8>,
        how: Creation,
        change: Change,
    },
    MakeFolder {
        folder: Inode,
        name: Vec<u8>,
        change: Change,
    },
    MakeLink {
        folder: Inode,
        name: Vec<u8>,
        target: Vec<u8>,
        change: Change,
    },
    MakeNode {
        folder: Inode,
        name: Vec<u8>,
        kind: Kind,
        device: (u32, u32),
        change: Change,
    },
    Remove {
        folder: Inode,
        name: Vec<u8>,
    },
    RemoveFolder {
        folder: Inode,
        name: Vec<u8>,
    },
    Rename {
        from: Inode,
        name: Vec<u8>,
        to: Inode,
        new_name: Vec<u8>,
    },
    Link {
        inode: Inode,
        folder: Inode,
        name: Vec<u8>,
    },
    /// The session holds the inode open: unlinked, it lives until it is closed or the session ends.
    Open {
        inode: Inode,
    },
    Close {
        inode: Inode,
    },
    /// Granted at once or refused; waiting is the door's.
    Lock {
        inode: Inode,
        lock: Lock,
    },
    Unlock {
        inode: Inode,
        lock: Lock,
    },
}

/// Kept apart: a flock never meets an fcntl lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockFamily {
    Flock,
    Fcntl,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lock {
    pub family: LockFamily,
    /// Told apart within the session.
    pub owner: u64,
    pub is_exclusive: bool,
    pub start: u64,
    /// Exclusive; `u64::MAX`: to the end, however far that moves.
    pub end: u64,
    /// Process that asked, for TestLock.
    pub pid: u32,
}

/// One name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: Vec<u8>,
    pub inode: Inode,
    /// Where a listing goes on after this entry.
    pub cookie: u64,
    pub attributes: Attributes,
}

/// Attributes of an object before and after, for weak cache consistency (RFC 1813 §2.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub before: Attributes,
    pub after: Attributes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub total_inodes: u64,
    pub free_inodes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Attributes(Attributes),
    /// Found or made; `folder` as it is now, and as it was where the call changed it.
    Object {
        attributes: Attributes,
        folder: Option<Changed>,
    },
    Access(u32),
    Target(Vec<u8>),
    Data {
        data: Bytes,
        is_end: bool,
        attributes: Attributes,
    },
    List {
        entries: Vec<Entry>,
        is_end: bool,
        folder: Attributes,
    },
    Space(Space),
    Set(Changed),
    /// Where the data went.
    Written {
        offset: u64,
        changed: Changed,
    },
    Removed {
        folder: Changed,
    },
    Renamed {
        from: Changed,
        to: Changed,
    },
    Linked {
        attributes: Attributes,
        folder: Changed,
    },
    /// `None`: it would be granted.
    Holder(Option<Lock>),
    /// The session's calls are numbered from here on.
    Begun {
        next: u64,
    },
    Done,
}

/// What a call can fail with; each door maps it to its own codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("no such file or folder")]
    NotFound,
    #[error("permission denied")]
    Access,
    #[error("not the owner")]
    NotOwner,
    #[error("the name exists")]
    Exists,
    #[error("not a folder")]
    NotFolder,
    #[error("is a folder")]
    IsFolder,
    #[error("invalid argument")]
    Invalid,
    #[error("file too large")]
    TooLarge,
    #[error("no space left")]
    NoSpace,
    #[error("the name is too long")]
    NameTooLong,
    #[error("the folder is not empty")]
    NotEmpty,
    #[error("the handle is of a file that is gone")]
    Stale,
    #[error("too many links")]
    TooManyLinks,
    #[error("the object has changed")]
    NotSync,
    #[error("not for this type of file")]
    WrongType,
    #[error("a lock stands in the way")]
    Locked,
    #[error("input or output failed")]
    Io,
    /// The leader does not know the session: it was silent for too long, or another took its place.
    #[error("the session is over")]
    NoSession,
    /// No leader or no quorum now; the door tries again until its own deadline.
    #[error("no leader")]
    Unavailable,
}
