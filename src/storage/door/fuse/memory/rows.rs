//! Small records of fixed size. A row whose first word is zero is free.

use std::collections::HashMap;

use super::area::Area;

/// Words of a record.
pub type Row<const N: usize> = [u64; N];

/// Rows in shared memory, and where each lies.
pub struct Rows<const N: usize> {
    area: Area,
    free: Vec<usize>,
}

/// The table is full.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl<const N: usize> Rows<N> {
    pub fn new(area: Area) -> Self {
        let mut rows = Rows { area, free: Vec::new() };
        let count = rows.area.bytes().len() / (N * 8);
        rows.free = (0..count).rev().filter(|place| rows.first(*place) == 0).collect();
        rows
    }

    /// All rows, with their places.
    pub fn all(&self) -> HashMap<usize, Row<N>> {
        let count = self.area.bytes().len() / (N * 8);
        let used = (0..count).filter(|place| self.first(*place) != 0);
        used.map(|place| (place, self.row(place))).collect()
    }

    /// Adds a row; its place. The first word must not be zero.
    pub fn add(&mut self, row: &Row<N>) -> Result<usize, Full> {
        let place = self.free.pop().ok_or(Full)?;
        self.put(place, row);
        Ok(place)
    }

    /// Changes a row. Whoever comes next sees the old words or the new ones, but not always of one change: only the words
    /// behind the first may differ, and each alone must make sense.
    pub fn put(&mut self, place: usize, row: &Row<N>) {
        for (index, word) in row.iter().enumerate().skip(1) {
            self.area.set_u64((place * N + index) * 8, *word);
        }
        self.area.set_u64(place * N * 8, row[0]);
    }

    pub fn remove(&mut self, place: usize) {
        self.area.set_u64(place * N * 8, 0);
        self.free.push(place);
    }

    fn first(&self, place: usize) -> u64 {
        self.area.u64(place * N * 8)
    }

    fn row(&self, place: usize) -> Row<N> {
        std::array::from_fn(|index| self.area.u64((place * N + index) * 8))
    }
}

#[cfg(test)]
mod tests {
    use super::super::area::PAGE;
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    #[test]
    fn rows_are_there_for_the_next_until_removed() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let open = || Rows::<2>::new(Area::map(memory.try_clone().unwrap(), PAGE).unwrap());
        let mut rows = open();
        let first = rows.add(&[7, 1]).unwrap();
        let second = rows.add(&[8, 2]).unwrap();
        rows.put(second, &[8, 3]);
        rows.remove(first);
        let next = open();
        assert_eq!(next.all(), [(second, [8, 3])].into());
        let mut next = next;
        let room = PAGE / 16 - 1;
        assert!((0..room).all(|_| next.add(&[9, 0]).is_ok()));
        assert_eq!(next.add(&[9, 0]), Err(Full));
    }
}
