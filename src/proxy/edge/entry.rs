//! A stored answer, and which requests it answers (RFC 9111 §4.1, §4.3.4). Pure but for the clocks that are handed in.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, COOKIE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
    VARY,
};
use tokio::time::Instant;

use super::freshness::{Life, date};
use super::storable::is_for_all;
use crate::proxy::exchange::Target;

/// By what a group of answers is named, to be removed together. The client does not see these.
const TAGS: [HeaderName; 3] = [
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("x-litespeed-tag"),
];

/// Bookkeeping of one entry beside its body, about.
const OVERHEAD: usize = 1024;

/// The same of each word that it is chosen or named by.
const OF_WORD: usize = 64;

/// More of a request is not kept to choose by. Browsers say less, and a client could fill the memory with what nobody else says.
const LONGEST_CHOICE: usize = 4 << 10;

#[derive(Clone, Debug)]
pub struct Entry {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub life: Life,
    /// What made it: the same is done to it on the way out.
    pub target: Target,
    /// When its head came, or was found to be still so.
    pub came: Instant,
    /// The same on the clock that others read.
    pub wall: SystemTime,
    /// What the request said in the fields that `Vary` names.
    selecting: Vec<(HeaderName, String)>,
    tags: Vec<String>,
    /// It says so itself; others serve only who shows neither cookies nor credentials.
    is_for_all: bool,
}

impl Entry {
    /// Without a body and a target yet. `headers` lose what is for caches alone.
    pub fn new(request: &HeaderMap, status: StatusCode, headers: &mut HeaderMap, life: Life, wall: SystemTime) -> Self {
        let tags = take_tags(headers);
        let names = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
        let names = names.flat_map(|value| value.split(','));
        let names = names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
        let selecting = names
            .map(|name| (normal(request, &name), name))
            .map(|(value, name)| (name, value));
        Entry {
            status,
            selecting: selecting.collect(),
            headers: headers.clone(),
            body: Bytes::new(),
            life,
            target: Target::None,
            came: Instant::now(),
            wall,
            tags,
            is_for_all: is_for_all(headers),
        }
    }

    pub fn age(&self, now: Instant) -> Duration {
        self.life.age + now.saturating_duration_since(self.came)
    }

    /// Whether it was chosen by the same words, and is for such a client.
    pub fn fits(&self, request: &HeaderMap) -> bool {
        let is_somebody = request.contains_key(COOKIE) || request.contains_key(AUTHORIZATION);
        if is_somebody && !self.is_for_all {
            return false;
        }
        self.selecting
            .iter()
            .all(|(name, value)| normal(request, name) == *value)
    }

    /// Whether the other one would be chosen for the same requests.
    pub fn is_same_choice(&self, other: &Entry) -> bool {
        self.selecting == other.selecting
    }

    /// Whether too much of the request chose it for it to be kept.
    pub fn has_long_choice(&self) -> bool {
        self.choice() > LONGEST_CHOICE
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|known| known == tag)
    }

    pub fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }

    pub fn modified(&self) -> Option<SystemTime> {
        date(&self.headers, LAST_MODIFIED)
    }

    /// Whether it can be asked for a change.
    pub fn has_validator(&self) -> bool {
        self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED)
    }

    /// The same with what a 304 says of it now.
    pub fn refreshed(&self, said: &HeaderMap, life: Life, wall: SystemTime) -> Entry {
        let mut entry = self.clone();
        for name in said.keys() {
            // They speak of the bytes, which stay (§3.2).
            if [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name) {
                continue;
            }
            entry.headers.remove(name);
            for value in said.get_all(name) {
                entry.headers.append(name, value.clone());
            }
        }
        let tags = take_tags(&mut entry.headers);
        if !tags.is_empty() {
            entry.tags = tags;
        }
        entry.is_for_all = is_for_all(&entry.headers);
        entry.life = life;
        entry.came = Instant::now();
        entry.wall = wall;
        entry
    }

    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> u64 {
        let fields: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        let tags: usize = self.tags.iter().map(|tag| tag.len() + OF_WORD).sum();
        (OVERHEAD + fields + self.choice() + tags + self.body.len()) as u64
    }

    /// Bytes of what it is chosen by, about.
    fn choice(&self) -> usize {
        let words = self.selecting.iter();
        words
            .map(|(name, value)| name.as_str().len() + value.len() + OF_WORD)
            .sum()
    }
}

