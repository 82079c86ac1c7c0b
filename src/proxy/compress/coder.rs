//! `Coder`: one stream through one of the three encoders. No I/O.
//!
//! Levels are those at which a page costs about as little as its way through the front; the window is what text of a portal's size
//! gains by, and far below the 8 MiB that a zstd client must have (RFC 9659).

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::Coding;

/// Levels of the encoders, and the logarithm of the window.
struct Effort {
    gzip: u32,
    brotli: i32,
    zstd: i32,
    window: u8,
}

/// A window of 256 KiB: with their tables coders have 0.4 MiB (gzip), 1.4 (zstd) and 2.2 (brotli), however long the answer.
const STREAMED: Effort = Effort {
    gzip: 5,
    brotli: 4,
    zstd: 3,
    window: 18,
};

/// For what is compressed once: about as much smaller as it is worth waiting for, a few hundredths of a second for 100 KiB.
const ONCE: Effort = Effort {
    gzip: 9,
    brotli: 9,
    zstd: 15,
    window: 21,
};

/// brotli's own buffer of output.
const BROTLI_BUFFER: usize = 4096;

pub enum Coder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Coder {
    /// `length`: of the whole content, if that is known: then there must be neither more nor less.
    pub fn new(coding: Coding, length: Option<u64>) -> io::Result<Self> {
        Self::with(coding, length, &STREAMED)
    }

    fn with(coding: Coding, length: Option<u64>, effort: &Effort) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Coder::Gzip(GzEncoder::new(Vec::new(), Compression::new(effort.gzip))),
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: effort.brotli,
                    lgwin: i32::from(effort.window),
                    size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
                    ..BrotliEncoderParams::default()
                };
                Coder::Brotli(Box::new(CompressorWriter::with_params(
                    Vec::new(),
                    BROTLI_BUFFER,
                    &params,
                )))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), effort.zstd)?;
                encoder.window_log(u32::from(effort.window))?;
                encoder.set_pledged_src_size(length)?;
                Coder::Zstd(encoder)
            }
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Coder::Gzip(encoder) => encoder.write_all(bytes),
            Coder::Brotli(encoder) => encoder.write_all(bytes),
            Coder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Makes everything written so far readable for the client.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Coder::Gzip(encoder) => encoder.flush(),
            Coder::Brotli(encoder) => encoder.flush(),
            Coder::Zstd(encoder) => encoder.flush(),
        }
    }

    /// The end of the stream, and what was not taken yet.
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Coder::Gzip(encoder) => encoder.finish()?,
            Coder::Brotli(encoder) => encoder.into_inner(),
            Coder::Zstd(encoder) => encoder.finish()?,
        }
        .into())
    }

    /// Bytes that can be taken.
    pub fn ready(&mut self) -> usize {
        self.output().len()
    }

    pub fn take(&mut self) -> Bytes {
        std::mem::take(self.output()).into()
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Coder::Gzip(encoder) => encoder.get_mut(),
            Coder::Brotli(encoder) => encoder.get_mut(),
            Coder::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

/// The whole of a content that is sent often: slower than a stream, and smaller. Blocking.
pub fn pack(coding: Coding, content: &[u8]) -> io::Result<Bytes> {
    let mut coder = Coder::with(coding, Some(content.len() as u64), &ONCE)?;
    coder.write(content)?;
    coder.finish()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    use std::io::Read;

    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// As much as can be read of a stream, which may be cut off.
    pub fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut reader: Box<dyn Read + '_> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).expect("a decoder")),
        };
        // One by one: an error at the end must not take what was read before it.
        let (mut content, mut chunk) = (Vec::new(), [0; 1]);
        while let Ok(count @ 1..) = reader.read(&mut chunk) {
            content.extend_from_slice(&chunk[..count]);
        }
        content
    }

    fn text(size: usize) -> Vec<u8> {
        let words = ["<div class=\"task\">", "портал ", "deal ", "id=", "</div>\n"];
        let mut text = Vec::new();
        for turn in 0usize.. {
            if text.len() >= size {
                break;
            }
            text.extend_from_slice(words[turn * turn % 5].as_bytes());
            text.extend_from_slice((turn * 7919 % 1009).to_string().as_bytes());
        }
        text.truncate(size);
        text
    }

    #[test]
    fn content_comes_back_whole_and_smaller() {
        for coding in ALL {
            for size in [0, 1, 1000, 300_000] {
                let content = text(size);
                for length in [None, Some(size as u64)] {
                    let mut coder = Coder::new(coding, length).expect("made");
                    let mut coded = Vec::new();
                    for part in content.chunks(1713) {
                        coder.write(part).expect("written");
                        coded.extend(coder.take());
                    }
                    coded.extend(coder.finish().expect("finished"));
                    assert!(decoded(coding, &coded) == content, "{coding:?} {size}");
                    assert!(
                        size < 1000 || coded.len() * 2 < size,
                        "{coding:?} {size}: {}",
                        coded.len()
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_packed_once_is_smaller() {
        let content = text(100_000);
        for coding in ALL {
            let packed = pack(coding, &content).expect("packed");
            assert!(decoded(coding, &packed) == content, "{coding:?}");
            let mut coder = Coder::new(coding, None).expect("made");
            coder.write(&content).expect("written");
            let streamed = coder.finish().expect("finished");
            // A made-up text; of real ones it saves a tenth and more.
            assert!(
                packed.len() * 20 <= streamed.len() * 21,
                "{coding:?} {} {}",
                packed.len(),
                streamed.len()
            );
        }
    }

    #[test]
    fn what_is_flushed_can_be_read() {
        for coding in ALL {
            let mut coder = Coder::new(coding, None).expect("made");
            let mut coded = Vec::new();
            for turn in 1..4 {
                coder.write(b"data: one\n\n").expect("written");
                coder.flush().expect("flushed");
                coded.extend(coder.take());
                assert_eq!(decoded(coding, &coded), b"data: one\n\n".repeat(turn), "{coding:?}");
            }
        }
    }

    #[test]
    fn zstd_windows_are_those_that_every_client_has() {
        let mut coder = Coder::new(Coding::Zstd, None).expect("made");
        coder.write(&text(3 << 20)).expect("written");
        let coded = coder.finish().expect("finished");
        // RFC 8878 §3.1.1.1: after the magic number a descriptor, then the window's.
        assert_eq!(coded[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!(coded[4] & 0x20, 0, "a frame with a window of its own");
        let exponent = coded[5] >> 3;
        assert!(10 + exponent <= 23, "2^{} bytes", 10 + exponent);
    }
}
