//! Wall time, for records that people read. No safety decision looks at it; time-outs use tokio's time.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall clock now.
pub fn wall() -> SystemTime {
    #[allow(clippy::disallowed_methods)]
    SystemTime::now()
}

/// Wall clock as time since 1970-01-01T00:00:00Z; zero for a clock set before that.
pub fn unix() -> Duration {
    wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A wall time as `2026-11-22T06:15:04.123Z`.
pub fn stamp(time: SystemTime) -> impl Display {
    humantime::format_rfc3339_millis(time)
}
