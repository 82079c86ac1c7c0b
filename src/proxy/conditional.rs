//! Conditional requests (RFC 9110 §13) and the choice of a content coding (§12.5.3). Pure.

use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_ENCODING, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};

pub use crate::config::Coding;

/// A date counts as a strong validator when it is this much older than the answer (RFC 9110 §8.8.2.2).
const STRONG_AGE: Duration = Duration::from_secs(60);

/// What identifies a state of a representation.
#[derive(Clone, Debug)]
pub struct Validators<'a> {
    /// With its quotes, and `W/` when weak.
    pub etag: &'a str,
    pub modified: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were no condition; a range counts only if `with_range`.
    Proceed { with_range: bool },
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions of a GET or HEAD in the order of RFC 9110 §13.2.2.
pub fn decide(headers: &HeaderMap, now: &Validators<'_>, wall: SystemTime) -> Outcome {
    if headers.contains_key(IF_MATCH) {
        if !lists(headers, IF_MATCH, |tag| is_same_strong(tag, now.etag)) {
            return Outcome::Failed;
        }
    } else if let Some(date) = date(headers, IF_UNMODIFIED_SINCE)
        && seconds(now.modified) > seconds(date)
    {
        return Outcome::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if lists(headers, IF_NONE_MATCH, |tag| opaque(tag) == opaque(now.etag)) {
            return Outcome::NotModified;
        }
    } else if let Some(date) = date(headers, IF_MODIFIED_SINCE)
        && seconds(now.modified) <= seconds(date)
    {
        return Outcome::NotModified;
    }
    Outcome::Proceed {
        with_range: is_range_current(headers, now, wall),
    }
}

/// `If-Range` (§13.1.5): only an exact match of a strong validator lets the range count.
fn is_range_current(headers: &HeaderMap, now: &Validators<'_>, wall: SystemTime) -> bool {
    let Some(value) = headers.get(IF_RANGE) else {
        return true;
    };
    let Ok(value) = value.to_str() else { return false };
    if value.contains('"') {
        return is_same_strong(value.trim(), now.etag);
    }
    let is_strong = wall.duration_since(now.modified).is_ok_and(|age| age >= STRONG_AGE);
    is_strong && httpdate::parse_http_date(value).is_ok_and(|date| seconds(date) == seconds(now.modified))
}

/// Whether the client knows this very form of a tag.
pub fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags = values.filter_map(|value| value.to_str().ok());
    tags.any(|value| value.split(',').any(|known| known.trim() == tag))
}

/// Whether a list of entity tags is `*` or holds one that fits. Tags hold no comma of ours; a foreign one with a comma fits nothing either way.
fn lists(headers: &HeaderMap, name: HeaderName, fits: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(name);
    let mut tags = values.iter().filter_map(|value| value.to_str().ok());
    tags.any(|value| value.split(',').map(str::trim).any(|tag| tag == "*" || fits(tag)))
}

/// Strong comparison (§8.8.3.2).
fn is_same_strong(one: &str, other: &str) -> bool {
    one == other && !one.starts_with("W/")
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// A date that stands alone and is valid; others are ignored (§13.1.3, §13.1.4).
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    httpdate::parse_http_date(only.to_str().ok()?).ok()
}

/// HTTP dates have no fractions.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Codings of precompressed copies beside a file, the better one first.
pub const COPIES: [Coding; 2] = [Coding::Brotli, Coding::Gzip];

/// What a copy's name ends with.
pub fn suffix(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => ".zst",
        Coding::Brotli => ".br",
        Coding::Gzip => ".gz",
    }
}

/// The coding that the client likes best among those at hand, of equals the first one; `None` is the plain content, also when the
/// client forbids that: better an answer than a 406 (§12.5.3).
pub fn choose(headers: &HeaderMap, at_hand: impl DoubleEndedIterator<Item = Coding>) -> Option<Coding> {
    let values = headers.get_all(ACCEPT_ENCODING);
    let accepted: Vec<(&str, u16)> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(weighed)
        .collect();
    let find = |wanted: &str| accepted.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let weight = |coding: Coding| {
        let old = if coding == Coding::Gzip { find("x-gzip") } else { None };
        let named = find(coding.name()).or(old).or_else(|| find("*"));
        named.map_or(0, |(_, weight)| *weight)
    };
    // Without a word about it the plain content is acceptable, but a coding that was asked for is preferred.
    let plain = find("identity").map_or(1, |(_, weight)| *weight);
    let mut best = (plain, None);
    for coding in at_hand.rev() {
        let weight = weight(coding);
        if weight > 0 && weight >= best.0 {
            best = (weight, Some(coding));
        }
    }
    best.1
}

