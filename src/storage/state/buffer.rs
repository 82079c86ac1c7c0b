//! Buffers for large reads, used again and again: a fresh one costs the kernel a page fault for every 4 KiB.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::HELD;
use crate::storage::call::DATA_MAX;

/// Smaller ones are the allocator's.
const LARGE: usize = 64 << 10;
/// Kept while nobody reads: 8 MiB.
const KEPT: usize = 8;

/// Buffers of `DATA_MAX` bytes that are free.
#[derive(Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that goes back when the last who reads it is done.
struct Lent {
    buffer: Vec<u8>,
    filled: usize,
    home: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// Bytes that `fill` puts into a buffer of `count`; it says how many they are.
    pub fn fill(&self, count: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
        if !(LARGE..=DATA_MAX).contains(&count) {
            let mut buffer = vec![0; count];
            let filled = fill(&mut buffer)?;
            buffer.truncate(filled);
            return Ok(buffer.into());
        }
        let free = self.0.lock().expect(HELD).pop();
        let mut lent = Lent {
            buffer: free.unwrap_or_else(|| vec![0; DATA_MAX]),
            filled: 0,
            home: self.0.clone(),
        };
        lent.filled = fill(&mut lent.buffer[..count])?.min(count);
        Ok(Bytes::from_owner(lent))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.home.lock().expect(HELD);
        if free.len() < KEPT {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &Buffers, count: usize, byte: u8, filled: usize) -> Bytes {
        let fill = |buffer: &mut [u8]| {
            assert_eq!(buffer.len(), count);
            buffer[..filled].fill(byte);
            Ok(filled)
        };
        buffers.fill(count, fill).unwrap()
    }

    #[test]
    fn a_buffer_is_used_again_only_when_nobody_reads_it() {
        let buffers = Buffers::default();
        let first = filled(&buffers, LARGE, 1, LARGE);
        let part = first.slice(10..20);
        drop(first);
        let second = filled(&buffers, DATA_MAX, 2, 100);
        assert_eq!((&part[..], &second[..]), (&[1; 10][..], &[2; 100][..]));
        drop(part);
        let third = filled(&buffers, LARGE, 3, 5);
        assert_eq!((&second[..], &third[..]), (&[2; 100][..], &[3; 5][..]));
        assert_eq!(buffers.0.lock().unwrap().len(), 0);
    }

    #[test]
    fn few_are_kept_and_none_for_small_reads() {
        let buffers = Buffers::default();
        let many: Vec<_> = (0..KEPT + 5).map(|_| filled(&buffers, LARGE, 1, LARGE)).collect();
        drop(many);
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT);
        drop(filled(&buffers, LARGE - 1, 1, 7));
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT);
        let failed = buffers.fill(LARGE, |_| Err(io::ErrorKind::NotFound.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT, "it went back");
    }
}
