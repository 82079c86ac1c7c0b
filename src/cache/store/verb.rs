//! What each command does to one shard. The caller holds the shard's lock, so every one of these is atomic.

use super::policy::READS_MAX;
use super::record::{Record, footprint};
use super::shard::{Fresh, ITEM_OVERHEAD, Shard, seconds};
use super::slab::Mark;
use super::time::{Deadline, FOREVER};
use crate::cache::command::{Arithmetic, Command, Delete, Get, Hit, Mode, Number, Reply, Set, Terms};
use crate::cache::number;

/// What every verb needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    pub hash: u32,
    pub now: u64,
    /// Largest item, overhead included.
    pub max_item: usize,
}

/// Any command on one key.
pub fn execute(shard: &mut Shard, command: Command<'_>, at: Situation) -> Reply {
    match command {
        Command::Get(get) => self::get(shard, &get, at),
        Command::Touch { key, expiry } => touch(shard, key, expiry.deadline(at.now), at),
        Command::Set(set) => self::set(shard, set, at),
        Command::Delete(delete) => self::delete(shard, &delete, at),
        Command::Arithmetic(sum) => arithmetic(shard, &sum, at),
        _ => Reply::Unknown,
    }
}

fn get(shard: &mut Shard, get: &Get<'_>, at: Situation) -> Reply {
    match (find_read(shard, get, at), get.vivify) {
        (Some(place), _) => Reply::Hit(read(shard, place, get, at.now, false)),
        (None, None) => Reply::Miss,
        (None, Some(expiry)) => {
            let fresh = Fresh {
                record: Record::new(get.key, b"", b""),
                flags: 0,
                deadline: expiry.deadline(at.now),
                cas: get.new_cas,
            };
            let place = shard.insert(at.hash, fresh, at.now);
            Reply::Hit(read(shard, place, get, at.now, true))
        }
    }
}

/// Shows what a plain `get` finds, in its place.
pub fn look<T>(shard: &mut Shard, key: &[u8], at: Situation, see: impl FnOnce(Option<Hit<&Record>>) -> T) -> T {
    let get = Get::plain(key);
    let hit = find_read(shard, &get, at).map(|place| (place, meet(shard, place, &get, at.now, false)));
    see(hit.map(|(place, hit)| hit.with(shard.record(place))))
}

/// Counts it, too.
fn find_read(shard: &mut Shard, get: &Get<'_>, at: Situation) -> Option<u32> {
    let expired = shard.counters.reclaimed;
    let found = shard.find(at.hash, get.key, at.now);
    shard.counters.get_expired += shard.counters.reclaimed - expired;
    count_read(shard, get.touch.is_some(), found.is_some());
    found
}

fn touch(shard: &mut Shard, key: &[u8], deadline: Deadline, at: Situation) -> Reply {
    let found = shard.find(at.hash, key, at.now);
    count_read(shard, true, found.is_some());
    let Some(place) = found else { return Reply::Miss };
    shard.slot(place).deadline = deadline;
    let get = Get::plain(key);
    Reply::Touched(read(shard, place, &get, at.now, false))
}

fn count_read(shard: &mut Shard, is_touch: bool, is_hit: bool) {
    let counters = &mut shard.counters;
    *match (is_touch, is_hit) {
        (false, true) => &mut counters.get_hits,
        (false, false) => &mut counters.get_misses,
        (true, true) => &mut counters.touch_hits,
        (true, false) => &mut counters.touch_misses,
    } += 1;
}

fn read(shard: &mut Shard, place: u32, get: &Get<'_>, now: u64, is_new: bool) -> Hit {
    let hit = meet(shard, place, get, now, is_new);
    hit.with(shard.record(place).clone().into())
}

/// All of a read but the item itself.
fn meet(shard: &mut Shard, place: u32, get: &Get<'_>, now: u64, is_new: bool) -> Hit<()> {
    let slot = shard.slot(place);
    let is_ending = slot.deadline != FOREVER
        && get
            .recache
            .is_some_and(|within| slot.deadline < now.saturating_add(within));
    // What was just made has the end of life that it was made with, as in memcached.
    if let Some(expiry) = get.touch
        && !is_new
    {
        slot.deadline = expiry.deadline(now);
    }
    let mark = slot.mark();
    let had_winner = mark.has_winner;
    let is_winner = is_new || !had_winner && (is_ending || mark.is_stale);
    slot.note(|mark| mark.has_winner |= is_winner);
    let hit = Hit {
        record: (),
        flags: slot.flags,
        cas: slot.cas,
        left: left(slot.deadline, now),
        idle: slot.idle(seconds(now)),
        was_fetched: mark.is_fetched,
        is_stale: mark.is_stale,
        is_winner,
        had_winner,
    };
    if !get.is_peek {
        shard.note_read(place, now);
    }
    hit
}

