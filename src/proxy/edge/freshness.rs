//! How long an answer is fresh, how old it is, and what may be done with it after that (RFC 9111 §4.2, RFC 5861). Pure.

use std::time::{Duration, SystemTime};

use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderMap, HeaderName, LAST_MODIFIED, PRAGMA};

use super::directives::{Directives, seconds};

/// For caches of this kind alone (RFC 9213); where it is there, it counts and `Cache-Control` does not.
pub const TARGETED: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Longest time that nobody asked for.
const HEURISTIC: Duration = Duration::from_secs(24 * 3600);

/// What the answer says of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// From its making on.
    pub fresh: Duration,
    /// Age when it came.
    pub age: Duration,
    /// Somebody said so, instead of us guessing.
    pub is_explicit: bool,
    /// Asked again before each use.
    pub is_checked: bool,
    /// Never used when it is not fresh.
    pub is_strict: bool,
    /// The same, but for what the answer itself allows (RFC 9111 §5.2.2.10).
    pub is_shared_strict: bool,
    pub while_revalidate: Duration,
    pub if_error: Duration,
}

/// Directives that count for us.
pub fn directives(headers: &HeaderMap) -> Directives {
    let targeted = Directives::read(headers, &TARGETED);
    match targeted.is_empty() {
        true => Directives::read(headers, &CACHE_CONTROL),
        false => targeted,
    }
}

impl Life {
    /// `asked` and `came`: when the request was sent and its answer's head came. `is_guessed`: whether a time may be guessed.
    pub fn of(headers: &HeaderMap, asked: SystemTime, came: SystemTime, is_guessed: bool) -> Life {
        let said = directives(headers);
        let is_targeted = headers.contains_key(TARGETED);
        let date = date(headers, DATE).unwrap_or(came);
        let expires = headers.contains_key(EXPIRES) && !is_targeted;
        let lifetime = said.seconds("s-maxage").filter(|_| !is_targeted);
        let lifetime = lifetime.or_else(|| said.seconds("max-age")).map(Duration::from_secs);
        let (fresh, is_explicit) = match lifetime {
            Some(lifetime) => (lifetime, true),
            // Anything but one valid date says: expired (§5.3).
            None if expires => {
                let expires = self::date(headers, EXPIRES);
                (expires.map_or(Duration::ZERO, |at| since(at, date)), true)
            }
            None if is_guessed => (guess(headers, date), false),
            None => (Duration::ZERO, false),
        };
        let has_control = headers.contains_key(CACHE_CONTROL) || is_targeted;
        let is_pragma = !has_control && headers.get(PRAGMA).is_some_and(|value| value == "no-cache");
        let longer = |name: &str| Duration::from_secs(said.seconds(name).unwrap_or(0));
        let stated = stated_age(headers);
        Life {
            fresh,
            // §4.2.3, with the time on the way.
            age: since(came, date).max(Duration::from_secs(stated) + since(came, asked)),
            is_explicit,
            is_checked: said.has("no-cache") || is_pragma,
            is_strict: said.has("must-revalidate") || said.has("proxy-revalidate"),
            is_shared_strict: said.has("s-maxage"),
            while_revalidate: longer("stale-while-revalidate"),
            if_error: longer("stale-if-error"),
        }
    }
}

/// What caches before us say. An age that is no number may be any, so it counts as the greatest.
fn stated_age(headers: &HeaderMap) -> u64 {
    let mut values = headers.get_all(AGE).iter();
    let Some(age) = values.next() else { return 0 };
    let age = age.to_str().unwrap_or_default().trim();
    let is_number = !age.is_empty() && age.bytes().all(|byte| byte.is_ascii_digit()) && values.next().is_none();
    if is_number { seconds(age) } else { seconds("9999999999") }
}

/// A tenth of the time since it changed last (§4.2.2).
fn guess(headers: &HeaderMap, date: SystemTime) -> Duration {
    let modified = self::date(headers, LAST_MODIFIED);
    modified.map_or(Duration::ZERO, |at| (since(date, at) / 10).min(HEURISTIC))
}

/// A date that stands alone and is valid.
pub fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    httpdate::parse_http_date(only.to_str().ok()?).ok()
}

fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 13:00:00 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 02:00:00 GMT";

    fn life(fields: &[(&'static str, &'static str)]) -> Life {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let noon = httpdate::parse_http_date(NOON).expect("a date");
        Life::of(&headers, noon, noon + Duration::from_secs(2), true)
    }

    #[test]
    fn freshness_follows_the_order_of_the_rfc() {
        for (fields, fresh) in [
            (&[("cache-control", "max-age=60")][..], 60),
            (&[("cache-control", "max-age=60, s-maxage=10")], 10),
            (
                &[("cache-control", "max-age=60"), ("expires", LATER), ("date", NOON)],
                60,
            ),
            (&[("expires", LATER), ("date", NOON)], 3600),
            (&[("expires", "0")], 0),
            (&[("expires", LATER), ("expires", LATER), ("date", NOON)], 0),
            (&[("last-modified", BEFORE), ("date", NOON)], 3600),
            (
                &[("cdn-cache-control", "max-age=5"), ("cache-control", "s-maxage=60")],
                5,
            ),
            (&[], 0),
        ] {
            assert_eq!(life(fields).fresh, Duration::from_secs(fresh), "{fields:?}");
        }
    }

    #[test]
    fn age_is_the_greater_of_two() {
        for (fields, age) in [
            (&[][..], 2),
            (&[("date", NOON)], 2),
            (&[("age", "30"), ("date", NOON)], 32),
            (&[("age", "30, 50")], (1 << 31) + 2),
            (&[("age", "1"), ("date", BEFORE)], 36_002),
            (&[("age", "x")], (1 << 31) + 2),
            (&[("date", LATER)], 2),
        ] {
            assert_eq!(life(fields).age, Duration::from_secs(age), "{fields:?}");
        }
    }

    #[test]
    fn what_may_be_done_later_is_said() {
        let said = life(&[(
            "cache-control",
            "max-age=1, stale-while-revalidate=10, stale-if-error=20",
        )]);
        assert_eq!(
            (said.while_revalidate.as_secs(), said.if_error.as_secs(), said.is_strict),
            (10, 20, false)
        );
        assert!(life(&[("cache-control", "max-age=1, must-revalidate")]).is_strict);
        assert!(life(&[("cache-control", "no-cache")]).is_checked);
        assert!(life(&[("pragma", "no-cache")]).is_checked);
        assert!(!life(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]).is_checked);
    }
}
