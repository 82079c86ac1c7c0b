//! The answers that are kept, in memory. When full, what is asked for least gives way. What was asked for before something was
//! purged, or its address changed, is not kept when it comes: it may show what was there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::HeaderMap;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::changes::Changes;
use super::entry::Entry;
use crate::proxy::metrics::OfEdge;

/// Entries that the tables are laid out for; not a limit.
const ENTRIES: usize = 16 * 1024;

/// Answers kept for one address, chosen by the fields of the request. The oldest gives way.
const CHOICES: usize = 16;

type Choices = Arc<Vec<Arc<Entry>>>;

pub struct Store {
    known: Cache<Box<str>, Choices, Weight>,
    /// Choices are read, changed and put back as one.
    changes: Mutex<Changes>,
    numbers: OfEdge,
}

/// The place of an answer that is asked for.
pub struct Slot {
    store: Arc<Store>,
    key: String,
    since: u64,
}

impl Slot {
    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn put(&self, entry: Entry) {
        self.store.put(&self.key, entry, self.since);
    }
}

/// What the store holds and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    pub addresses: u64,
    pub bytes: u64,
    pub capacity: u64,
    pub hits: u64,
    pub misses: u64,
    /// Bytes of bodies that were handed to clients.
    pub sent: u64,
    pub purged: u64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Box<str>, Choices> for Weight {
    fn weight(&self, key: &Box<str>, choices: &Choices) -> u64 {
        let entries: u64 = choices.iter().map(|entry| entry.weight()).sum();
        key.len() as u64 + entries
    }
}

impl Store {
    /// `memory`: bytes.
    pub fn new(memory: u64, numbers: OfEdge) -> Self {
        Store {
            known: Cache::with_weighter(ENTRIES, memory, Weight),
            changes: Mutex::default(),
            numbers,
        }
    }

    /// The newest that answers such a request.
    pub fn get(&self, key: &str, request: &HeaderMap) -> Option<Arc<Entry>> {
        let choices = self.known.get(key)?;
        choices.iter().find(|entry| entry.fits(request)).cloned()
    }

    /// For an answer that is asked for from now on.
    pub fn slot(self: &Arc<Self>, key: String) -> Slot {
        Slot {
            since: self.changes().count(),
            store: self.clone(),
            key,
        }
    }

    /// In the place of those that were chosen alike; not what is older than a change.
    fn put(&self, key: &str, entry: Entry, since: u64) {
        let changes = self.changes();
        if !changes.is_new(key, since) {
            return;
        }
        let entry = Arc::new(entry);
        let mut choices = vec![entry.clone()];
        if let Some(before) = self.known.get(key) {
            let others = before.iter().filter(|other| !other.is_same_choice(&entry));
            choices.extend(others.take(CHOICES - 1).cloned());
        }
        self.known.insert(key.into(), Arc::new(choices));
    }

    /// What is kept is of no use any more; what comes may be.
    pub fn remove(&self, key: &str) {
        let _changes = self.changes();
        self.known.remove(key);
    }

    /// There was a change at an address: what was asked for before it is not kept either.
    pub fn invalidate(&self, key: &str) {
        let mut changes = self.changes();
        changes.changed(key);
        self.known.remove(key);
    }

    /// Removes what fits; how many addresses were touched.
    pub fn purge(&self, fits: impl Fn(&str, &Entry) -> bool) -> u64 {
        let mut changes = self.changes();
        changes.purged();
        let count = AtomicU64::new(0);
        self.known.retain(|key, choices| {
            let is_touched = choices.iter().any(|entry| fits(key, entry));
            count.fetch_add(u64::from(is_touched), Ordering::Relaxed);
            !is_touched
        });
        self.numbers.purged.inc_by(count.load(Ordering::Relaxed));
        count.into_inner()
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self, is_hit: bool) {
        let counter = if is_hit {
            &self.numbers.hits
        } else {
            &self.numbers.misses
        };
        counter.inc();
    }

    /// So many bytes go to a client.
    pub fn count_sent(&self, bytes: u64) {
        self.numbers.sent.inc_by(bytes);
    }

