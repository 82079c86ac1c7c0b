//! Whether a request that failed may be sent to another target. Pure.

use std::time::Duration;

use super::super::error::{Error, Side};

/// A request that waited longer is not begun anew: its client would wait twice. Longer than a node that is silent is noticed (3 s).
const WITHIN: Duration = Duration::from_secs(8);

/// What is known of the request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// RFC 9110 §9.2.2: doing it twice is as good as once.
    pub is_idempotent: bool,
    /// What can be sent again: no body at all, or all of it.
    pub body: Left,
    /// Since the request came.
    pub elapsed: Duration,
}

/// What is left of a request's body after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There never was one.
    Empty,
    Whole,
    /// Some of it went out with the attempt and is no longer at hand.
    Begun,
}

/// Answers that have begun never come here.
pub fn may_repeat(error: &Error, asked: Asked) -> bool {
    let is_targets_fault = error.side() == Side::Upstream;
    let is_safe = match asked.body {
        Left::Empty => error.is_unsent || asked.is_idempotent,
        Left::Whole => error.is_unsent,
        Left::Begun => false,
    };
    is_targets_fault && is_safe && asked.elapsed < WITHIN
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Kind;
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn repeats(kind: Kind, is_unsent: bool, is_idempotent: bool, body: Left, elapsed: Duration) -> bool {
        let mut error = Error::new(kind, "");
        error.is_unsent = is_unsent;
        let asked = Asked {
            is_idempotent,
            body,
            elapsed,
        };
        may_repeat(&error, asked)
    }

    #[test]
    fn what_reached_no_target_is_repeated_whatever_it_is() {
        for (is_idempotent, body) in [
            (true, Left::Empty),
            (false, Left::Empty),
            (true, Left::Whole),
            (false, Left::Whole),
        ] {
            assert!(repeats(Kind::Unavailable, true, is_idempotent, body, SOON));
        }
        assert!(!repeats(Kind::Unavailable, true, true, Left::Begun, SOON));
    }

    #[test]
    fn what_may_have_happened_is_repeated_only_where_twice_is_as_good() {
        assert!(repeats(Kind::Upstream, false, true, Left::Empty, SOON));
        assert!(!repeats(Kind::Upstream, false, false, Left::Empty, SOON), "a POST");
        assert!(!repeats(Kind::Upstream, false, true, Left::Whole, SOON), "a PUT");
    }

    #[test]
    fn a_clients_fault_or_ours_is_not_mended_elsewhere() {
        for kind in [Kind::ClientGone, Kind::TooLarge, Kind::Slow, Kind::Internal] {
            assert!(!repeats(kind, true, true, Left::Empty, SOON), "{kind:?}");
        }
    }

    #[test]
    fn nobody_waits_twice() {
        assert!(!repeats(Kind::UpstreamSlow, false, true, Left::Empty, WITHIN));
    }
}