/// `gzip;q=0.5` as its name and thousandths; `None` when malformed.
fn weighed(item: &str) -> Option<(&str, u16)> {
    let (name, parameters) = item
        .split_once(';')
        .map_or((item, ""), |(name, rest)| (name, rest.trim()));
    let name = name.trim();
    if name.is_empty() {
        return None;
    }
    if parameters.is_empty() {
        return Some((name, 1000));
    }
    let weight: f32 = parameters
        .strip_prefix("q=")
        .or_else(|| parameters.strip_prefix("Q="))?
        .parse()
        .ok()?;
    // Thousandths are all that the grammar has (§12.4.2).
    (0.0..=1.0)
        .contains(&weight)
        .then_some((name, (weight * 1000.0) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::fixture::headers;

    use http::HeaderValue;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn outcome(etag: &str, age: u64, fields: &[(&'static str, &'static str)]) -> Outcome {
        let modified = httpdate::parse_http_date(MODIFIED).expect("a date") + Duration::from_millis(700);
        let validators = Validators { etag, modified };
        decide(&headers(fields), &validators, modified + Duration::from_secs(age))
    }

    #[test]
    fn conditions_are_evaluated_in_order() {
        let proceed = |with_range| Outcome::Proceed { with_range };
        for (fields, expected) in [
            (&[][..], proceed(true)),
            (&[("if-none-match", "\"a\"")], Outcome::NotModified),
            (&[("if-none-match", "W/\"a\"")], Outcome::NotModified),
            (&[("if-none-match", "\"x\", \"a\"")], Outcome::NotModified),
            (
                &[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")],
                Outcome::NotModified,
            ),
            (&[("if-none-match", "*")], Outcome::NotModified),
            (&[("if-none-match", "\"x\"")], proceed(true)),
            (
                &[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)],
                proceed(true),
            ),
            (&[("if-modified-since", MODIFIED)], Outcome::NotModified),
            (&[("if-modified-since", EARLIER)], proceed(true)),
            (&[("if-modified-since", "yesterday")], proceed(true)),
            (&[("if-match", "\"a\"")], proceed(true)),
            (&[("if-match", "*")], proceed(true)),
            (&[("if-match", "W/\"a\"")], Outcome::Failed),
            (&[("if-match", "\"x\"")], Outcome::Failed),
            (
                &[("if-match", "\"a\""), ("if-unmodified-since", EARLIER)],
                proceed(true),
            ),
            (&[("if-match", "\"x\""), ("if-none-match", "\"a\"")], Outcome::Failed),
            (&[("if-unmodified-since", MODIFIED)], proceed(true)),
            (&[("if-unmodified-since", EARLIER)], Outcome::Failed),
            (&[("if-range", "\"a\"")], proceed(true)),
            (&[("if-range", "\"x\"")], proceed(false)),
            (&[("if-range", "W/\"a\"")], proceed(false)),
            (&[("if-range", MODIFIED)], proceed(true)),
            (&[("if-range", EARLIER)], proceed(false)),
        ] {
            assert_eq!(outcome("\"a\"", 3600, fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn young_and_weak_validators_join_no_ranges() {
        let refused = Outcome::Proceed { with_range: false };
        assert_eq!(outcome("\"a\"", 1, &[("if-range", MODIFIED)]), refused);
        assert_eq!(outcome("W/\"a\"", 3600, &[("if-range", "W/\"a\"")]), refused);
        assert_eq!(outcome("W/\"a\"", 3600, &[("if-match", "W/\"a\"")]), Outcome::Failed);
        assert_eq!(
            outcome("W/\"a\"", 3600, &[("if-none-match", "\"a\"")]),
            Outcome::NotModified
        );
    }

    #[test]
    fn best_liked_coding_is_chosen() {
        for (field, expected) in [
            ("gzip, br", Some(Coding::Brotli)),
            ("gzip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("br;q=0.5, gzip;q=0.9", Some(Coding::Gzip)),
            ("br; q=0, gzip", Some(Coding::Gzip)),
            ("*", Some(Coding::Brotli)),
            ("*;q=0", None),
            ("br;q=0.2, identity;q=0.5", None),
            ("identity;q=0", None),
            ("deflate", None),
            ("br;q=2", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(field));
            assert_eq!(choose(&headers, COPIES.into_iter()), expected, "{field}");
            assert_eq!(choose(&headers, [].into_iter()), None);
        }
        assert_eq!(choose(&HeaderMap::new(), COPIES.into_iter()), None);
        let both = headers(&[("accept-encoding", "br, gzip, zstd")]);
        assert_eq!(choose(&both, [Coding::Gzip].into_iter()), Some(Coding::Gzip));
        let ours = [Coding::Zstd, Coding::Gzip];
        assert_eq!(choose(&both, ours.into_iter()), Some(Coding::Zstd));
        let weighed = headers(&[("accept-encoding", "zstd;q=0.5, gzip;q=0.6")]);
        assert_eq!(choose(&weighed, ours.into_iter()), Some(Coding::Gzip));
    }
}
