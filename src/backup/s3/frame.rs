//! Content on a pipe in frames: four bytes of length, then so many. A frame without content is the end; a pipe that ends before it
//! was cut off.

use std::io::{self, Read, Write};

/// Larger ones are nobody's.
const LONGEST: usize = 1 << 24;

pub struct Frames<W>(pub W);

impl<W: Write> Frames<W> {
    pub fn end(mut self) -> io::Result<()> {
        self.0.write_all(&[0; 4])?;
        self.0.flush()
    }
}

impl<W: Write> Write for Frames<W> {
    /// All of it, as one frame.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = bytes.get(..bytes.len().min(LONGEST)).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(0);
        }
        let length = u32::try_from(bytes.len()).expect("at most LONGEST");
        self.0.write_all(&length.to_be_bytes())?;
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The next frame; `None`: the end. `UnexpectedEof`: it was cut off.
pub fn next(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 {
        return Ok(None);
    }
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_no_end() {
        let mut stream = Vec::new();
        let mut frames = Frames(&mut stream);
        frames.write_all(b"one").unwrap();
        frames.write_all(b"").unwrap();
        frames.write_all(b"two").unwrap();
        frames.end().unwrap();
        let mut from = stream.as_slice();
        assert_eq!(next(&mut from).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(next(&mut from).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(next(&mut from).unwrap(), None);
        for end in 0..stream.len() {
            let mut from = &stream[..end];
            let last = loop {
                match next(&mut from) {
                    Ok(Some(_)) => {}
                    last => break last,
                }
            };
            assert_eq!(last.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
        assert!(next(&mut &[0xff; 8][..]).is_err());
    }
}
