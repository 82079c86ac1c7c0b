//! The bytes of one write as whole blocks in memory that is aligned like them, so that they can go to the disk past the page
//! cache. No I/O.
//!
//! Records are packed, so a write begins within the block in which the one before ended: its bytes are written once more.

/// What direct input and output asks for: no disk has larger sectors.
pub const BLOCK: usize = 4096;

/// One write at a time; kept for its memory.
#[derive(Debug, Default)]
pub struct Blocks {
    bytes: Vec<u8>,
    /// Where the first block begins in `bytes`.
    start: usize,
}

/// Where the block begins in which `end` lies.
pub fn floor(end: u32) -> u32 {
    end - end % BLOCK as u32
}

impl Blocks {
    /// Begins a write with the bytes of the block that the last one has left unfinished; `expected` more will follow.
    pub fn begin(&mut self, unfinished: &[u8], expected: usize) {
        self.bytes.clear();
        self.bytes.reserve(unfinished.len() + expected + 2 * BLOCK);
        self.start = self.bytes.as_ptr().align_offset(BLOCK);
        self.bytes.resize(self.start, 0);
        self.bytes.extend_from_slice(unfinished);
    }

    /// Where records are appended.
    pub fn records(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes from the start of the first block.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The blocks; zeros fill the last one, and as many more as fit into `zeros` bytes.
    pub fn whole(&mut self, zeros: usize) -> &[u8] {
        let length = self.len().next_multiple_of(BLOCK) + zeros - zeros % BLOCK;
        self.bytes.resize(self.start + length, 0);
        if self.bytes[self.start..].as_ptr().align_offset(BLOCK) != 0 {
            // More came than was expected, and the memory has moved.
            let moved = self.bytes.split_off(self.start);
            self.begin(&moved, 0);
        }
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_aligned_however_much_comes() {
        let mut blocks = Blocks::default();
        for (unfinished, expected, more) in [(0, 0, 1), (100, 50, 50), (4095, 10, 1_000_000), (10, 1 << 20, 1 << 20)] {
            blocks.begin(&vec![1; unfinished], expected);
            blocks.records().extend(vec![2; more]);
            assert_eq!(blocks.len(), unfinished + more);
            let whole = blocks.whole(0);
            assert_eq!((whole.len() % BLOCK, whole.as_ptr().align_offset(BLOCK)), (0, 0));
            assert!(whole.len() < unfinished + more + BLOCK);
            let (first, rest) = whole.split_at(unfinished);
            let (second, zeros) = rest.split_at(more);
            assert!(first.iter().all(|byte| *byte == 1) && second.iter().all(|byte| *byte == 2));
            assert!(zeros.iter().all(|byte| *byte == 0));
        }
        blocks.begin(&[1], 1);
        let whole = blocks.whole(3 * BLOCK + 1);
        assert_eq!((whole.len(), whole[0], whole[1]), (4 * BLOCK, 1, 0));
    }
}
