//! What the machine has.

use std::path::Path;

use crate::config::Config;

/// <linux/capability.h>
const CAP_SYS_ADMIN: u32 = 21;

/// Bytes of memory that this machine or container has.
pub fn memory() -> u64 {
    let total = nix::sys::sysinfo::sysinfo().map_or(1 << 30, |info| info.ram_total());
    // A container sees the host's memory but has its own limit (cgroup v2).
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    limit
        .and_then(|limit| limit.trim().parse().ok())
        .map_or(total, |limit: u64| limit.min(total))
}

/// Processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether systemd is process 1 here (sd_booted(3)).
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether we may mount: root in a container often may not (capabilities(7)).
pub fn may_mount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & 1 << CAP_SYS_ADMIN != 0)
}

/// What the processors have done since boot, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Of the first line of /proc/stat (proc_stat(5)). What guests used counts as `user` already; a stolen tick was not ours to use,
    /// and not idle either.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map_while(|tick| tick.parse().ok())
            .collect();
        let all = ticks.iter().sum();
        // Idle, and idle for want of a disk.
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Ticks { busy: all - idle, all })
    }

    /// Percent of the time since `earlier`; `None`: no time has passed.
    pub fn busy_since(self, earlier: Ticks) -> Option<u8> {
        let (busy, all) = (
            self.busy.saturating_sub(earlier.busy),
            self.all.saturating_sub(earlier.all),
        );
        percent(busy, all)
    }
}

/// Percent of the memory that cannot be had for the asking.
pub fn memory_used() -> Option<u8> {
    let number = |path: &str| -> Option<u64> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
    // A container's own limit and use (cgroup v2).
    if let (Some(limit), Some(used)) = (
        number("/sys/fs/cgroup/memory.max"),
        number("/sys/fs/cgroup/memory.current"),
    ) {
        return percent(used, limit);
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (total, available) = (kib("MemTotal:")?, kib("MemAvailable:")?);
    percent(total.saturating_sub(available), total)
}

/// Percent of the file system of that folder that is used, as df(1) counts it: what is kept back for root is full.
pub fn disk_used(folder: &Path) -> Option<u8> {
    let seen = nix::sys::statvfs::statvfs(folder).ok()?;
    let used = seen.blocks().saturating_sub(seen.blocks_free());
    percent(used, used + seen.blocks_available())
}

/// Bytes of the file system of that folder that are left for those who are not root.
pub fn disk_free(folder: &Path) -> Option<u64> {
    let seen = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(seen.blocks_available().saturating_mul(seen.fragment_size()))
}

fn percent(part: u64, whole: u64) -> Option<u8> {
    let percent = (u128::from(part) * 100).checked_div(u128::from(whole))?;
    u8::try_from(percent.min(100)).ok()
}

/// This machine's name.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_string())
}

/// `node.name`, or the host's name in its place.
pub fn node_name(config: &Config) -> String {
    match config.node.name.as_str() {
        "" => host_name(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_waits_for_a_disk_is_idle() {
        let ticks = |text| Ticks::parse(text).expect("ticks");
        let earlier = ticks("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4");
        let later = ticks("cpu  130 0 100 740 120 0 0 10 30 0\n");
        assert_eq!(later.busy_since(earlier), Some(40));
        assert_eq!(later.busy_since(later), None);
        assert_eq!(Ticks::parse("cpu0 1 2 3 4 5"), None);
        assert!(Ticks::now().is_some());
    }

    #[test]
    fn shares_are_percent_of_what_is_there() {
        let folder = std::env::temp_dir();
        for share in [memory_used(), disk_used(&folder)] {
            assert!(share.is_some_and(|share| share <= 100));
        }
        assert_eq!((percent(1, 0), percent(9, 4)), (None, Some(100)));
    }
}
