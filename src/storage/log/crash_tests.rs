//! Power cuts and failed syncs at every step of random histories: what was acknowledged is there, in order, with its terms;
//! what was not is absent or exactly what was asked for.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;

use super::Sizes;
use super::open::{self, Opened};
use super::writer::Writer;
use crate::storage::entry::Body;
use crate::storage::faulty_disk::{FaultyDisk, Random};
use crate::storage::types::{Entry, LogId, Vote, log_id};

/// A few records per segment, so that histories cross many.
pub const SMALL: Sizes = Sizes {
    segment: 2048,
    records: 7,
    cache: 4096,
};

/// An entry whose content tells its id and which attempt wrote it.
pub fn entry(term: u64, index: u64, length: usize) -> Entry {
    let mut content = format!("{term}:{index}:").into_bytes();
    content.resize(content.len() + length, b'x');
    Entry {
        log_id: log_id(term, 1, index),
        payload: EntryPayload::Normal(Body::Operations(vec![Bytes::from(content).into()])),
    }
}

/// All entries that an opened log would give, read from its files.
pub fn entries(writer: &Writer) -> io::Result<Vec<Entry>> {
    let (first, next) = writer.lock().bounds();
    let read = |index| {
        let place = writer.lock().place(index);
        place
            .ok_or_else(|| io::Error::other(format!("entry {index} is missing")))?
            .read()
    };
    (first..next).map(read).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Append(Vec<Entry>),
    Truncate(u64),
    Purge(LogId),
    Vote(Vote),
}

/// What a log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: Vec<Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.last().map(|entry| entry.log_id).or(self.purged);
        last.map_or(0, |id| id.index + 1)
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Change::Truncate(from) => self.entries.retain(|entry| entry.log_id.index < *from),
            Change::Purge(id) => {
                let is_older = self.entries.last().is_none_or(|last| last.log_id < *id);
                self.entries.retain(|entry| !is_older && entry.log_id.index > id.index);
                self.purged = Some(*id);
            }
            Change::Vote(vote) => self.vote = Some(*vote),
        }
    }

    fn random_change(&self, term: &mut u64, random: &mut Random) -> Change {
        let first = self.entries.first().map(|entry| entry.log_id.index);
        match (random.below(12), first) {
            (0, Some(first)) => {
                *term += 1;
                Change::Truncate(first + random.below(self.entries.len() as u64))
            }
            (1, Some(_)) => {
                let purged = random.below(self.entries.len() as u64) as usize;
                Change::Purge(self.entries[purged].log_id)
            }
            // As after a snapshot from a later leader: beyond the end, or with another entry in that place.
            (2, _) if random.below(3) == 0 => {
                *term += 1;
                let index = self.next() + random.below(20);
                Change::Purge(log_id(
                    *term,
                    1,
                    index.saturating_sub(random.below(10)).max(self.first()),
                ))
            }
            (3, _) => {
                *term += 1;
                Change::Vote(Vote::new(*term, random.below(3)))
            }
            _ => {
                let count = 1 + random.below(4);
                let append = |number| entry(*term, self.next() + number, random.below(700) as usize);
                Change::Append((0..count).map(append).collect())
            }
        }
    }

    /// Whether a power cut during `change` may leave a log like `found`.
    fn may_become(&self, change: &Change, found: &Model) -> bool {
        let mut after = self.clone();
        after.apply(change);
        match change {
            // Any part of the new entries from the front; or any part of the removal from the back.
            Change::Append(_) | Change::Truncate(_) => {
                let (short, long) = match self.entries.len() < after.entries.len() {
                    true => (self, &after),
                    false => (&after, self),
                };
                found.purged == self.purged
                    && found.vote == self.vote
                    && found.entries.len() >= short.entries.len()
                    && long.entries.starts_with(&found.entries)
            }
            Change::Purge(_) | Change::Vote(_) => *found == *self || *found == after,
        }
    }
}

fn run(writer: &mut Writer, change: &Change) -> io::Result<()> {
    match change {
        Change::Append(entries) => writer.append(entries),
        Change::Truncate(from) => writer.truncate(*from),
        Change::Purge(id) => writer.purge(*id),
        Change::Vote(vote) => writer.save_vote(vote),
    }
}

fn reopen(disk: &FaultyDisk) -> io::Result<(Writer, Model)> {
    let Opened { writer, vote, .. } = open::open(Arc::new(disk.clone()), SMALL)?;
    let found = Model {
        entries: entries(&writer)?,
        purged: writer.lock().purged,
        vote,
    };
    let last = writer.lock().last;
    let expected = found.entries.last().map(|entry| entry.log_id).or(found.purged);
    assert_eq!(last, expected, "the last log id is the last entry's");
    Ok((writer, found))
}