fn set(shard: &mut Shard, set: Set, at: Situation) -> Reply {
    shard.counters.set_commands += 1;
    let Set { terms, record } = set;
    match shard.find(at.hash, record.key(), at.now) {
        Some(place) => set_over(shard, place, &terms, record, at),
        None => set_new(shard, &terms, record, at),
    }
}

fn set_new(shard: &mut Shard, terms: &Terms, record: Record, at: Situation) -> Reply {
    let expiry = match (terms.mode, terms.vivify) {
        (Mode::Set | Mode::Replace, _) if terms.compare.is_some() => {
            shard.counters.cas_misses += 1;
            return Reply::NotFound;
        }
        (Mode::Set | Mode::Add, _) => terms.expiry,
        (Mode::Append | Mode::Prepend, Some(expiry)) => expiry,
        (Mode::Replace | Mode::Append | Mode::Prepend, _) => return Reply::NotStored,
    };
    let size = record.value().len();
    let fresh = Fresh {
        record,
        flags: terms.flags,
        deadline: expiry.deadline(at.now),
        cas: terms.new_cas,
    };
    let place = shard.insert(at.hash, fresh, at.now);
    let cas = shard.slot(place).cas;
    Reply::Stored { cas, size }
}

fn set_over(shard: &mut Shard, place: u32, terms: &Terms, record: Record, at: Situation) -> Reply {
    let slot = shard.slot(place);
    let (flags, deadline, cas, mark) = (slot.flags, slot.deadline, slot.cas, slot.mark());
    if terms.mode == Mode::Add {
        note_wanted(shard, place, mark, at.now);
        return Reply::NotStored;
    }
    let matches = terms.compare.is_none_or(|wanted| wanted == cas);
    let is_late = terms.invalidate && terms.compare.is_some_and(|wanted| wanted < cas);
    let joins = matches!(terms.mode, Mode::Append | Mode::Prepend);
    if terms.compare.is_some() && !joins {
        let counters = &mut shard.counters;
        *if matches || is_late {
            &mut counters.cas_hits
        } else {
            &mut counters.cas_mismatches
        } += 1;
    }
    if !matches && (joins || !is_late) {
        return Reply::Exists;
    }
    let (record, flags, deadline) = if joins {
        match join(shard.record(place), &record, terms.mode, at.max_item) {
            Some(joined) => (joined, flags, deadline),
            None => return Reply::NotStored,
        }
    } else if matches {
        (record, terms.flags, terms.expiry.deadline(at.now))
    } else {
        (record, terms.flags, deadline)
    };
    let size = record.value().len();
    let fresh = Fresh {
        record,
        flags,
        deadline,
        cas: terms.new_cas,
    };
    shard.replace(place, fresh, at.now);
    let slot = shard.slot(place);
    if !matches {
        slot.note(|now| {
            now.is_stale = true;
            now.has_winner = mark.has_winner;
        });
    }
    Reply::Stored { cas: slot.cas, size }
}

/// `None`: the joined item would be too large.
fn join(old: &Record, new: &Record, mode: Mode, max_item: usize) -> Option<Record> {
    let (first, second) = if mode == Mode::Prepend { (new, old) } else { (old, new) };
    let length = first.value().len() + second.value().len();
    fits(old.key().len(), length, max_item).then(|| Record::new(old.key(), first.value(), second.value()))
}

/// Whether an item of that size may be stored at all.
pub fn fits(key_len: usize, value_len: usize, max_item: usize) -> bool {
    footprint(key_len, value_len).saturating_add(ITEM_OVERHEAD) <= max_item
}

