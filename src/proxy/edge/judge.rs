//! What a request may have of a stored answer (RFC 9111 §4.2.4, §5.2.1; RFC 5861). Pure.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, PRAGMA};

use super::directives::Directives;
use super::freshness::Life;

/// Longest time that a target which cannot be reached is stood in for.
const STAND_IN: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve,
    /// As it is, while a new one is fetched.
    ServeAndRefresh,
    /// The target is asked first.
    Ask {
        /// It serves when the target answers with an error.
        if_error: bool,
        /// It serves when the target gives no answer.
        if_gone: bool,
    },
}

pub fn judge(life: &Life, age: Duration, request: &HeaderMap) -> Verdict {
    let asked = Directives::read(request, &CACHE_CONTROL);
    let is_pragma = asked.is_empty() && request.get(PRAGMA).is_some_and(|value| value == "no-cache");
    let staleness = age.saturating_sub(life.fresh);
    let is_fresh = age < life.fresh;
    let ask = Verdict::Ask {
        if_error: !life.is_strict && !life.is_checked && staleness <= life.if_error && !life.if_error.is_zero(),
        if_gone: !life.is_strict && !life.is_shared_strict && !life.is_checked && staleness <= STAND_IN,
    };
    let limit = |name: &str| asked.seconds(name).map(Duration::from_secs);
    let is_too_old = limit("max-age").is_some_and(|most| age > most);
    let is_too_short = limit("min-fresh").is_some_and(|least| life.fresh.saturating_sub(age) < least);
    if is_pragma || asked.has("no-cache") || life.is_checked || is_too_old || is_too_short {
        return ask;
    }
    if is_fresh {
        return Verdict::Serve;
    }
    // Without a number any age will do.
    let is_let = asked.is_bare("max-stale") || limit("max-stale").is_some_and(|most| staleness <= most);
    if is_let && !life.is_strict && !life.is_shared_strict {
        return Verdict::Serve;
    }
    if !life.is_strict && !life.while_revalidate.is_zero() && staleness <= life.while_revalidate {
        return Verdict::ServeAndRefresh;
    }
    ask
}

/// Whether the client wants a stored answer or none (§5.2.1.7).
pub fn is_only_stored(request: &HeaderMap) -> bool {
    Directives::read(request, &CACHE_CONTROL).has("only-if-cached")
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::SystemTime;

    use http::HeaderValue;

    fn verdict(answer: &'static str, age: u64, request: &[(&'static str, &'static str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(answer));
        let life = Life::of(&headers, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH, false);
        let mut asked = HeaderMap::new();
        for (name, value) in request {
            asked.append(*name, HeaderValue::from_static(value));
        }
        judge(&life, Duration::from_secs(age), &asked)
    }

    #[test]
    fn fresh_answers_serve_unless_somebody_objects() {
        const ASK: Verdict = Verdict::Ask {
            if_error: false,
            if_gone: true,
        };
        const STRICT: Verdict = Verdict::Ask {
            if_error: false,
            if_gone: false,
        };
        for (answer, age, request, expected) in [
            ("max-age=60", 59, &[][..], Verdict::Serve),
            ("max-age=60", 60, &[], ASK),
            ("max-age=60, no-cache", 1, &[], STRICT),
            ("max-age=60, must-revalidate", 61, &[], STRICT),
            ("s-maxage=60", 61, &[], STRICT),
            ("max-age=60", 1, &[("cache-control", "no-cache")], ASK),
            ("max-age=60", 1, &[("pragma", "no-cache")], ASK),
            (
                "max-age=60",
                1,
                &[("pragma", "no-cache"), ("cache-control", "x")],
                Verdict::Serve,
            ),
            ("max-age=60", 10, &[("cache-control", "max-age=9")], ASK),
            ("max-age=60", 10, &[("cache-control", "max-age=10")], Verdict::Serve),
            ("max-age=60", 10, &[("cache-control", "min-fresh=51")], ASK),
            ("max-age=60", 10, &[("cache-control", "min-fresh=50")], Verdict::Serve),
            ("max-age=60", 70, &[("cache-control", "max-stale=10")], Verdict::Serve),
            ("max-age=60", 71, &[("cache-control", "max-stale=10")], ASK),
            ("max-age=60", 61, &[("cache-control", "max-stale=0")], ASK),
            ("max-age=60", 7100, &[("cache-control", "max-stale")], Verdict::Serve),
            ("s-maxage=60", 70, &[("cache-control", "max-stale")], STRICT),
            (
                "max-age=60, stale-while-revalidate=10",
                65,
                &[],
                Verdict::ServeAndRefresh,
            ),
            (
                "s-maxage=60, stale-while-revalidate=10",
                65,
                &[],
                Verdict::ServeAndRefresh,
            ),
            (
                "max-age=60, stale-while-revalidate=10, must-revalidate",
                65,
                &[],
                STRICT,
            ),
            ("max-age=60, stale-while-revalidate=10", 71, &[], ASK),
            ("max-age=60", 60 + 3601, &[], STRICT),
            (
                "s-maxage=60, stale-if-error=10",
                65,
                &[],
                Verdict::Ask {
                    if_error: true,
                    if_gone: false,
                },
            ),
        ] {
            assert_eq!(verdict(answer, age, request), expected, "{answer} {age} {request:?}");
        }
    }
}