/// Runs `history` until the disk fails; says what was acknowledged and which change was under way.
fn play(disk: &FaultyDisk, history: &[Change]) -> (Model, Option<Change>) {
    let mut model = Model::default();
    let Ok(Opened { mut writer, .. }) = open::open(Arc::new(disk.clone()), SMALL) else {
        return (model, None);
    };
    for change in history {
        if run(&mut writer, change).is_err() {
            assert!(
                run(&mut writer, change).is_err(),
                "a log that failed once never acknowledges again"
            );
            return (model, Some(change.clone()));
        }
        model.apply(change);
    }
    (model, None)
}

fn random_history(seed: u64, length: usize) -> Vec<Change> {
    let mut random = Random::new(seed);
    let (mut model, mut term) = (Model::default(), 1);
    let mut next = || {
        let change = model.random_change(&mut term, &mut random);
        model.apply(&change);
        change
    };
    (0..length).map(|_| next()).collect()
}

fn check(model: &Model, under_way: Option<&Change>, found: &Model, case: &str) {
    let fits = *model == *found || under_way.is_some_and(|change| model.may_become(change, found));
    assert!(
        fits,
        "{case}: acknowledged {model:?}, under way {under_way:?}, found {found:?}"
    );
}

#[test]
fn acknowledged_changes_survive_a_power_cut_at_every_step() {
    let mut cuts = 0;
    for seed in 0..12 {
        let history = random_history(seed, 30);
        let whole = FaultyDisk::default();
        play(&whole, &history);
        for step in 0..whole.steps() {
            let case = format!("seed {seed}, cut at step {step}");
            let disk = FaultyDisk::default();
            disk.cut_power_at(step);
            let (model, under_way) = play(&disk, &history);
            disk.restart(&mut Random::new(seed * 10_000 + step));
            let (mut writer, found) = reopen(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
            check(&model, under_way.as_ref(), &found, &case);
            cuts += 1;
            // What opening reported is on the disk, and the log goes on from there.
            disk.restart(&mut Random::new(step));
            let more = Change::Append(vec![entry(1000, found.next(), 10), entry(1000, found.next() + 1, 600)]);
            drop(run(&mut writer, &more));
            let (mut writer, again) = reopen(&disk).unwrap_or_else(|error| panic!("{case}, again: {error}"));
            check(&found, Some(&more), &again, &case);
            let more = Change::Append(vec![entry(1001, again.next(), 10)]);
            run(&mut writer, &more).unwrap();
        }
    }
    assert!(cuts > 1000, "only {cuts} power cuts");
}

#[test]
fn a_power_cut_while_opening_loses_nothing() {
    for seed in 0..6 {
        let history = random_history(100 + seed, 25);
        let disk = FaultyDisk::default();
        disk.cut_power_at(60 + seed);
        let (model, under_way) = play(&disk, &history);
        disk.restart(&mut Random::new(seed));
        for cut in 0..20 {
            let step = disk.steps() + cut;
            disk.cut_power_at(step);
            drop(open::open(Arc::new(disk.clone()), SMALL));
            disk.restart(&mut Random::new(step));
        }
        let (_, found) = reopen(&disk).unwrap();
        check(&model, under_way.as_ref(), &found, &format!("seed {seed}"));
    }
}

/// The kernel reports a failed sync once and calls the pages clean. A process that starts anew reads them, finds them
/// good, and must not believe that they are on the disk.
#[test]
fn what_is_reported_after_a_failed_sync_is_on_the_disk() {
    for seed in 0..12 {
        let history = random_history(200 + seed, 30);
        let whole = FaultyDisk::default();
        play(&whole, &history);
        for step in 0..whole.steps() {
            let case = format!("seed {seed}, sync fails at step {step}");
            let disk = FaultyDisk::default();
            disk.fail_sync_at(step);
            let (model, under_way) = play(&disk, &history);
            // The process ends and starts again; then the power fails.
            let Ok((_, reported)) = reopen(&disk) else { continue };
            disk.restart(&mut Random::new(step));
            let (_, found) = reopen(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(reported, found, "{case}");
            check(&model, under_way.as_ref(), &found, &case);
        }
    }
}

#[test]
fn a_full_disk_ends_the_log_and_loses_nothing() {
    let history: Vec<Change> = (0..60)
        .map(|index| Change::Append(vec![entry(1, index, 400)]))
        .collect();
    let disk = FaultyDisk::default();
    disk.limit(10_000);
    let (model, under_way) = play(&disk, &history);
    assert!(under_way.is_some() && model.entries.len() > 10, "the disk was filled");
    disk.limit(usize::MAX);
    let (mut writer, found) = reopen(&disk).unwrap();
    check(&model, under_way.as_ref(), &found, "after making room");
    run(&mut writer, &Change::Append(vec![entry(2, found.next(), 10)])).unwrap();
}
