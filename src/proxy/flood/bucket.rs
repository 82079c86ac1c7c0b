//! One token bucket, as a single number: the generic cell rate algorithm (ITU-T I.371). Pure.
//!
//! The number is the time, in nanoseconds of the caller's clock, at which the bucket is full again. What lies in the past is a full
//! bucket, so one that is forgotten then loses nothing.

use std::time::Duration;

use crate::config::Quota;

/// Takes a token: `Ok` is the new state, `Err` how long to wait for the next one.
pub fn take(full_at: u64, now: u64, quota: Quota) -> Result<u64, Duration> {
    let interval = nanos(quota.interval).max(1);
    let most = interval.saturating_mul(u64::from(quota.burst.max(1)));
    let after = full_at.max(now).saturating_add(interval);
    match (after - now).checked_sub(most) {
        None | Some(0) => Ok(after),
        Some(wait) => Err(Duration::from_nanos(wait)),
    }
}

pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn a_burst_is_granted_and_then_the_rate() {
        let quota = Quota {
            interval: TENTH,
            burst: 3,
        };
        let (mut state, second) = (0, 1_000_000_000);
        for _ in 0..3 {
            state = take(state, second, quota).expect("of the burst");
        }
        assert_eq!(take(state, second, quota), Err(TENTH));
        assert_eq!(take(state, second + 40_000_000, quota), Err(Duration::from_millis(60)));
        let later = second + 100_000_000;
        state = take(state, later, quota).expect("the next token");
        assert_eq!(take(state, later, quota), Err(TENTH));
        state = take(state, later + 10 * second, quota).expect("after a rest");
        state = take(state, later + 10 * second, quota).expect("the burst again");
        take(state, later + 10 * second, quota).expect("all of it");
    }

    proptest! {
        /// However the requests come, no window of time has more than the burst and the rate allow; and who waits as told is served.
        #[test]
        fn never_more_than_promised(gaps in proptest::collection::vec(0u64..400_000_000, 1..200), burst in 1u32..20) {
            let quota = Quota { interval: TENTH, burst };
            let (mut state, mut now, mut granted) = (0, 0u64, Vec::new());
            for gap in gaps {
                now += gap;
                match take(state, now, quota) {
                    Ok(next) => {
                        state = next;
                        granted.push(now);
                    }
                    Err(wait) => prop_assert!(take(state, now + nanos(wait), quota).is_ok()),
                }
            }
            for (first, start) in granted.iter().enumerate() {
                for (last, end) in granted.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (end - start) / nanos(TENTH);
                    prop_assert!((last - first + 1) as u64 <= allowed);
                }
            }
        }
    }
}
