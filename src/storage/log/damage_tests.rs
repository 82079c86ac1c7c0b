//! Bit flips and missing files: an acknowledged entry is given as it was written, or the log says that it is damaged.

use std::io;
use std::sync::Arc;

use super::crash_tests::{SMALL, entries, entry};
use super::index::name;
use super::open;
use crate::storage::disk::Disk;
use crate::storage::faulty_disk::FaultyDisk;
use crate::storage::types::{Entry, log_id};

/// Three segments of seven, seven and four entries, each entry a write of its own.
fn filled() -> (FaultyDisk, Vec<Entry>) {
    let disk = FaultyDisk::default();
    let mut writer = open::open(Arc::new(disk.clone()), SMALL).unwrap().writer;
    let written: Vec<Entry> = (0..18).map(|index| entry(1, index, 40)).collect();
    written
        .iter()
        .for_each(|entry| writer.append(std::slice::from_ref(entry)).unwrap());
    (disk, written)
}

fn read(disk: &FaultyDisk) -> io::Result<Vec<Entry>> {
    let opened = open::open(Arc::new(disk.clone()), SMALL)?;
    entries(&opened.writer)
}

fn is_damage<T>(result: &io::Result<T>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_seen_or_mended() {
    let (whole, written) = filled();
    let size = whole.bytes(&name(7)).len();
    let mut damaged = 0;
    for byte in 0..size {
        let (disk, _) = filled();
        disk.damage(&name(7), |bytes| bytes[byte] ^= 4);
        let found = read(&disk);
        damaged += u32::from(is_damage(&found));
        assert!(
            is_damage(&found) || found.is_ok_and(|found| found == written),
            "byte {byte}"
        );
    }
    assert!(damaged > 300, "flips in records are damage; seen {damaged} times");
}

#[test]
fn a_flipped_bit_in_the_last_segment_is_seen_unless_it_is_in_the_last_write() {
    let (whole, written) = filled();
    let opened = open::open(Arc::new(whole.clone()), SMALL).unwrap();
    let last = opened
        .writer
        .lock()
        .segments
        .back()
        .unwrap()
        .places
        .record(3)
        .unwrap()
        .0 as usize;
    for byte in 0..last {
        let (disk, _) = filled();
        disk.damage(&name(14), |bytes| bytes[byte] ^= 4);
        assert!(is_damage(&read(&disk)), "byte {byte}");
    }
    let (disk, _) = filled();
    disk.damage(&name(14), |bytes| bytes[last + 6] ^= 4);
    assert_eq!(read(&disk).unwrap(), written[..17], "looks like a torn write");
}

#[test]
fn a_missing_segment_is_damage() {
    for first in [0, 7] {
        let (disk, _) = filled();
        let mut writer = open::open(Arc::new(disk.clone()), SMALL).unwrap().writer;
        writer.purge(log_id(1, 1, 2)).unwrap();
        disk.remove(&name(first)).unwrap();
        assert!(is_damage(&read(&disk)), "segment {first}");
    }
}

#[test]
fn damaged_marks_are_refused_but_for_the_committed_one() {
    let (disk, written) = filled();
    let mut writer = open::open(Arc::new(disk.clone()), SMALL).unwrap().writer;
    writer.save_committed(&log_id(1, 1, 5)).unwrap();
    writer.save_vote(&openraft::Vote::new(3, 1)).unwrap();
    assert_eq!(
        open::open(Arc::new(disk.clone()), SMALL).unwrap().committed,
        Some(log_id(1, 1, 5))
    );
    disk.damage("committed", |bytes| bytes[9] ^= 1);
    assert_eq!(open::open(Arc::new(disk.clone()), SMALL).unwrap().committed, None);
    assert_eq!(read(&disk).unwrap(), written);
    disk.damage("vote", |bytes| bytes[9] ^= 1);
    assert!(is_damage(&read(&disk)));
}

#[test]
fn a_hole_is_refused_before_it_is_written() {
    let (disk, written) = filled();
    let mut writer = open::open(Arc::new(disk.clone()), SMALL).unwrap().writer;
    assert!(writer.append(&[entry(1, 19, 4)]).is_err());
    assert!(writer.append(&[entry(1, 18, 4)]).is_err(), "and the log has ended");
    assert_eq!(read(&disk).unwrap(), written);
}
