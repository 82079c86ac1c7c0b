//! What a target's answers say of it: after failures it is left alone for a while, and then warmed up. Pure: time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::backoff::Backoff;

/// Failures in a row after which a target is left alone: one may be a script's own fault.
const FAILURES: u32 = 3;

/// How long a target is left alone for the first time, and at most.
const EJECTED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Time in which a target that came back gets its full share again: its caches are cold, and all others run to it.
const WARM_UP: Duration = Duration::from_secs(10);

/// Share at the beginning of that.
const FIRST_SHARE: f64 = 0.1;

/// How a target failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be reached: the next request would fail as well.
    Unreachable,
    /// It took a request and gave no proper answer.
    Broken,
}

#[derive(Debug)]
pub struct Health {
    in_a_row: u32,
    backoff: Backoff,
    ejected_until: Option<Instant>,
    /// When it last came back; `None`: it was there all along.
    since: Option<Instant>,
}

impl Health {
    /// `since`: when it came, if that was after the others.
    pub fn new(since: Option<Instant>) -> Self {
        Health {
            in_a_row: 0,
            backoff: Backoff::new(EJECTED.0, EJECTED.1),
            ejected_until: None,
            since,
        }
    }

    /// It gave a proper answer.
    pub fn succeeded(&mut self, now: Instant) {
        self.in_a_row = 0;
        if !self.is_ejected(now) && self.share(now) >= 1.0 {
            self.backoff.reset();
        }
    }

    /// Returns whether it is left alone from now on, and was not before.
    pub fn failed(&mut self, failure: Failure, now: Instant) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let is_enough = failure == Failure::Unreachable || self.in_a_row >= FAILURES;
        // What was sent before it was ejected fails late, and is no further reason.
        if !is_enough || self.is_ejected(now) {
            return false;
        }
        let until = now + self.backoff.delay();
        self.ejected_until = Some(until);
        self.since = Some(until);
        true
    }

    /// It was away for another reason, and is back.
    pub fn came_back(&mut self, now: Instant) {
        self.in_a_row = 0;
        self.since = self.since.max(Some(now));
    }

    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// Failed lately, so that a look at it is worth more than a second chance.
    pub fn is_suspect(&self) -> bool {
        self.in_a_row > 0
    }

    /// The share of its capacity that it is trusted with: above 0, at most 1.
    pub fn share(&self, now: Instant) -> f64 {
        let Some(since) = self.since else { return 1.0 };
        let warm = now.saturating_duration_since(since).as_secs_f64() / WARM_UP.as_secs_f64();
        warm.clamp(FIRST_SHARE, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fresh() -> (Health, Instant) {
        (Health::new(None), Instant::now())
    }

    #[test]
    fn three_failures_in_a_row_eject_and_a_success_between_forgives() {
        let (mut health, now) = fresh();
        for _ in 0..5 {
            assert!(!health.failed(Failure::Broken, now));
            assert!(!health.failed(Failure::Broken, now));
            health.succeeded(now);
        }
        assert!(!health.failed(Failure::Broken, now));
        assert!(!health.failed(Failure::Broken, now));
        assert!(health.failed(Failure::Broken, now));
        assert!(health.is_ejected(now) && !health.is_ejected(now + SECOND));
    }

    #[test]
    fn one_that_cannot_be_reached_is_ejected_at_once_and_counted_once() {
        let (mut health, now) = fresh();
        assert!(health.failed(Failure::Unreachable, now));
        for _ in 0..50 {
            assert!(!health.failed(Failure::Unreachable, now), "those under way fail too");
        }
        assert!(!health.is_ejected(now + SECOND), "and do not lengthen it");
    }

    #[test]
    fn each_ejection_is_longer_until_it_was_well_for_long() {
        let (mut health, mut now) = fresh();
        let mut lengths = Vec::new();
        for _ in 0..7 {
            assert!(health.failed(Failure::Unreachable, now));
            let began = now;
            while health.is_ejected(now) {
                now += SECOND;
            }
            health.succeeded(now);
            lengths.push((now - began).as_secs());
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 30, 30]);
        now += WARM_UP;
        health.succeeded(now);
        assert!(health.failed(Failure::Unreachable, now));
        assert!(!health.is_ejected(now + SECOND));
    }

    #[test]
    fn share_grows_over_ten_seconds_after_it_came_back() {
        let (mut health, now) = fresh();
        assert_eq!(health.share(now), 1.0);
        health.failed(Failure::Unreachable, now);
        let back = now + SECOND;
        let shares = [0, 1, 5, 10, 60].map(|seconds| (health.share(back + SECOND * seconds) * 10.0).round());
        assert_eq!(shares, [1.0, 1.0, 5.0, 10.0, 10.0]);
        health.came_back(back + SECOND * 60);
        assert_eq!(health.share(back + SECOND * 65), 0.5);
    }
}
