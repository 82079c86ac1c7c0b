//! Virtual shards: keys are given to nodes in these portions. Pure.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// How many there are. Part of the protocol between nodes.
pub const SHARDS: usize = 512;

const WORDS: usize = SHARDS / 64;

/// One of `SHARDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u16);

impl Shard {
    /// Where a key belongs, by the part of it that decides its route. The same on every node: the hash has a fixed key.
    pub fn of(routing: &[u8]) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(routing);
        let index = hasher.finish() % SHARDS as u64;
        Shard(u16::try_from(index).expect("there are fewer"))
    }

    /// `None`: there is no such shard.
    pub fn new(index: usize) -> Option<Self> {
        (index < SHARDS).then(|| Shard(u16::try_from(index).expect("there are fewer")))
    }

    pub fn all() -> impl Iterator<Item = Shard> {
        (0..SHARDS).filter_map(Shard::new)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of shards; copying it is cheap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet([u64; WORDS]);

impl ShardSet {
    pub const EMPTY: ShardSet = ShardSet([0; WORDS]);
    pub const ALL: ShardSet = ShardSet([u64::MAX; WORDS]);

    pub fn has(&self, shard: Shard) -> bool {
        self.0[shard.index() / 64] & bit(shard) != 0
    }

    pub fn insert(&mut self, shard: Shard) {
        self.0[shard.index() / 64] |= bit(shard);
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = Shard> {
        let set = *self;
        Shard::all().filter(move |shard| set.has(*shard))
    }

    /// Those in both.
    #[must_use]
    pub fn and(&self, other: &ShardSet) -> ShardSet {
        ShardSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Those in this one and not in the other.
    #[must_use]
    pub fn minus(&self, other: &ShardSet) -> ShardSet {
        ShardSet(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let mut set = ShardSet::EMPTY;
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

fn bit(shard: Shard) -> u64 {
    1 << (shard.index() % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_its_shard_over_versions() {
        let shards = ["", "a", "memc.sess.key.0123456789", "BX|v1"].map(|key| Shard::of(key.as_bytes()).index());
        assert_eq!(shards, [300, 19, 101, 432]);
    }

    #[test]
    fn keys_are_spread_evenly() {
        let mut counts = [0; SHARDS];
        (0..SHARDS * 100).for_each(|number| counts[Shard::of(format!("key{number}").as_bytes()).index()] += 1);
        assert!(counts.iter().all(|count| (50..160).contains(count)), "{counts:?}");
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: ShardSet = [0, 63, 64, 511].into_iter().filter_map(Shard::new).collect();
        assert_eq!(set.iter().map(Shard::index).collect::<Vec<_>>(), [0, 63, 64, 511]);
        assert_eq!((set.len(), ShardSet::ALL.len()), (4, SHARDS));
        assert!(set.minus(&set).is_empty() && set.and(&ShardSet::ALL) == set);
        assert_eq!(Shard::new(SHARDS), None);
    }
}
