//! Time as the store sees it: milliseconds of a monotonic clock, handed in with every call, so that tests need no waiting.

use std::time::Instant;

use crate::base::clock;

/// Beyond this many seconds an expiry on the wire is a unix time (protocol.txt, "Expiration times").
const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the store was made; never runs back.
    pub now: u64,
    /// Wall time in milliseconds since 1970, to understand absolute expiry times with.
    pub unix: u64,
}

/// When an item shall end, as a client said it. Relative, so that it can travel to a node with another clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Never,
    /// Already over.
    Past,
    /// Milliseconds from now.
    In(u64),
}

/// The last millisecond of a life, exclusive; `FOREVER` for items without end.
pub type Deadline = u64;
pub const FOREVER: Deadline = u64::MAX;

impl Expiry {
    /// Reads seconds as they are on the wire: 0 never, negative past, up to 30 days relative, else unix time.
    pub fn from_wire(seconds: i64, moment: Moment) -> Self {
        match seconds {
            0 => Expiry::Never,
            ..0 => Expiry::Past,
            1..=RELATIVE_MAX => Expiry::In(seconds.unsigned_abs() * 1000),
            _ => match seconds.unsigned_abs().saturating_mul(1000).checked_sub(moment.unix) {
                None | Some(0) => Expiry::Past,
                Some(left) => Expiry::In(left),
            },
        }
    }

    pub fn deadline(self, now: u64) -> Deadline {
        match self {
            Expiry::Never => FOREVER,
            Expiry::Past => 0,
            Expiry::In(left) => now.saturating_add(left),
        }
    }
}

/// Reads the clocks. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { start: Instant::now() }
    }
}

impl Clock {
    pub fn moment(&self) -> Moment {
        Moment {
            now: millis(self.start.elapsed()),
            unix: millis(clock::unix()),
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_seconds_follow_the_protocol() {
        let moment = Moment {
            now: 5000,
            unix: 1_700_000_000_500,
        };
        for (seconds, expiry) in [
            (0, Expiry::Never),
            (-1, Expiry::Past),
            (i64::MIN, Expiry::Past),
            (1, Expiry::In(1000)),
            (RELATIVE_MAX, Expiry::In(2_592_000_000)),
            (RELATIVE_MAX + 1, Expiry::Past),
            (1_700_000_000, Expiry::Past),
            (1_700_000_010, Expiry::In(9500)),
        ] {
            assert_eq!(Expiry::from_wire(seconds, moment), expiry, "{seconds}");
        }
        assert_eq!(Expiry::from_wire(i64::MAX, moment).deadline(u64::MAX), FOREVER);
    }
}
