//! Which keys are asked for most: a bounded count over a sample, for `cache top-keys`. Space saving (Metwally et al., ICDT 2005): a key
//! that is not counted takes the place of the rarest and its count, so that frequent ones stay whoever comes by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Keys that are counted; those of the first ten or twenty are near the truth.
const PLACES: usize = 256;
/// One of so many reads of a connection is looked at.
const SAMPLE: u64 = 16;
/// Counts are halved so often, so that what was hot yesterday is not shown.
const HALVE_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub struct Hot {
    turns: AtomicU64,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    places: Vec<(Box<[u8]>, u64)>,
    halved_at: u64,
}

impl Hot {
    /// Whether this turn belongs to the sample.
    pub fn is_sampled(&self) -> bool {
        self.turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE)
    }

    /// Counts a key of the sample. Gives up when somebody else counts just now.
    pub fn count(&self, key: &[u8], now: u64) {
        if let Ok(mut counted) = self.counted.try_lock() {
            counted.count(key, now);
        }
    }

    /// Keys and how often they were asked for in the last minute or two, about; most frequent first.
    pub fn top(&self, most: usize) -> Vec<(Box<[u8]>, u64)> {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = counted.places.clone();
        drop(counted);
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        found.truncate(most);
        for (_, count) in &mut found {
            *count *= SAMPLE;
        }
        found
    }
}

impl Counted {
    fn count(&mut self, key: &[u8], now: u64) {
        if now.saturating_sub(self.halved_at) >= HALVE_MS {
            self.halved_at = now;
            self.places.retain_mut(|(_, count)| {
                *count /= 2;
                *count > 0
            });
        }
        if let Some((_, count)) = self.places.iter_mut().find(|(known, _)| **known == *key) {
            *count += 1;
        } else if self.places.len() < PLACES {
            self.places.push((key.into(), 1));
        } else if let Some(rarest) = self.places.iter_mut().min_by_key(|(_, count)| *count) {
            *rarest = (key.into(), rarest.1 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_keys_stay_among_many_that_come_by_once() {
        let hot = Hot::default();
        for number in 0..20_000u64 {
            hot.count(format!("rare{number}").as_bytes(), 0);
            if number % 10 == 0 {
                hot.count(b"first", 0);
            }
            if number % 20 == 0 {
                hot.count(b"second", 0);
            }
        }
        let top: Vec<Box<[u8]>> = hot.top(2).into_iter().map(|(key, _)| key).collect();
        assert_eq!(top, [b"first"[..].into(), b"second"[..].into()]);
        for minute in 1..20 {
            hot.count(b"now", minute * HALVE_MS);
        }
        assert_eq!(&*hot.top(1)[0].0, b"now");
        let sampled = (0..160).filter(|_| hot.is_sampled()).count();
        assert_eq!(sampled, 10);
    }
}
