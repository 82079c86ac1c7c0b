//! How long the kernel keeps an address by itself. Pure.
//!
//! The kernel counts whole seconds and looks at the end of a lifetime up to a quarter of a second late (it rounds its timer to a
//! second where that is near). The holder renews twice a second for what is left of its hold, rounded to the nearest second. So an
//! address whose holder was killed goes between half a second before and a second after the end of the hold; others take the
//! seat a second after it at the earliest.

use std::time::Duration;

/// A hold lasts three seconds from the heartbeat that it rests on.
pub const MOST: u32 = 3;

/// `None`: too little is left.
pub fn seconds(left: Duration) -> Option<u32> {
    let rounded = left.as_millis().saturating_add(500) / 1000;
    match rounded {
        0 => None,
        some => Some(u32::try_from(some).unwrap_or(u32::MAX).min(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_half_a_second_beyond_the_hold() {
        for millis in 0..20_000 {
            let left = Duration::from_millis(millis);
            match seconds(left) {
                None => assert!(millis < 500),
                Some(seconds) => {
                    assert!((1..=MOST).contains(&seconds));
                    assert!(Duration::from_secs(seconds.into()) <= left + Duration::from_millis(500));
                }
            }
        }
        assert_eq!(seconds(Duration::from_millis(2_900)), Some(3));
        assert_eq!(seconds(Duration::MAX), Some(MOST));
    }
}
