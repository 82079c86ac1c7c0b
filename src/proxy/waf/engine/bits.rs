//! Sets of small numbers as bits in words, and many such sets in one block of memory: a request makes hundreds of them.

pub fn has(words: &[u64], number: u32) -> bool {
    words[number as usize / 64] >> (number % 64) & 1 == 1
}

pub fn insert(words: &mut [u64], number: u32) {
    words[number as usize / 64] |= 1 << (number % 64);
}

pub fn remove(words: &mut [u64], number: u32) {
    words[number as usize / 64] &= !(1 << (number % 64));
}

pub fn join(words: &mut [u64], other: &[u64]) {
    words.iter_mut().zip(other).for_each(|(own, other)| *own |= other);
}

pub fn keep(words: &mut [u64], other: &[u64]) {
    words.iter_mut().zip(other).for_each(|(own, other)| *own &= other);
}

pub fn numbers(words: &[u64]) -> impl Iterator<Item = u32> {
    words.iter().enumerate().flat_map(|(place, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = left.checked_ilog2()?;
            left &= !(1 << bit);
            Some(place as u32 * 64 + bit)
        })
    })
}

/// The place of a set in its `Sets`.
pub type Set = u32;

/// Sets of one width, which only become more.
#[derive(Debug, Default)]
pub struct Sets {
    width: usize,
    words: Vec<u64>,
}

impl Sets {
    pub fn new(width: usize, expected: usize) -> Sets {
        Sets {
            width,
            words: Vec::with_capacity(width * expected),
        }
    }

    pub fn add_empty(&mut self) -> Set {
        let place = self.words.len();
        self.words.resize(place + self.width, 0);
        place as Set
    }

    pub fn get(&self, set: Set) -> &[u64] {
        &self.words[set as usize..][..self.width]
    }

    pub fn get_mut(&mut self, set: Set) -> &mut [u64] {
        &mut self.words[set as usize..][..self.width]
    }

    /// `set` becomes all that is in it, and what is in both of `from` and `mask`.
    pub fn join_common(&mut self, set: Set, from: Set, mask: &[u64]) {
        for (word, mask) in mask.iter().enumerate() {
            self.words[set as usize + word] |= self.words[from as usize + word] & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_in_and_come_out() {
        let mut sets = Sets::new(2, 1);
        let (one, other) = (sets.add_empty(), sets.add_empty());
        [3, 64, 127]
            .iter()
            .for_each(|number| insert(sets.get_mut(one), *number));
        sets.join_common(other, one, &[u64::MAX, 1]);
        let mut found: Vec<u32> = numbers(sets.get(other)).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 64]);
        assert!(has(sets.get(one), 127) && !has(sets.get(other), 127));
        let mut words = [0, 0];
        join(&mut words, sets.get(other));
        remove(&mut words, 3);
        assert_eq!(words, [0, 1]);
        join(&mut words, sets.get(one));
        keep(&mut words, &[u64::MAX, 0]);
        assert_eq!(words, [8, 0]);
    }
}
