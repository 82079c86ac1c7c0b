//! One part of a backup, as a stream: content → zstd → age → SHA-256 → store, and back. Blocks; memory is bounded by the buffers of
//! the three.

use std::io::{self, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use age::{DecryptError, Decryptor, Encryptor};
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};

use super::Key;
use super::key::Recipients;
use super::manifest::Part;
use super::store::Upload;

/// Better levels cost more time than they save here: what is large in a portal is packed already.
const LEVEL: i32 = 3;
const CHUNK: usize = 128 << 10;

/// How many bytes of content went through, for a bar.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Puts what `content` gives into the store. On a failure nothing of that name is there.
pub fn pack(
    name: &str,
    content: &mut dyn Read,
    upload: Box<dyn Upload>,
    recipients: &Recipients,
    meter: &Meter,
) -> io::Result<Part> {
    let seal = Encryptor::with_recipients(recipients.0.iter().map(|one| one as _)).map_err(io::Error::other)?;
    let hashed = Hashed {
        inner: upload,
        sum: Sum::default(),
    };
    let mut packed = zstd::stream::write::Encoder::new(seal.wrap_output(hashed)?, LEVEL)?;
    packed.include_checksum(true)?;
    let count = copy(content, &mut packed, meter)?;
    let Hashed { inner, sum } = packed.finish()?.finish()?;
    inner.finish()?;
    Ok(Part {
        name: name.to_owned(),
        size: sum.size,
        sha256: sum.hex(),
        content: count,
    })
}

/// Gives the content of a part to `to`, and at the end says whether the part was whole and unchanged. What was given before counts
/// for nothing when this fails.
pub fn unpack(
    part: &Part,
    stored: Box<dyn Read + Send>,
    key: &Key,
    to: &mut dyn Write,
    meter: &Meter,
) -> io::Result<()> {
    let sum = Arc::new(Mutex::new(Sum::default()));
    let hashed = HashedRead {
        inner: stored,
        sum: sum.clone(),
    };
    let sealed = Decryptor::new_buffered(BufReader::with_capacity(CHUNK, hashed)).map_err(refusal)?;
    let packed = sealed.decrypt(std::iter::once(key.identity() as _)).map_err(refusal)?;
    let mut content = zstd::stream::read::Decoder::new(packed)?;
    let count = copy(&mut content, to, meter).map_err(harm)?;
    // Behind the last frame: there is nothing, or it is not what was written.
    let mut rest = content.finish();
    io::copy(&mut rest, &mut io::sink())?;
    let sum = std::mem::take(&mut *sum.lock().expect("no holder of this lock panics"));
    let is_whole = sum.size == part.size && count == part.content;
    if !is_whole || sum.hex() != part.sha256 {
        return Err(damaged(format!("{} is not what the manifest says it is", part.name)));
    }
    to.flush()
}

fn copy(from: &mut dyn Read, to: &mut dyn Write, meter: &Meter) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        meter.add(count);
        total += count as u64;
    }
}

fn refusal(error: DecryptError) -> io::Error {
    match error {
        DecryptError::NoMatchingKeys => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it was sealed for another key; name the right one with --key",
        ),
        other => damaged(format!("it cannot be opened: {other}")),
    }
}

/// What a part says that is not whole: each of the three ways that it is packed in words of its own.
fn harm(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            damaged(format!("it is damaged or cut off: {error}"))
        }
        _ => error,
    }
}

fn damaged(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Size and SHA-256 of what went by.
struct Sum {
    context: Context,
    size: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Sum {
            context: Context::new(&SHA256),
            size: 0,
        }
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn hex(self) -> String {
        HEXLOWER.encode(self.context.finish().as_ref())
    }
}

/// SHA-256 of bytes that are in memory, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(ring::digest::digest(&SHA256, bytes).as_ref())
}

struct Hashed {
    inner: Box<dyn Upload>,
    sum: Sum,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.add(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct HashedRead {
    inner: Box<dyn Read + Send>,
    sum: Arc<Mutex<Sum>>,
}

impl Read for HashedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut sum = self.sum.lock().expect("no holder of this lock panics");
        sum.add(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Folder, Store};

    /// Longer than every buffer, and not the same everywhere.
    fn content() -> Vec<u8> {
        (0..1_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    struct Bed {
        _folder: tempfile::TempDir,
        store: Folder,
        key: Key,
        part: Part,
    }

    fn bed() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::new(folder.path().to_path_buf());
        let key = Key::generate();
        let recipients = Recipients::parse([key.public().as_str()]).unwrap();
        let upload = store.put("b", "p").unwrap();
        let part = pack("p", &mut content().as_slice(), upload, &recipients, &Meter::default()).unwrap();
        Bed {
            _folder: folder,
            store,
            key,
            part,
        }
    }

    fn opened(bed: &Bed, key: &Key, stored: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut to = Vec::new();
        let stored = Box::new(io::Cursor::new(stored));
        unpack(&bed.part, stored, key, &mut to, &Meter::default()).map(|()| to)
    }

    fn stored(bed: &Bed) -> Vec<u8> {
        let mut bytes = Vec::new();
        bed.store.get("b", "p").unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_goes_in_comes_out_and_is_smaller_meanwhile() {
        let bed = bed();
        let bytes = stored(&bed);
        assert_eq!((bed.part.size, bed.part.content), (bytes.len() as u64, 4_000_000));
        assert!(bytes.len() < 1_000_000);
        assert!(opened(&bed, &bed.key, bytes).unwrap() == content());
    }

    #[test]
    fn another_key_opens_nothing() {
        let bed = bed();
        let error = opened(&bed, &Key::generate(), stored(&bed)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }

    #[test]
    fn a_part_that_was_cut_bent_or_made_longer_is_told_from_a_whole_one() {
        let bed = bed();
        let whole = stored(&bed);
        let error = opened(&bed, &bed.key, whole[..whole.len() / 2].to_vec()).unwrap_err();
        assert!(error.to_string().contains("damaged or cut off"), "{error}");
        for end in [0, 10, 300, whole.len() / 2, whole.len() - 1] {
            assert!(opened(&bed, &bed.key, whole[..end].to_vec()).is_err(), "cut at {end}");
        }
        for at in [0, 100, whole.len() / 2, whole.len() - 1] {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            assert!(opened(&bed, &bed.key, bent).is_err(), "bent at {at}");
        }
        assert!(opened(&bed, &bed.key, [whole, vec![0]].concat()).is_err());
    }

    #[test]
    fn an_older_part_of_the_same_key_is_not_taken_for_this_one() {
        let bed = bed();
        let recipients = Recipients::parse([bed.key.public().as_str()]).unwrap();
        let upload = bed.store.put("b", "p").unwrap();
        pack("p", &mut content().as_slice(), upload, &recipients, &Meter::default()).unwrap();
        assert!(opened(&bed, &bed.key, stored(&bed)).is_err());
    }

    #[test]
    fn what_breaks_off_leaves_no_part() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the source is gone"))
            }
        }
        let bed = bed();
        let recipients = Recipients::parse([bed.key.public().as_str()]).unwrap();
        let upload = bed.store.put("b", "q").unwrap();
        pack("q", &mut Broken, upload, &recipients, &Meter::default()).unwrap_err();
        assert!(bed.store.get("b", "q").is_err());
    }
}
