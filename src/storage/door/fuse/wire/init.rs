//! What is agreed with the kernel when a mount begins. Pure.

use super::abi::{self, InitIn, InitOut, feature};
use crate::storage::call::DATA_MAX;

/// Requests that the kernel may have open which no process waits for (read-ahead, releases).
const BACKGROUND: u16 = 64;

/// All that is wanted, where the kernel has it. Not the write-back cache: another node would see half a file.
const WANTED: u64 = feature::ASYNC_READ
    | feature::POSIX_LOCKS
    | feature::BIG_WRITES
    | feature::FLOCK_LOCKS
    | feature::AUTO_INVALIDATE
    | feature::READDIRPLUS
    | feature::ASYNC_DIRECT
    | feature::PARALLEL_LOOKUPS
    | feature::ABORT_ERROR
    | feature::MAX_PAGES
    | feature::CACHE_LINKS
    | feature::INIT_EXTENDED
    | feature::DIRECT_MMAP
    | feature::RESEND;

/// What cannot be done without: locks that hold on all nodes.
const NEEDED: u64 = feature::POSIX_LOCKS | feature::FLOCK_LOCKS | feature::MAX_PAGES;

/// Features of a mount, for all who serve it after one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub features: u64,
    pub minor: u32,
    /// Pages of data in the largest request.
    pub pages: u16,
}

/// As many as the storage takes at once.
pub const PAGES_MOST: u16 = 256;
const _: () = assert!(PAGES_MOST as usize * PAGE == DATA_MAX);
const PAGE: usize = 4096;

impl Agreed {
    /// The kernel hands out again what a daemon that died had read.
    pub fn resends(self) -> bool {
        self.features & feature::RESEND != 0
    }

    /// It can be told to ask for a name again.
    pub fn expires(self) -> bool {
        self.minor >= abi::MINOR_EXPIRES
    }
}

/// `pages`: for how many there is room in the pipes. `None`: this kernel is too old.
pub fn agree(asked: &InitIn, pages: u16) -> Option<(Agreed, InitOut)> {
    let offered = u64::from(asked.flags) | u64::from(asked.flags2) << 32;
    let offered = match offered & feature::INIT_EXTENDED {
        0 => u64::from(asked.flags),
        _ => offered,
    };
    let features = offered & WANTED;
    if asked.major != abi::MAJOR || asked.minor < abi::MINOR_LEAST || features & NEEDED != NEEDED {
        return None;
    }
    let minor = asked.minor.min(abi::MINOR);
    // With a kernel that hands out again they are not used.
    let pages = match features & feature::RESEND {
        0 => pages.min(PAGES_MOST),
        _ => PAGES_MOST,
    };
    let largest = u32::from(pages) * u32::try_from(PAGE).expect("4096");
    let answer = InitOut {
        major: abi::MAJOR,
        minor,
        max_readahead: asked.max_readahead.min(largest),
        flags: half(features),
        max_background: BACKGROUND,
        congestion_threshold: BACKGROUND / 4 * 3,
        max_write: largest,
        time_granularity: 1,
        max_pages: pages,
        flags2: half(features >> 32),
        ..InitOut::default()
    };
    let agreed = Agreed { features, minor, pages };
    Some((agreed, answer))
}

fn half(features: u64) -> u32 {
    u32::try_from(features & u64::from(u32::MAX)).expect("32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(minor: u32, features: u64) -> InitIn {
        InitIn {
            major: 7,
            minor,
            max_readahead: 1 << 17,
            flags: half(features),
            flags2: half(features >> 32),
            ..InitIn::default()
        }
    }

    #[test]
    fn only_what_both_have_is_agreed() {
        let (agreed, answer) = agree(&asked(45, u64::MAX), 255).unwrap();
        assert_eq!((answer.max_pages, answer.max_write, agreed.pages), (256, 1 << 20, 256));
        assert_eq!((agreed.features, answer.minor), (WANTED, abi::MINOR));
        assert!(agreed.resends());
        assert_eq!(answer.flags2, half(WANTED >> 32));
        // Linux 6.1: 7.37, nothing of RESEND.
        let (agreed, _) = agree(&asked(37, WANTED & !feature::RESEND), 511).unwrap();
        assert_eq!(agreed.pages, PAGES_MOST);
        let (_, answer) = agree(&asked(37, WANTED & !feature::RESEND), 255).unwrap();
        assert_eq!((answer.max_pages, answer.max_write), (255, 255 * 4096));
        assert!(!agreed.resends());
    }

    #[test]
    fn the_upper_half_counts_only_where_it_is_announced() {
        let (agreed, _) = agree(&asked(36, !feature::INIT_EXTENDED), PAGES_MOST).unwrap();
        assert!(!agreed.resends());
    }

    #[test]
    fn a_kernel_without_locks_or_too_old_is_refused() {
        assert!(agree(&asked(30, u64::MAX), PAGES_MOST).is_none());
        assert!(agree(&asked(38, !feature::FLOCK_LOCKS), PAGES_MOST).is_none());
    }
}
