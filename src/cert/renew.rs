//! When a certificate is renewed, and when a failed attempt is repeated. Times in seconds since 1970; `draw`: a random number.

/// After the first failure: a front that the directory came to may just have been lost, and is another one now.
const SOON: u64 = 15;
/// After further ones in a row: a minute, then twice as long each time. Public directories bear five failures of a name in an hour.
const FIRST: u64 = 60;
const LONGEST: u64 = 6 * 3600;
/// A directory that says that it was asked too often is left alone so long at least (limits of public ones count by the hour).
const LIMITED: u64 = 3600;

/// At two thirds of its life, up to a twentieth of it earlier, so that not all of a company's come at once.
pub fn due(begins: u64, ends: u64, draw: u64) -> u64 {
    let life = ends.saturating_sub(begins);
    let early = match life / 20 {
        0 => 0,
        range => draw % range,
    };
    (begins.saturating_add(life / 3 * 2)).saturating_sub(early)
}

/// At some moment of the window that the directory suggests (RFC 9773 §4.2); at once where it has passed.
pub fn within(start: u64, end: u64, draw: u64) -> u64 {
    start + draw % end.saturating_sub(start).max(1)
}

/// When to try again after so many failures in a row.
pub fn after_failure(now: u64, count: u32, is_limited: bool, draw: u64) -> u64 {
    let pause = match count {
        0 | 1 => SOON,
        count => FIRST.saturating_mul(1 << (count - 2).min(16)).min(LONGEST),
    };
    let pause = if is_limited { pause.max(LIMITED) } else { pause };
    now.saturating_add(pause).saturating_add(draw % (pause / 4).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_nearly_over() {
        for draw in [0, 1, DAY, u64::MAX] {
            let at = due(1000 * DAY, 1090 * DAY, draw);
            assert!((1060 * DAY - 90 * DAY / 20..=1060 * DAY).contains(&at), "{draw}: {at}");
        }
        assert_eq!(due(10, 10, 7), 10);
        assert_eq!(due(20, 10, 7), 20, "one that ends before it begins is due at once");
    }

    #[test]
    fn the_window_of_the_directory_is_kept_to() {
        for draw in [0, 5, 9, 10, u64::MAX] {
            assert!((100..110).contains(&within(100, 110, draw)));
        }
        assert_eq!(within(100, 90, 3), 100);
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_limits_are_minded() {
        let pause = |count, is_limited| after_failure(0, count, is_limited, 0);
        assert_eq!([1, 2, 3, 4].map(|count| pause(count, false)), [15, 60, 120, 240]);
        assert_eq!((pause(40, false), pause(u32::MAX, true)), (LONGEST, LONGEST));
        assert_eq!(pause(1, true), LIMITED);
        assert!(after_failure(0, 2, false, u64::MAX) < 60 + 60 / 4);
    }
}