    pub fn counts(&self) -> Counts {
        Counts {
            addresses: self.known.len() as u64,
            bytes: self.known.weight(),
            capacity: self.known.capacity(),
            hits: self.numbers.hits.get(),
            misses: self.numbers.misses.get(),
            sent: self.numbers.sent.get(),
            purged: self.numbers.purged.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::SystemTime;

    use http::StatusCode;

    use crate::proxy::edge::freshness::Life;
    use crate::proxy::fixture::headers;

    fn entry(language: &'static str, tag: &'static str) -> Entry {
        let mut answer = headers(&[("vary", "accept-language"), ("cache-tag", tag)]);
        let wall = SystemTime::UNIX_EPOCH;
        let life = Life::of(&answer, wall, wall, false);
        let request = headers(&[("accept-language", language)]);
        Entry::new(&request, StatusCode::OK, &mut answer, life, wall)
    }

    #[test]
    fn choices_of_an_address_live_side_by_side() {
        let store = Store::new(1 << 20, OfEdge::default());
        store.put("a", entry("en", "one"), 0);
        store.put("a", entry("ru", "two"), 0);
        store.put("a", entry("en", "three"), 0);
        let tag = |language: &'static str| {
            let entry = store.get("a", &headers(&[("accept-language", language)]))?;
            ["one", "two", "three"].into_iter().find(|tag| entry.has_tag(tag))
        };
        assert_eq!((tag("en"), tag("ru"), tag("de")), (Some("three"), Some("two"), None));
        for number in 0..2 * CHOICES {
            let language: &'static str = Box::leak(number.to_string().into_boxed_str());
            store.put("a", entry(language, "x"), 0);
        }
        assert_eq!(store.known.get("a").map(|choices| choices.len()), Some(CHOICES));
    }

    #[test]
    fn purging_takes_what_fits() {
        let store = Store::new(1 << 20, OfEdge::default());
        store.put("https://a/news/1", entry("en", "news"), 0);
        store.put("https://a/news/2", entry("en", "other"), 0);
        store.put("https://a/shop/", entry("en", "news"), 0);
        assert_eq!(store.purge(|key, _| key.starts_with("https://a/news/2")), 1);
        assert_eq!(store.purge(|_, entry| entry.has_tag("news")), 2);
        assert_eq!(store.counts().addresses, 0);
        assert_eq!(store.purge(|_, _| true), 0);
    }

    #[test]
    fn what_was_asked_for_before_a_purge_is_not_kept() {
        let store = Arc::new(Store::new(1 << 20, OfEdge::default()));
        let (slot, other) = (store.slot("a".into()), store.slot("b".into()));
        slot.put(entry("en", "x"));
        assert_eq!(store.purge(|key, _| key == "a"), 1);
        slot.put(entry("en", "x"));
        other.put(entry("en", "x"));
        assert_eq!(store.counts().addresses, 0);
        store.slot("a".into()).put(entry("en", "x"));
        assert_eq!(store.counts().addresses, 1);
    }

    #[test]
    fn what_was_asked_for_before_a_change_is_not_kept() {
        let store = Arc::new(Store::new(1 << 20, OfEdge::default()));
        let slot = store.slot("a".into());
        store.put("a", entry("en", "x"), 0);
        store.invalidate("a");
        assert_eq!(store.counts().addresses, 0);
        slot.put(entry("en", "x"));
        assert_eq!(store.counts().addresses, 0, "it shows what was there before");
        let slot = store.slot("a".into());
        store.remove("a");
        slot.put(entry("en", "x"));
        assert_eq!(store.counts().addresses, 1, "nothing changed");
    }

    #[test]
    fn memory_is_bounded() {
        let store = Store::new(1 << 20, OfEdge::default());
        for number in 0..2000 {
            let mut entry = entry("en", "x");
            entry.body = vec![0; 10_000].into();
            store.put(&number.to_string(), entry, 0);
        }
        let counts = store.counts();
        assert!(counts.bytes <= 1 << 20 && counts.addresses > 10, "{counts:?}");
    }
}
