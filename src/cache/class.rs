//! What a key is, by its name alone: how much care its item needs, and which part of it says where it lies. Pure.
//!
//! Every node must find the same: what is decided here is part of the protocol between nodes.

use super::council::Shard;
use super::store::KEY_MAX;

/// How much care an item needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Sessions, locks and version keys: a change is answered when a second node has it.
    Sync,
    /// All other: one copy; a miss is fine, an old value is not.
    Bulk,
}

/// Where ext-memcached puts its session locks: between its prefix and the session's id.
const LOCK_PREFIX: &[u8] = b"lock.";
/// Where ext-memcache and Bitrix put theirs.
const LOCK_SUFFIX: &[u8] = b".lock";
/// A lock on a cached block in Bitrix's engines.
const BLOCK_LOCK: &[u8] = b"~";
/// In the name of every key that holds the version of a folder of Bitrix's cache, and therefore of all that is in it.
const VERSION_KEY: &[u8] = b"|BDV:";
/// ext-memcache names a session by nothing but its id. PHP makes ids of 22 to 256 of these letters (session.sid_length);
/// the keys of Bitrix's cache have bars.
const ID_MIN: usize = 22;

/// Prefixes of keys that are of the class `Sync` besides those that are known by their form.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    prefixes: Vec<Box<[u8]>>,
}

impl Rules {
    pub fn new<S: AsRef<[u8]>>(prefixes: &[S]) -> Self {
        let mut prefixes: Vec<Box<[u8]>> = prefixes.iter().map(|prefix| prefix.as_ref().into()).collect();
        // The longest that fits is a key's.
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        Rules { prefixes }
    }

    pub fn class(&self, key: &[u8]) -> Class {
        let is_sync = self.prefix(key).is_some()
            || key.ends_with(LOCK_SUFFIX)
            || key.ends_with(BLOCK_LOCK)
            || is_session_id(key)
            || memchr::memmem::find(key, VERSION_KEY).is_some();
        if is_sync { Class::Sync } else { Class::Bulk }
    }

    /// A session's data: who takes a failed read of it for a miss begins an empty session and writes that over the old one.
    pub fn is_session(&self, key: &[u8]) -> bool {
        self.prefix(key).is_some() || is_session_id(key)
    }

    /// The virtual shard of a key. A lock lies where the session lies that it guards.
    pub fn shard(&self, key: &[u8]) -> Shard {
        let key = key.strip_suffix(LOCK_SUFFIX).unwrap_or(key);
        let parts = self.prefix(key).and_then(|length| key.split_at_checked(length));
        match parts.and_then(|(prefix, rest)| Some((prefix, rest.strip_prefix(LOCK_PREFIX)?))) {
            Some((prefix, rest)) => {
                let mut joined = [0; KEY_MAX];
                let mut room = joined.iter_mut();
                prefix
                    .iter()
                    .chain(rest)
                    .zip(&mut room)
                    .for_each(|(byte, place)| *place = *byte);
                let left = room.len();
                Shard::of(joined.get(..KEY_MAX - left).unwrap_or(key))
            }
            None => Shard::of(key),
        }
    }

    /// Length of the configured prefix that the key begins with.
    fn prefix(&self, key: &[u8]) -> Option<usize> {
        // Most keys differ in the first byte already.
        let first = key.first();
        let found = self
            .prefixes
            .iter()
            .find(|prefix| prefix.first() == first && key.starts_with(prefix));
        found.map(|prefix| prefix.len())
    }
}

fn is_session_id(key: &[u8]) -> bool {
    key.len() >= ID_MIN
        && key
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::new(&["memc.sess.key.", "BX_SESS."])
    }

    #[test]
    fn sessions_locks_and_versions_are_sync() {
        let rules = rules();
        for (key, class) in [
            ("memc.sess.key.abc", Class::Sync),
            ("memc.sess.key.lock.abc", Class::Sync),
            ("BX_SESS.1", Class::Sync),
            ("abc.lock", Class::Sync),
            ("bxcluster|v1|BDV:0f", Class::Sync),
            ("bxcluster|0f|x.php~", Class::Sync),
            ("0123456789abcdef0123456789", Class::Sync),
            ("0123456789abcdef01234", Class::Bulk),
            ("bxcluster|0f|0123456789abcdef0123456789", Class::Bulk),
            ("menu", Class::Bulk),
        ] {
            assert_eq!(rules.class(key.as_bytes()), class, "{key}");
        }
    }

    #[test]
    fn sessions_are_told_from_what_may_be_missed() {
        let rules = rules();
        for key in ["memc.sess.key.abc", "0123456789abcdef0123456789"] {
            assert!(rules.is_session(key.as_bytes()), "{key}");
        }
        for key in ["bxcluster|v1|BDV:0f", "x.php~", "menu", "abc.lock"] {
            assert!(!rules.is_session(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn a_lock_lies_with_its_session() {
        let rules = rules();
        let shard = |key: &str| rules.shard(key.as_bytes());
        for id in ["a", "0123456789abcdef0123456789"] {
            assert_eq!(
                shard(&format!("memc.sess.key.lock.{id}")),
                shard(&format!("memc.sess.key.{id}"))
            );
            assert_eq!(shard(&format!("{id}.lock")), shard(id));
            assert_eq!(shard(&format!("BX_SESS.{id}.lock")), shard(&format!("BX_SESS.{id}")));
        }
    }

    #[test]
    fn the_place_of_a_key_never_changes() {
        // Nodes of different versions share a cluster.
        let found = ["", "a", "memc.sess.key.lock.0123456789"].map(|key| rules().shard(key.as_bytes()).index());
        assert_eq!(found, [300, 19, 101]);
    }
}
