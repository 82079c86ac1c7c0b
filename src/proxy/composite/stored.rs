//! What is said to the cache, what it says of a page, and the page in both its forms. Pure.

use std::hash::Hasher;
use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use siphasher::sip::SipHasher13;

/// Longest key of memcached's protocol.
const KEY: usize = 250;

/// With this flag the portal stores a page that it has compressed; any other is not meant for web servers.
const GZIP: u32 = 1 << 16;

/// A page is some hundred KiB; what unpacks to more than this is none.
const MOST: u64 = 16 << 20;

/// Where a page says its character set, at the latest.
const HEAD: u64 = 64 << 10;

/// The first line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Missing,
    Value { flags: u32, length: usize },
}

/// A page as the cache has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub bytes: Bytes,
    pub is_packed: bool,
}

/// The question for a key; `None`: there cannot be such a key.
pub fn question(key: &str) -> Option<Vec<u8>> {
    let is_key = (1..=KEY).contains(&key.len()) && key.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    is_key.then(|| format!("get {key}\r\n").into_bytes())
}

/// Reads the first line, without its end. `None`: something else than an answer to the question.
pub fn head(line: &str, key: &str) -> Option<Head> {
    let mut words = line.split(' ');
    match words.next()? {
        "END" if words.next().is_none() => Some(Head::Missing),
        "VALUE" => {
            let (name, flags, length) = (words.next()?, words.next()?, words.next()?);
            let value = Head::Value {
                flags: flags.parse().ok()?,
                length: length.parse().ok()?,
            };
            (name == key && words.next().is_none()).then_some(value)
        }
        _ => None,
    }
}

impl Stored {
    /// `None`: a value that is no page, or that only PHP can read.
    pub fn new(flags: u32, bytes: Bytes) -> Option<Self> {
        let is_packed = match flags {
            0 => false,
            GZIP => true,
            _ => return None,
        };
        let starts = bytes.starts_with(&[0x1f, 0x8b]);
        (!bytes.is_empty() && starts == is_packed).then_some(Stored { bytes, is_packed })
    }

    /// The page itself. `None`: it is damaged, or unpacks to more than a page is.
    pub fn plain(&self) -> Option<Bytes> {
        match self.is_packed {
            false => Some(self.bytes.clone()),
            true => unpack(&self.bytes, MOST)
                .filter(|page| page.len() as u64 <= MOST)
                .map(Bytes::from),
        }
    }

    /// As much of the page as holds its head.
    pub fn beginning(&self) -> Option<Bytes> {
        match self.is_packed {
            false => Some(self.bytes.clone()),
            true => {
                let mut page = Vec::new();
                GzDecoder::new(&*self.bytes).take(HEAD).read_to_end(&mut page).ok()?;
                Some(page.into())
            }
        }
    }

    /// Weak: it names the page in either form.
    pub fn tag(&self) -> String {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.bytes);
        format!("W/\"{:016x}-{:x}\"", hasher.finish(), self.bytes.len())
    }
}

/// One byte more than `most` where there is more.
fn unpack(packed: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut page = Vec::new();
    GzDecoder::new(packed).take(most + 1).read_to_end(&mut page).ok()?;
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    fn packed(text: &[u8]) -> Bytes {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(4));
        writer.write_all(text).expect("memory");
        writer.finish().expect("memory").into()
    }

    #[test]
    fn answers_are_read_and_nothing_else_is() {
        let key = "/portal.example/index@.html";
        assert_eq!(head("END", key), Some(Head::Missing));
        let value = Head::Value {
            flags: 65536,
            length: 7,
        };
        assert_eq!(head(&format!("VALUE {key} 65536 7"), key), Some(value));
        for line in [
            "",
            "ERROR",
            "SERVER_ERROR busy",
            "END ",
            "VALUE /other 0 7",
            &format!("VALUE {key} 0"),
            &format!("VALUE {key} 0 -7"),
            &format!("VALUE {key} 0 7 9"),
        ] {
            assert_eq!(head(line, key), None, "{line}");
        }
    }

    #[test]
    fn no_key_is_more_than_one() {
        assert_eq!(
            question("/a/index@.html").as_deref(),
            Some(&b"get /a/index@.html\r\n"[..])
        );
        for key in ["", "/a b", "/a\r\nflush_all", &"a".repeat(251)] {
            assert_eq!(question(key), None, "{key}");
        }
    }

    #[test]
    fn pages_come_in_two_forms() {
        let page = b"<head><meta charset=utf-8></head>".repeat(1000);
        let plain = Stored::new(0, page.clone().into()).expect("a page");
        let both = Stored::new(GZIP, packed(&page)).expect("a page");
        assert_eq!(plain.plain(), both.plain());
        assert!(both.beginning().is_some_and(|start| page.starts_with(&start)));
        assert_ne!(plain.tag(), Stored::new(0, "other".into()).expect("a page").tag());
        for (flags, bytes) in [
            (0, packed(&page)),
            (GZIP, page.clone().into()),
            (16, packed(&page)),
            (GZIP | 4, packed(&page)),
            (0, Bytes::new()),
        ] {
            assert_eq!(Stored::new(flags, bytes), None, "{flags}");
        }
        let mut damaged = packed(&page).to_vec();
        damaged.truncate(damaged.len() / 2);
        assert_eq!(
            Stored::new(GZIP, damaged.into()).and_then(|stored| stored.plain()),
            None
        );
        let bomb = Stored::new(GZIP, packed(&vec![0; (MOST + 1) as usize])).expect("a page");
        assert_eq!(bomb.plain(), None);
    }
}
