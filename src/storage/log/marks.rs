//! The three small files beside the segments: the vote, the last purged entry, the last committed one.
//!
//! `vote` and `purged` are replaced whole and synced. `committed` is overwritten in place and not synced: too old a value,
//! or none, only makes the start apply more in one go. Format: `version u8`, fields, `crc32c u32`.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut};

use crate::storage::disk::{Disk, DiskFile};
use crate::storage::types::{LogId, Vote, log_id};

pub const VOTE: &str = "vote";
pub const PURGED: &str = "purged";
const COMMITTED: &str = "committed";
const VERSION: u8 = 1;
/// `term, node, index`, or `term, node, committed`.
const FIELDS: usize = 3;
const SIZE: usize = 1 + 8 * FIELDS + 4;

fn encode(fields: [u64; FIELDS]) -> Vec<u8> {
    let mut out = vec![VERSION];
    fields.iter().for_each(|field| out.put_u64_le(*field));
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

fn decode(bytes: &[u8; SIZE]) -> Option<[u64; FIELDS]> {
    let (mut fields, mut crc) = bytes.split_at(SIZE - 4);
    let whole = crc32c::crc32c(fields) == crc.get_u32_le() && fields.get_u8() == VERSION;
    whole.then(|| std::array::from_fn(|_| fields.get_u64_le()))
}

fn id_fields(id: &LogId) -> [u64; FIELDS] {
    [id.leader_id.term, id.leader_id.node_id, id.index]
}

fn fields_id([term, node, index]: [u64; FIELDS]) -> LogId {
    log_id(term, node, index)
}

pub fn save_vote(disk: &dyn Disk, vote: &Vote) -> io::Result<()> {
    let fields = [vote.leader_id.term, vote.leader_id.node_id, u64::from(vote.committed)];
    replace(disk, VOTE, fields)
}

pub fn load_vote(disk: &dyn Disk) -> io::Result<Option<Vote>> {
    let fields = load(disk, VOTE)?;
    Ok(fields.map(|[term, node, committed]| match committed {
        0 => Vote::new(term, node),
        _ => Vote::new_committed(term, node),
    }))
}

pub fn save_purged(disk: &dyn Disk, id: &LogId) -> io::Result<()> {
    replace(disk, PURGED, id_fields(id))
}

pub fn load_purged(disk: &dyn Disk) -> io::Result<Option<LogId>> {
    Ok(load(disk, PURGED)?.map(fields_id))
}

/// The file of the last committed entry.
pub struct Committed {
    file: Arc<dyn DiskFile>,
}

impl Committed {
    /// Opens it and says what it holds, which may be nothing after a power cut.
    pub fn open(disk: &dyn Disk) -> io::Result<(Self, Option<LogId>)> {
        let file = match disk.open(COMMITTED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(COMMITTED)?,
            other => other?,
        };
        let id = read(&*file)?.as_ref().and_then(decode).map(fields_id);
        Ok((Committed { file }, id))
    }

    pub fn save(&self, id: &LogId) -> io::Result<()> {
        self.file.write_at(&encode(id_fields(id)), 0)
    }
}

fn replace(disk: &dyn Disk, name: &str, fields: [u64; FIELDS]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let file = disk.create(&temporary)?;
    file.write_at(&encode(fields), 0)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync()
}

fn load(disk: &dyn Disk, name: &str) -> io::Result<Option<[u64; FIELDS]>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let fields = read(&*file)?.as_ref().and_then(decode);
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("the log's {name} file is damaged"));
    fields.ok_or_else(damaged).map(Some)
}

fn read(file: &dyn DiskFile) -> io::Result<Option<[u8; SIZE]>> {
    if file.size()? != SIZE as u64 {
        return Ok(None);
    }
    let mut bytes = [0; SIZE];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}
