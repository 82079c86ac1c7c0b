//! Session affinity, for portals that need it: requests of one session go to one target. Pure.
//!
//! By rendezvous: every front ranks the targets by a hash of session and name, so all of them agree without a table,
//! and a target that leaves or comes moves no session but its own.

use std::hash::Hasher;

use http::header::{COOKIE, HeaderMap};
use siphasher::sip::SipHasher13;

/// PHP's own cookie, which Bitrix keeps.
const COOKIE_NAME: &str = "PHPSESSID";

/// The session that a request names.
pub fn session(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, session) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
    (!session.is_empty()).then_some(session)
}

/// The place of the session's target; `None` without targets.
pub fn place<'a>(session: &str, names: impl Iterator<Item = &'a str>) -> Option<usize> {
    let ranked = names.enumerate().max_by_key(|(_, name)| rank(session, name));
    ranked.map(|(place, _)| place)
}

/// Fronts must agree, so the key is fixed. A session id is random: nobody gains by choosing one.
fn rank(session: &str, name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(session.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, http::HeaderValue::from_static(cookie));
        }
        headers
    }

    #[test]
    fn session_is_found_among_cookies() {
        assert_eq!(session(&headers(&["a=1; PHPSESSID=abc; b=2"])), Some("abc"));
        assert_eq!(session(&headers(&["a=1", "PHPSESSID=abc"])), Some("abc"));
        for other in ["a=1", "XPHPSESSID=abc", "PHPSESSID=", "PHPSESSID", ""] {
            assert_eq!(session(&headers(&[other])), None, "{other}");
        }
    }

    #[test]
    fn sessions_are_spread_and_only_those_of_a_lost_target_move() {
        let all = ["n1", "n2", "n3"];
        let home = |session: &str, names: &[&'static str]| names[place(session, names.iter().copied()).expect("some")];
        let mut counts = [0; 3];
        for number in 0..3000 {
            let session = format!("session{number}");
            let before = home(&session, &all);
            assert_eq!(home(&session, &["n3", "n1", "n2"]), before, "order does not matter");
            counts[all.iter().position(|name| *name == before).expect("one of them")] += 1;
            let after = home(&session, &["n1", "n3"]);
            assert!(
                before == "n2" || after == before,
                "{session} moved from {before} to {after}"
            );
        }
        assert!(counts.iter().all(|count| (900..=1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn places_stay_where_they_are_over_versions() {
        let names = ["n1", "n2", "n3", "n4", "n5"];
        let places = ["a", "b", "c", "d", "e", "f"].map(|session| place(session, names.into_iter()).expect("some"));
        assert_eq!(places, [1, 1, 4, 2, 2, 0]);
    }
}
