//! The newest entries in memory, bounded by bytes; replication and apply read them from here.

use std::collections::VecDeque;

use crate::storage::entry;
use crate::storage::types::Entry;

/// Consecutive entries up to the last of the log. Entries that are not on the disk yet are never dropped; they are few, for the
/// batcher has two proposals in flight.
#[derive(Debug)]
pub struct Cache {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
    /// Entries before this index are on the disk.
    durable: u64,
}

impl Cache {
    pub fn new(limit: usize) -> Self {
        Cache {
            entries: VecDeque::new(),
            bytes: 0,
            limit,
            durable: 0,
        }
    }

    pub fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.log_id.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// The index after the last entry; `None` when empty.
    pub fn next(&self) -> Option<u64> {
        self.entries.back().map(|entry| entry.log_id.index + 1)
    }

    /// Adds the entry after the last one.
    pub fn push(&mut self, entry: Entry) {
        if self.next().is_some_and(|next| next != entry.log_id.index) {
            self.clear();
        }
        self.bytes += entry::size(&entry.payload);
        self.entries.push_back(entry);
    }

    /// All entries before `next` are on the disk now.
    pub fn synced(&mut self, next: u64) {
        self.durable = next;
        while self.bytes > self.limit && self.entries.front().is_some_and(|entry| entry.log_id.index < next) {
            self.pop_front();
        }
    }

    /// Forgets `index` and all after it.
    pub fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= index) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry::size(&entry.payload);
            }
        }
        self.durable = self.durable.min(index);
    }

    /// Forgets all before `index`.
    pub fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index < index) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry::size(&entry.payload);
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::entry::Body;
    use crate::storage::types::log_id;
    use bytes::Bytes;
    use openraft::EntryPayload;

    fn filled(limit: usize, count: u64) -> Cache {
        let mut cache = Cache::new(limit);
        for index in 0..count {
            cache.push(Entry {
                log_id: log_id(1, 1, index),
                payload: EntryPayload::Normal(Body::Operations(vec![Bytes::from(vec![0; 1000]).into()])),
            });
        }
        cache
    }

    #[test]
    fn only_synced_entries_make_room() {
        let mut cache = filled(3000, 10);
        assert!(cache.get(0).is_some(), "nothing is on the disk yet");
        cache.synced(5);
        assert!(cache.get(4).is_none() && cache.get(5).is_some());
        cache.synced(10);
        assert!(cache.bytes <= 3000);
        assert!(cache.get(9).is_some());
    }

    #[test]
    fn truncated_and_purged_entries_are_gone() {
        let mut cache = filled(1 << 20, 10);
        cache.truncate(8);
        cache.purge(2);
        assert!(cache.get(8).is_none() && cache.get(1).is_none());
        assert_eq!(
            (cache.get(2).map(|entry| entry.log_id.index), cache.next()),
            (Some(2), Some(8))
        );
        cache.purge(100);
        assert_eq!(cache.bytes, 0);
    }
}
