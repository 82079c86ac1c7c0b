//! Hash chains over the places of a slab. Linear hashing (Litwin, VLDB 1980): the table grows by one chain at a time,
//! so that no insertion pays for rehashing everything.

use super::slab::{NIL, Slab};

/// Chains of an empty shard.
const FIRST: usize = 64;
/// Items of a chain, on the average.
const LOAD: usize = 2;
/// The vector of chains grows by one part in so many: doubling it would leave half of it unused.
const GROWTH_SHARE: usize = 8;

#[derive(Debug)]
pub struct Table {
    heads: Vec<u32>,
    items: usize,
}

impl Table {
    pub fn new() -> Self {
        Table {
            heads: vec![NIL; FIRST],
            items: 0,
        }
    }

    /// The place whose record has that key.
    pub fn find(&self, slab: &Slab, hash: u32, key: &[u8]) -> Option<u32> {
        let mut place = self.heads[self.chain_of(hash)];
        while place != NIL {
            let slot = &slab[place];
            if slot.hash == hash && slot.record.key() == key {
                return Some(place);
            }
            place = slot.chain;
        }
        None
    }

    /// Adds a place by the hash in it.
    pub fn insert(&mut self, slab: &mut Slab, place: u32) {
        self.items += 1;
        if self.items > self.heads.len() * LOAD {
            self.split(slab);
        }
        self.push(slab, place);
    }

    pub fn remove(&mut self, slab: &mut Slab, place: u32) {
        let chain = self.chain_of(slab[place].hash);
        let next = std::mem::replace(&mut slab[place].chain, NIL);
        let mut at = self.heads[chain];
        if at == place {
            self.heads[chain] = next;
        } else {
            while slab[at].chain != place {
                at = slab[at].chain;
            }
            slab[at].chain = next;
        }
        self.items -= 1;
    }

    pub fn len(&self) -> usize {
        self.items
    }

    pub fn bytes(&self) -> usize {
        self.heads.capacity() * size_of::<u32>()
    }

    fn push(&mut self, slab: &mut Slab, place: u32) {
        let chain = self.chain_of(slab[place].hash);
        slab[place].chain = std::mem::replace(&mut self.heads[chain], place);
    }

    fn chain_of(&self, hash: u32) -> usize {
        let wide = self.heads.len().next_power_of_two();
        let chain = hash as usize & (wide - 1);
        if chain < self.heads.len() {
            chain
        } else {
            chain & (wide / 2 - 1)
        }
    }

    /// Adds one chain and moves its items over from the one chain that held them so far.
    fn split(&mut self, slab: &mut Slab) {
        let fresh = self.heads.len();
        if fresh == self.heads.capacity() {
            self.heads.reserve_exact(fresh / GROWTH_SHARE);
        }
        self.heads.push(NIL);
        let from = fresh & ((fresh + 1).next_power_of_two() / 2 - 1);
        let mut place = std::mem::replace(&mut self.heads[from], NIL);
        while place != NIL {
            let next = slab[place].chain;
            self.push(slab, place);
            place = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;

    #[test]
    fn every_item_is_found_while_the_table_grows_and_shrinks() {
        let (mut slab, mut table) = (Slab::new(), Table::new());
        let hash = |number: u32| number.wrapping_mul(0x9e37_79b9);
        let places: Vec<u32> = (0..1000u32)
            .map(|number| {
                let place = slab.take();
                slab[place].hash = hash(number);
                slab[place].record = Record::new(&number.to_le_bytes(), b"", b"");
                table.insert(&mut slab, place);
                for earlier in [0, number / 2, number] {
                    let found = table.find(&slab, hash(earlier), &earlier.to_le_bytes());
                    assert!(found.is_some(), "{earlier} of {number}");
                }
                place
            })
            .collect();
        for (number, place) in (0..1000u32).zip(places) {
            assert_eq!(table.find(&slab, hash(number), &number.to_le_bytes()), Some(place));
            table.remove(&mut slab, place);
            slab.give_back(place);
            assert_eq!(table.find(&slab, hash(number), &number.to_le_bytes()), None);
        }
        assert_eq!(table.len(), 0);
    }
}
