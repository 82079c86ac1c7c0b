//! Where HTTP/3 frames begin and end on a stream (RFC 9114 §7.1). A codec: no I/O, no clock.
//!
//! h3 keeps a frame that is no DATA in memory until it is whole, however long it says that it is, and reads on while pieces of a body
//! wait. So every byte of a client's streams passes here first: in pieces that end where a frame does, without frames that nobody
//! knows, and none but DATA beyond a bound. An empty DATA frame, which h3 takes for the end of the body, is left out.

use bytes::{Buf, Bytes};

const DATA: u64 = 0x00;
/// Reserved and extension frames begin here; what is not known is to be passed over (RFC 9114 §9).
const FIRST_UNKNOWN: u64 = 0x10;
/// Stream type (RFC 9114 §6.2.1).
const CONTROL: u64 = 0x00;

/// A frame that is too long to be kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// The reader of one stream.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of a frame that is no DATA.
    most: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The type of a unidirectional stream.
    Kind(Head),
    Frame(Head),
    Payload(u64),
    Skipped(u64),
    /// No frames, or none that we look at.
    Open,
}

/// Up to two variable-length integers (RFC 9000 §16).
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; 16],
    len: usize,
}

impl Frames {
    /// Of a request.
    pub fn of_request(most: u64) -> Self {
        Frames {
            most,
            state: State::Frame(Head::default()),
        }
    }

    /// Of a unidirectional stream: only the control stream has frames.
    pub fn of_control(most: u64) -> Self {
        Frames {
            most,
            state: State::Kind(Head::default()),
        }
    }

    /// Takes the next piece from `input`; `None`: it is used up.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, TooLong> {
        while input.has_remaining() {
            match &mut self.state {
                State::Open => return Ok(Some(input.split_to(input.len()))),
                State::Payload(left) => {
                    let piece = input.split_to(within(*left, input));
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.state = State::Frame(Head::default());
                    }
                    return Ok(Some(piece));
                }
                State::Skipped(left) => {
                    let count = within(*left, input);
                    input.advance(count);
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = State::Frame(Head::default());
                    }
                }
                State::Kind(head) => {
                    head.push(input.get_u8());
                    let Some((kind, len)) = head.integer(0) else { continue };
                    let piece = head.copy(len);
                    self.state = match kind {
                        CONTROL => State::Frame(Head::default()),
                        _ => State::Open,
                    };
                    return Ok(Some(piece));
                }
                State::Frame(head) => {
                    head.push(input.get_u8());
                    let Some((kind, first)) = head.integer(0) else { continue };
                    let Some((length, second)) = head.integer(first) else {
                        continue;
                    };
                    let piece = head.copy(first + second);
                    if let Some(piece) = self.begin(kind, length, piece)? {
                        return Ok(Some(piece));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here.
    pub fn is_between(&self) -> bool {
        match &self.state {
            State::Kind(head) | State::Frame(head) => head.len == 0,
            State::Open => true,
            State::Payload(_) | State::Skipped(_) => false,
        }
    }

    fn begin(&mut self, kind: u64, length: u64, head: Bytes) -> Result<Option<Bytes>, TooLong> {
        let is_known = kind < FIRST_UNKNOWN;
        if is_known && kind != DATA && length > self.most {
            return Err(TooLong);
        }
        self.state = match length {
            0 => State::Frame(Head::default()),
            _ if is_known => State::Payload(length),
            _ => State::Skipped(length),
        };
        Ok((is_known && (kind != DATA || length > 0)).then_some(head))
    }
}

impl Head {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// The integer that begins there, and how many bytes it has; `None`: it is not whole.
    fn integer(&self, at: usize) -> Option<(u64, usize)> {
        let bytes = self.bytes.get(at..self.len)?;
        let first = *bytes.first()?;
        let len = 1 << (first >> 6);
        let rest = bytes.get(1..len)?;
        let value = rest
            .iter()
            .fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
        Some((value, len))
    }

    fn copy(&self, len: usize) -> Bytes {
        Bytes::copy_from_slice(self.bytes.get(..len).unwrap_or_default())
    }
}

fn within(left: u64, input: &Bytes) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(input.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pieces, if the input comes in parts of that size.
    fn pieces(frames: &mut Frames, bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut all = Vec::new();
        for part in bytes.chunks(step) {
            let mut input = Bytes::copy_from_slice(part);
            while let Some(piece) = frames.next(&mut input)? {
                all.push(piece.to_vec());
            }
        }
        Ok(all)
    }

    #[test]
    fn pieces_end_where_frames_do() {
        // HEADERS of 3, DATA of 2 and of 1 with a long form of its length.
        let bytes = [1, 3, 9, 9, 9, 0, 2, 7, 7, 0, 0x40, 1, 8];
        let whole = pieces(&mut Frames::of_request(16), &bytes, bytes.len()).unwrap();
        assert_eq!(whole, [&[1, 3][..], &[9, 9, 9], &[0, 2], &[7, 7], &[0, 0x40, 1], &[8]]);
        for step in 1..bytes.len() {
            let mut frames = Frames::of_request(16);
            assert_eq!(pieces(&mut frames, &bytes, step).unwrap().concat(), bytes);
            assert!(frames.is_between());
        }
    }

    #[test]
    fn unknown_frames_and_empty_data_are_left_out() {
        // A reserved type of two bytes, an empty DATA, an empty reserved one.
        let bytes = [0x40, 0x21, 2, 5, 5, 0, 0, 0x21, 0, 0, 1, 7];
        for step in 1..=bytes.len() {
            let found = pieces(&mut Frames::of_request(16), &bytes, step).unwrap();
            assert_eq!(found.concat(), [0, 1, 7]);
        }
    }

    #[test]
    fn long_frames_are_refused_but_data() {
        assert_eq!(pieces(&mut Frames::of_request(16), &[1, 17], 1), Err(TooLong));
        assert!(pieces(&mut Frames::of_request(16), &[1, 16], 1).is_ok());
        let huge = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let mut frames = Frames::of_request(16);
        assert_eq!(pieces(&mut frames, &huge, 3).unwrap().concat(), huge);
        assert!(!frames.is_between(), "it ends within a frame");
    }

    #[test]
    fn only_the_control_stream_has_frames() {
        let bytes = [0, 4, 17];
        assert_eq!(pieces(&mut Frames::of_control(16), &bytes, 1), Err(TooLong));
        let encoder = [2, 4, 17, 99, 1];
        let found = pieces(&mut Frames::of_control(16), &encoder, 2).unwrap();
        assert_eq!(found.concat(), encoder);
    }
}