fn take_tags(headers: &mut HeaderMap) -> Vec<String> {
    let mut tags = Vec::new();
    for name in TAGS {
        let values = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok());
        let words = values
            .flat_map(|value| value.split([',', ' ']))
            .filter(|word| !word.is_empty());
        tags.extend(words.map(str::to_string));
        headers.remove(&name);
    }
    tags
}

/// All values of a field, without the spaces that mean nothing.
fn normal(headers: &HeaderMap, name: &HeaderName) -> String {
    let mut parts = Vec::new();
    for value in headers.get_all(name) {
        parts.extend(
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(|part| part.trim_ascii()),
        );
    }
    String::from_utf8_lossy(&parts.join(&b","[..])).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::fixture::headers;

    fn entry(request: &[(&'static str, &'static str)], answer: &[(&'static str, &'static str)]) -> Entry {
        let mut answer = headers(answer);
        let wall = SystemTime::UNIX_EPOCH;
        let life = Life::of(&answer, wall, wall, false);
        Entry::new(&headers(request), StatusCode::OK, &mut answer, life, wall)
    }

    #[test]
    fn a_request_is_answered_by_what_was_chosen_alike() {
        let entry = entry(
            &[("accept-language", "en, ru"), ("foo", "1")],
            &[("vary", "Accept-Language, x-none"), ("vary", "foo")],
        );
        for (request, expected) in [
            (&[("accept-language", "en,ru"), ("foo", "1")][..], true),
            (
                &[("accept-language", "en"), ("accept-language", "ru"), ("foo", "1")],
                true,
            ),
            (&[("accept-language", "ru, en"), ("foo", "1")], false),
            (&[("foo", "1")], false),
            (&[("accept-language", "en, ru"), ("foo", "1"), ("x-none", "1")], false),
        ] {
            assert_eq!(entry.fits(&headers(request)), expected, "{request:?}");
        }
    }

    #[test]
    fn a_user_gets_only_what_is_for_all() {
        let cookie = headers(&[("cookie", "PHPSESSID=1")]);
        assert!(!entry(&[], &[("cache-control", "max-age=60")]).fits(&cookie));
        assert!(entry(&[], &[("cache-control", "public, max-age=60")]).fits(&cookie));
    }

    #[test]
    fn tags_are_ours_alone() {
        let entry = entry(
            &[],
            &[("cache-tag", "news,item-7"), ("surrogate-key", "a b"), ("x", "y")],
        );
        for tag in ["news", "item-7", "a", "b"] {
            assert!(entry.has_tag(tag), "{tag}");
        }
        assert!(!entry.has_tag("item"));
        assert_eq!(entry.headers.len(), 1);
    }

    #[test]
    fn all_that_is_kept_of_an_answer_is_weighed() {
        let long: &str = "x".repeat(3 << 10).leak();
        let plain = entry(&[], &[]).weight();
        let chosen = entry(&[("accept-language", long)], &[("vary", "accept-language")]);
        assert!(chosen.weight() > plain + (3 << 10) && !chosen.has_long_choice());
        let words: &str = "a ".repeat(1000).leak();
        let named = entry(&[], &[("surrogate-key", words)]);
        assert!(named.weight() > plain + 1000 * 24, "each is a string of its own");
        let twice = [("accept-language", long), ("user-agent", long)];
        assert!(entry(&twice, &[("vary", "accept-language, user-agent")]).has_long_choice());
        let fields: &str = ["a"; 100].join(",").leak();
        assert!(entry(&[], &[("vary", fields)]).has_long_choice());
    }

    #[test]
    fn a_304_says_anew_all_but_the_body() {
        let before = entry(
            &[],
            &[("etag", "\"1\""), ("content-length", "7"), ("x", "a"), ("x", "b")],
        );
        let said = headers(&[
            ("etag", "\"1\""),
            ("content-length", "0"),
            ("x", "c"),
            ("cache-control", "max-age=5"),
        ]);
        let life = Life::of(&said, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH, false);
        let after = before.refreshed(&said, life, SystemTime::UNIX_EPOCH);
        assert_eq!(after.headers["content-length"], "7");
        assert_eq!(after.headers.get_all("x").iter().collect::<Vec<_>>(), ["c"]);
        assert_eq!(after.life.fresh, Duration::from_secs(5));
    }
}
