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
