//! Wall time, for records that people read: no safety decision looks at it, and time-outs use tokio's time.
//! And the time since boot, for leases.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Wall clock now.
pub fn wall() -> SystemTime {
    #[allow(clippy::disallowed_methods)]
    SystemTime::now()
}

/// Wall clock as of the kernel's last tick, some milliseconds ago: for what is told in seconds, at a fraction of the price.
pub fn wall_of_tick() -> SystemTime {
    let time = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).expect("Linux has had this clock since 2.6.32");
    let (seconds, nanos) = (u64::try_from(time.tv_sec()), u32::try_from(time.tv_nsec()));
    UNIX_EPOCH + Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Wall clock as time since 1970-01-01T00:00:00Z; zero for a clock set before that.
pub fn unix() -> Duration {
    wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same in milliseconds.
pub fn unix_millis() -> u64 {
    u64::try_from(unix().as_millis()).unwrap_or(u64::MAX)
}

/// A wall time as `2026-11-22T06:15:04.123Z`.
pub fn stamp(time: SystemTime) -> impl Display {
    humantime::format_rfc3339_millis(time)
}

/// Time since boot, in which a suspended machine's sleep counts (CLOCK_BOOTTIME): what a lease must be judged by.
pub fn boot() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had this clock since 2.6.39");
    Duration::new(
        u64::try_from(time.tv_sec()).unwrap_or_default(),
        u32::try_from(time.tv_nsec()).unwrap_or_default(),
    )
}