fn delete(shard: &mut Shard, delete: &Delete<'_>, at: Situation) -> Reply {
    let Some(place) = shard.find(at.hash, delete.key, at.now) else {
        shard.counters.delete_misses += 1;
        return Reply::Miss;
    };
    if delete.compare.is_some_and(|wanted| wanted != shard.slot(place).cas) {
        shard.counters.delete_misses += 1;
        return Reply::Exists;
    }
    if !delete.keep_item && delete.invalidate.is_none() {
        shard.counters.delete_hits += 1;
        shard.remove(place);
        return Reply::Deleted;
    }
    let cas = delete.new_cas.unwrap_or_else(|| shard.take_cas());
    if delete.keep_item {
        let deadline = shard.slot(place).deadline;
        let mark = shard.slot(place).mark();
        let fresh = Fresh {
            record: Record::new(delete.key, b"", b""),
            flags: 0,
            deadline,
            cas: Some(cas),
        };
        shard.replace(place, fresh, at.now);
        shard.slot(place).set_mark(mark);
    }
    let slot = shard.slot(place);
    slot.cas = cas;
    if let Some(touch) = delete.invalidate {
        slot.note(|mark| {
            mark.is_stale = true;
            mark.has_winner = false;
        });
        slot.deadline = touch.map_or(slot.deadline, |expiry| expiry.deadline(at.now));
    }
    Reply::Deleted
}

fn arithmetic(shard: &mut Shard, sum: &Arithmetic<'_>, at: Situation) -> Reply {
    let Some(place) = shard.find(at.hash, sum.key, at.now) else {
        return arithmetic_new(shard, sum, at);
    };
    let old = shard.record(place).value();
    let (width, value) = (old.len(), number::parse_stored(old));
    let slot = shard.slot(place);
    let (flags, before, mark) = (slot.flags, slot.deadline, slot.mark());
    // In memcached's order, of which an empty value comes first.
    if width > 0 && sum.compare.is_some_and(|wanted| wanted != slot.cas) {
        return Reply::Exists;
    }
    let Some(value) = value else { return Reply::NotNumeric };
    let (value, counter) = if sum.is_decrement {
        (value.saturating_sub(sum.delta), &mut shard.counters.decrement_hits)
    } else {
        (value.wrapping_add(sum.delta), &mut shard.counters.increment_hits)
    };
    *counter += 1;
    let deadline = sum.touch.map_or(before, |expiry| expiry.deadline(at.now));
    let digits = number::Digits::of(value);
    // A shorter number is padded with spaces to the old width (protocol.txt, "Increment/Decrement").
    let padding = [b' '; number::DIGITS_MAX];
    let padding = padding
        .get(..width.saturating_sub(digits.as_bytes().len()))
        .unwrap_or(&[]);
    let fresh = Fresh {
        record: Record::new(sum.key, digits.as_bytes(), padding),
        flags,
        deadline,
        cas: sum.new_cas,
    };
    shard.replace(place, fresh, at.now);
    note_wanted(shard, place, mark, at.now);
    let cas = shard.slot(place).cas;
    Reply::Number(Number {
        value,
        cas,
        left: left(deadline, at.now),
    })
}

/// Wanted, but not fetched: `mg` with h shows only reads.
fn note_wanted(shard: &mut Shard, place: u32, mark: Mark, now: u64) {
    let slot = shard.slot(place);
    slot.use_at(seconds(now));
    slot.set_mark(Mark {
        reads: (mark.reads + 1).min(READS_MAX),
        ..mark
    });
}

fn arithmetic_new(shard: &mut Shard, sum: &Arithmetic<'_>, at: Situation) -> Reply {
    let counters = &mut shard.counters;
    *if sum.is_decrement {
        &mut counters.decrement_misses
    } else {
        &mut counters.increment_misses
    } += 1;
    let Some((value, expiry)) = sum.initial else {
        return Reply::Miss;
    };
    // Not the time that the command would give an item that is there, as in memcached.
    let deadline = expiry.deadline(at.now);
    let fresh = Fresh {
        record: Record::new(sum.key, number::Digits::of(value).as_bytes(), b""),
        flags: 0,
        deadline,
        cas: sum.new_cas,
    };
    let place = shard.insert(at.hash, fresh, at.now);
    let cas = shard.slot(place).cas;
    Reply::Number(Number {
        value,
        cas,
        left: left(deadline, at.now),
    })
}

/// Seconds left, rounded up: an item that still lives never shows 0.
fn left(deadline: Deadline, now: u64) -> Option<u64> {
    (deadline != FOREVER).then(|| deadline.saturating_sub(now).div_ceil(1000))
}
