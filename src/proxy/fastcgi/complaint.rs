//! What PHP writes to STDERR, as bounded lines of our log.

use bytes::Bytes;
use tracing::warn;

use crate::proxy::id::Id;

/// Longest line that is logged whole.
const LINE: usize = 2048;

/// Most bytes that are logged of one request; a script in a loop must not fill the disk.
const REQUEST: usize = 32 * 1024;

/// Collects lines of one request; logs the last one when dropped.
pub struct Complaints {
    id: Id,
    line: Vec<u8>,
    left: usize,
}

impl Complaints {
    pub fn new(id: Id) -> Self {
        Complaints {
            id,
            line: Vec::new(),
            left: REQUEST,
        }
    }

    pub fn add(&mut self, bytes: &Bytes) {
        for (index, part) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.log();
            }
            let room = LINE.saturating_sub(self.line.len()).min(self.left);
            let part = part.get(..room).unwrap_or(part);
            self.left -= part.len();
            self.line.extend_from_slice(part);
        }
    }

    fn log(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if !line.is_empty() {
            warn!(request = %self.id, line, "PHP complained");
        }
        self.line.clear();
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        self.log();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_requests_are_bounded() {
        let mut complaints = Complaints::new(Id::parse("0123456789abcdef").expect("an id"));
        complaints.add(&Bytes::from(vec![b'x'; 3 * LINE]));
        assert_eq!(complaints.line.len(), LINE);
        complaints.add(&Bytes::from_static(b"\nnext"));
        assert_eq!(complaints.line, b"next");
        for _ in 0..2 * REQUEST / LINE {
            complaints.add(&Bytes::from(vec![b'\n'; 1]));
            complaints.add(&Bytes::from(vec![b'y'; LINE]));
        }
        assert_eq!((complaints.left, complaints.line.len()), (0, 0));
    }
}
