//! Opens a log: believes only what can be proven, and has it on the disk before it says so.

use std::io;
use std::sync::{Arc, Mutex};

use super::Sizes;
use super::blocks::Blocks;
use super::cache::Cache;
use super::index::{Index, Segment, name};
use super::marks::{self, Committed};
use super::scan::scan;
use super::segment::{self, Header, Places};
use super::writer::{Writer, read_footer};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::types::{Entry, LogId, Vote, next_index};

/// What a log says of itself at its start.
pub struct Opened {
    pub writer: Writer,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
}

/// Opens the log in `disk`, or makes one. `InvalidData`: acknowledged entries are damaged or missing, and this replica
/// must be filled again from the others.
pub fn open(disk: Arc<dyn Disk>, sizes: Sizes) -> io::Result<Opened> {
    let names = disk.list()?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        disk.remove(name)?;
    }
    let vote = marks::load_vote(&*disk)?;
    let purged = marks::load_purged(&*disk)?;
    // Written anew: what an earlier process failed to sync may be readable and yet not on the disk.
    vote.iter().try_for_each(|vote| marks::save_vote(&*disk, vote))?;
    purged.iter().try_for_each(|id| marks::save_purged(&*disk, id))?;
    let (mark, committed) = Committed::open(&*disk)?;

    let mut files = open_files(&*disk, names)?;
    drop_purged(&*disk, &mut files, purged)?;
    let segments = read_segments(files, sizes)?;
    if let Some(first) = segments.first().map(|segment| segment.header.first) {
        let next = next_index(purged);
        if purged.is_some() && first > next {
            return Err(damaged(format!("entries {next} to {} are missing", first - 1)));
        }
    }

    let index = Index {
        segments: segments.into(),
        purged,
        last: None,
        cache: Cache::new(sizes.cache),
        committed: None,
        truncations: 0,
        failure: None,
    };
    let mut writer = Writer {
        disk,
        index: Arc::new(Mutex::new(index)),
        sizes,
        committed: mark,
        blocks: Blocks::default(),
        unfinished: None,
    };
    writer.settle_last()?;
    if let Some(id) = purged {
        writer.drop_purged(id)?;
    }
    writer.disk.sync()?;
    let last = writer.lock().last;
    // A mark that outlived the entries it speaks of would have openraft ask for them.
    let committed = committed.filter(|id| id.index < next_index(last));
    Ok(Opened {
        writer,
        vote,
        committed,
    })
}

type SegmentFile = (Header, Arc<dyn DiskFile>);

/// All segment files in the order of their entries.
fn open_files(disk: &dyn Disk, mut names: Vec<String>) -> io::Result<Vec<SegmentFile>> {
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    let open = |name: &String| {
        let file = disk.open(name)?;
        let mut bytes = [0; segment::HEADER];
        if file.size()? >= segment::HEADER as u64 {
            file.read_at(&mut bytes, 0)?;
        }
        let header = Header::decode(&bytes).filter(|header| self::name(header.first) == *name);
        let header = header.ok_or_else(|| damaged(format!("{name} has no readable header")))?;
        Ok((header, file))
    };
    names.iter().map(open).collect()
}

/// Removes segments that a purge left behind.
fn drop_purged(disk: &dyn Disk, files: &mut Vec<SegmentFile>, purged: Option<LogId>) -> io::Result<()> {
    let next = next_index(purged);
    // A segment ends where the next one begins; the end of the last one is not known yet.
    let whole = files.windows(2).take_while(|pair| pair[1].0.first <= next).count();
    for (header, _) in files.drain(..whole) {
        disk.remove(&name(header.first))?;
    }
    Ok(())
}

fn read_segments(files: Vec<SegmentFile>, sizes: Sizes) -> io::Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::with_capacity(files.len());
    let count = files.len();
    for (number, (header, file)) in files.into_iter().enumerate() {
        if let Some(before) = segments.last().filter(|before| before.next() != header.first) {
            let (end, first) = (before.next(), header.first);
            return Err(damaged(format!("entries {end} to {} are missing", first - 1)));
        }
        let is_last = number + 1 == count;
        let places = match (is_last, read_footer(&*file, header)?) {
            (false, Some(places)) => places,
            (false, None) => read_without_footer(&*file, header)?,
            (true, _) => recover_last(&*file, header, sizes)?,
        };
        segments.push(Segment {
            file,
            header,
            places,
            is_sealed: !is_last,
        });
    }
    Ok(segments)
}

/// The footer is damaged, the records need not be; the next segment's first index tells whether all are there.
fn read_without_footer(file: &dyn DiskFile, header: Header) -> io::Result<Places> {
    tracing::warn!(segment = %name(header.first), "a segment's footer is damaged; its records are read instead");
    Ok(scan(header, &read_whole(file)?).places)
}

/// Reads the last segment, drops a torn write, and has the rest on the disk.
fn recover_last(file: &dyn DiskFile, header: Header, sizes: Sizes) -> io::Result<Places> {
    let sealed = read_footer(file, header)?;
    let bytes = read_whole(file)?;
    let scan = scan(header, &bytes);
    let misses_records = sealed.is_some_and(|sealed| sealed.end > scan.places.end);
    if scan.is_damaged || misses_records {
        let index = header.first + scan.places.offsets.len() as u64;
        return Err(damaged(format!("entry {index} is damaged")));
    }
    let (start, end) = (scan.last_write as usize, scan.places.end as usize);
    // Leftovers of a torn write, a footer, or a truncation that failed to sync must never be read behind the next record.
    file.cut(end as u64)?;
    file.allocate(sizes.segment)?;
    // After a failed sync the last write may be readable and yet not on the disk.
    file.write_at(&bytes[start..end], start as u64)?;
    file.sync()?;
    Ok(scan.places)
}

fn read_whole(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log is damaged: {what}"))
}

/// Opens a log that nothing else has open, and continues it by what `change` makes of its last entry and vote. Blocks.
pub fn amend(
    disk: Arc<dyn Disk>,
    sizes: Sizes,
    change: impl FnOnce(Option<LogId>, Option<Vote>) -> (Vote, Vec<Entry>),
) -> io::Result<()> {
    let Opened { mut writer, vote, .. } = open(disk, sizes)?;
    let last = writer.index.lock().expect("no holder of this lock panics").last;
    let (vote, entries) = change(last, vote);
    writer.save_vote(&vote)?;
    writer.append(&entries)
}
