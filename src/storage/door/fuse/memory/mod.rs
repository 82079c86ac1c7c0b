//! What must outlive a storage process, in a memfd that the supervisor keeps.
//!
//! ```text
//! head      layout version, mount, what INIT agreed
//! landings  one for each reader: a request lies there first, so none is ever lost between reading and noting it
//! flights   requests that wait for the leader
//! chunks    data that the kernel gave away and the leader has not acknowledged
//! opens     how often each inode is open here
//! locks     local locks, and those that the leader granted to this node as a whole
//! ```
//! A record counts from when its first word is set, which is written last. The process that comes next does again what is noted here; the
//! leader knows each request by its number, so nothing happens twice.
//!
//! Sizes bound what one mount may have under way: 1024 calls, 128 MiB of data, 64 Ki open inodes, 8 Ki locks. Pages that were
//! never used take no memory.

mod area;
mod chunk;
mod flight;
mod rows;
mod turn;

use std::io;
use std::os::fd::OwnedFd;

pub use area::{Area, PAGE};
pub use chunk::{Chunk, Chunks, Content, Owed};
pub use flight::{Flight, Flights, LANDING, noted, strike};
pub use rows::{Full, Rows};
pub use turn::{Reading, Turn};

use super::wire::init::{Agreed, PAGES_MOST};

/// Raised with every change of the layout.
const VERSION: u64 = 0x6269_7472_6978_0001;
const HEAD: usize = area::PAGE;
/// Threads that read the device.
pub const READERS: usize = 2;
const OPENS: usize = 64 << 10;
const LOCKS: usize = 8 << 10;
/// `inode, count`, and `inode, kind, owner`.
type OpenRow = [u64; 2];
type LockRow = [u64; 3];

const LENGTH: usize = HEAD
    + READERS * LANDING
    + flight::LENGTH
    + chunk::LENGTH
    + OPENS * size_of::<OpenRow>()
    + LOCKS * size_of::<LockRow>();

/// All parts, for the door that takes over.
pub struct Memory {
    /// Another layout lay there; what it held is lost.
    pub is_foreign: bool,
    pub head: Head,
    pub landings: Vec<Area>,
    /// Whose landing the next request comes to.
    pub turn: Turn,
    pub flights: Flights,
    pub chunks: Chunks,
    pub opens: Rows<2>,
    pub locks: Rows<3>,
}

/// Which mount this is, and what was agreed for it.
pub struct Head(Area);

impl Memory {
    /// The memory as the process before left it; empty where there was none.
    pub fn open(memory: OwnedFd, mount: u64) -> io::Result<Self> {
        let mut all = Area::map(memory, LENGTH)?;
        let is_foreign = !matches!(all.u64(AT_VERSION), 0 | VERSION);
        if is_foreign {
            all.release(0);
        }
        let mut head = Head(all.cut(HEAD));
        head.claim(mount, is_foreign)?;
        let mut landings = all.cut_many(READERS, LANDING);
        landings.iter_mut().for_each(Area::touch);
        let turn = Turn::default();
        Ok(Memory {
            is_foreign,
            head,
            landings,
            turn: turn.clone(),
            flights: Flights::new(&mut all, turn.clone()),
            chunks: Chunks::new(&mut all, turn),
            opens: Rows::new(all.cut(OPENS * size_of::<OpenRow>())),
            locks: Rows::new(all.cut(LOCKS * size_of::<LockRow>())),
        })
    }
}

const AT_VERSION: usize = 0;
const AT_MOUNT: usize = 8;
const AT_MINOR: usize = 16;
const AT_FEATURES: usize = 24;
/// 0 of the versions that agreed to `PAGES_MOST` always.
const AT_PAGES: usize = 32;
/// Not 0: nothing was asked of the leader, who may hold what a mount before had. 0 of the versions that took that for this mount's.
const AT_NEW: usize = 40;

impl Head {
    /// `is_used`: the mount is not new, though nothing is known of it.
    fn claim(&mut self, mount: u64, is_used: bool) -> io::Result<()> {
        match (self.0.u64(AT_VERSION), self.0.u64(AT_MOUNT)) {
            (0, _) => {
                self.0.set_u64(AT_NEW, u64::from(!is_used));
                self.0.set_u64(AT_MOUNT, mount);
                self.0.set_u64(AT_VERSION, VERSION);
                Ok(())
            }
            (_, known) if known == mount => Ok(()),
            (_, other) => Err(io::Error::other(format!(
                "the memory of mount {other:x}, not {mount:x}"
            ))),
        }
    }

    pub fn is_new(&self) -> bool {
        self.0.u64(AT_NEW) != 0
    }

    /// Before anything is asked of the leader.
    pub fn begin(&mut self) {
        self.0.set_u64(AT_NEW, 0);
    }

    /// `None`: the kernel has not asked yet.
    pub fn agreed(&self) -> Option<Agreed> {
        let minor = u32::try_from(self.0.u64(AT_MINOR)).ok().filter(|minor| *minor > 0)?;
        Some(Agreed {
            minor,
            features: self.0.u64(AT_FEATURES),
            pages: match self.0.u64(AT_PAGES) {
                0 => PAGES_MOST,
                pages => u16::try_from(pages).unwrap_or(PAGES_MOST),
            },
        })
    }

    /// Before the kernel hears of it.
    pub fn agree(&mut self, agreed: Agreed) {
        self.0.set_u64(AT_FEATURES, agreed.features);
        self.0.set_u64(AT_PAGES, u64::from(agreed.pages));
        self.0.set_u64(AT_MINOR, u64::from(agreed.minor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    #[test]
    fn a_mount_is_new_until_it_has_begun_and_never_where_notes_were_lost() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let open = || Memory::open(memory.try_clone().unwrap(), 7).unwrap();
        assert!(open().head.is_new());
        let mut second = open();
        assert!(second.head.is_new(), "the process before did not come to it");
        second.head.begin();
        assert!(!open().head.is_new());
        nix::sys::uio::pwrite(&memory, &u64::MAX.to_ne_bytes(), 0).unwrap();
        let foreign = open();
        assert!(foreign.is_foreign && !foreign.head.is_new());
    }

    #[test]
    fn the_next_process_knows_what_was_agreed_and_another_mount_is_refused() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let agreed = Agreed {
            features: 5 << 32,
            minor: 38,
            pages: 255,
        };
        let mut first = Memory::open(memory.try_clone().unwrap(), 7).unwrap();
        assert_eq!(first.head.agreed(), None);
        first.head.agree(agreed);
        drop(first);
        assert!(Memory::open(memory.try_clone().unwrap(), 8).is_err());
        assert_eq!(Memory::open(memory, 7).unwrap().head.agreed(), Some(agreed));
    }
}
