//! The stream of an owner's changes to one node that keeps copies: a queue in the order of the changes, and what of it was kept.
//! No I/O; `send` moves it.
//!
//! Places are numbered. A place whose state concerns the receiver no more stays as an empty one, so that whoever waits for a
//! number is never left out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, watch};

use super::holding::Member;
use crate::cache::class::Class;
use crate::cache::council::{SHARDS, Shard};
use crate::cache::peer::message::{Change, Note, States};
use crate::cache::peer::{Epoch, Space};

/// While so many bytes wait the owner takes no change for this node: what asks is told to come again.
pub const QUEUE_HIGH: usize = 8 << 20;
/// Bytes of one piece; one place more may be added. Below the largest body of the mesh with the largest item.
const PIECE: usize = 256 << 10;

/// Changes of each shard that a copy has not confirmed yet. A reader who sees zero after his read has seen nothing that could
/// still be lost.
#[derive(Debug)]
pub struct Outstanding(Vec<AtomicU32>);

impl Default for Outstanding {
    fn default() -> Self {
        Outstanding((0..SHARDS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Outstanding {
    pub fn has_none(&self, shard: Shard) -> bool {
        self.0[shard.index()].load(Ordering::Acquire) == 0
    }

    fn add(&self, shard: Shard) {
        self.0[shard.index()].fetch_add(1, Ordering::AcqRel);
    }

    fn subtract(&self, shard: Shard) {
        self.0[shard.index()].fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a place is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A change that somebody waits for.
    Change(Shard, Class),
    /// An item as it is, for a copy that is being filled.
    Fill(Shard, Class),
    /// All shards of the owner.
    Everything,
}

#[derive(Debug)]
struct Place {
    about: About,
    note: Option<Note>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The number of the first place.
    first: u64,
    places: VecDeque<Place>,
    bytes: usize,
    is_closed: bool,
}

#[derive(Debug)]
pub struct Stream {
    pub target: Member,
    queue: Mutex<Queue>,
    /// There is something to send.
    pub work: Notify,
    /// All places before this one are kept; the highest number when the stream was closed.
    kept: watch::Sender<u64>,
    outstanding: Arc<Outstanding>,
}

impl Stream {
    pub fn new(target: Member, outstanding: Arc<Outstanding>) -> Self {
        Stream {
            target,
            queue: Mutex::default(),
            work: Notify::new(),
            kept: watch::Sender::new(0),
            outstanding,
        }
    }

    /// Adds a place and returns its number. Call it under the lock under which the state was made.
    pub fn push(&self, about: About, note: Note) -> u64 {
        let mut queue = self.lock();
        let number = queue.first + queue.places.len() as u64;
        if queue.is_closed {
            return number;
        }
        if let About::Change(shard, _) = about {
            self.outstanding.add(shard);
        }
        queue.bytes += note.size();
        queue.places.push_back(Place {
            about,
            note: Some(note),
        });
        drop(queue);
        self.work.notify_one();
        number
    }

    /// Adds that all items of the owner's shards are gone; the place.
    pub fn push_flush(&self, space: Space) -> u64 {
        let note = Note {
            space,
            request: None,
            change: Change::Flush,
        };
        self.push(About::Everything, note)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The number of the last place that was added, if it is not kept yet.
    pub fn last(&self) -> Option<u64> {
        let queue = self.lock();
        let next = queue.first + queue.places.len() as u64;
        if queue.places.is_empty() {
            None
        } else {
            next.checked_sub(1)
        }
    }

    /// Resolves when that place was kept, or nobody can keep it any more. Cancel safe.
    pub async fn kept(&self, number: u64) {
        // The sender lives as long as the stream.
        let _ = self.kept.subscribe().wait_for(|kept| *kept > number).await;
    }

    /// The next piece, encoded, and the number of the place after it. `None`: there is nothing.
    pub fn piece(&self, epoch: Epoch) -> Option<(Vec<u8>, u64)> {
        let queue = self.lock();
        if queue.places.is_empty() {
            return None;
        }
        let mut states = States::new(epoch, queue.first);
        let mut next = queue.first;
        for place in &queue.places {
            states.push(place.note.as_ref());
            next += 1;
            if states.size() >= PIECE {
                break;
            }
        }
        Some((states.finish(), next))
    }

    /// The piece up to `next` is too large for any message: its largest place loses its reply, or else its state, so that those behind it
    /// do not wait for ever. What is not copied is not told by the copy either.
    pub fn lighten(&self, next: u64) {
        let mut queue = self.lock();
        let count = usize::try_from(next.saturating_sub(queue.first)).unwrap_or(usize::MAX);
        let notes = queue
            .places
            .iter_mut()
            .take(count)
            .filter_map(|place| place.note.as_mut());
        let Some(largest) = notes.max_by_key(|note| note.size()) else {
            return;
        };
        let before = largest.size();
        largest.lighten();
        let lost = before - largest.size();
        queue.bytes -= lost;
    }

    /// The receiver has kept all places before `next`.
    pub fn confirm(&self, next: u64) {
        let mut queue = self.lock();
        while queue.first < next {
            let Some(place) = queue.places.pop_front() else { break };
            queue.first += 1;
            self.forget(&mut queue, &place);
        }
        let first = queue.first;
        drop(queue);
        self.kept.send_if_modified(|kept| {
            let is_new = *kept < first;
            *kept = first.max(*kept);
            is_new
        });
    }

    /// Lets go of the states that the receiver shall not have any more.
    pub fn retain(&self, keep: impl Fn(Shard, Class) -> bool) {
        let mut queue = self.lock();
        let mut places = std::mem::take(&mut queue.places);
        for place in &mut places {
            let is_kept = match place.about {
                About::Change(shard, class) | About::Fill(shard, class) => keep(shard, class),
                About::Everything => true,
            };
            if !is_kept {
                self.forget(&mut queue, place);
                place.note = None;
                place.about = About::Everything;
            }
        }
        queue.places = places;
    }

    /// Nobody will keep what waits: the receiver is out of the table, or this node is.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        for place in std::mem::take(&mut queue.places) {
            self.forget(&mut queue, &place);
        }
        drop(queue);
        self.kept.send_replace(u64::MAX);
        self.work.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    fn forget(&self, queue: &mut Queue, place: &Place) {
        if let About::Change(shard, _) = place.about {
            self.outstanding.subtract(shard);
        }
        queue.bytes -= place.note.as_ref().map_or(0, Note::size);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::cache::council::Term;
    use crate::cache::peer::message::{self, open};
    use crate::cache::store::{Copy, Record, State};

    const EPOCH: Epoch = Epoch {
        term: Term { number: 1, mark: 1 },
        number: 1,
    };

    fn shard(index: usize) -> Shard {
        Shard::new(index).expect("there are more")
    }

    fn stream() -> Stream {
        let target = Member {
            name: "n2".parse().unwrap(),
            incarnation: 1,
        };
        Stream::new(target, Arc::default())
    }

    fn absent(key: &[u8]) -> Note {
        Note {
            space: Space::Portal,
            request: None,
            change: Change::State(State::Absent(key.into())),
        }
    }

    fn keys(piece: &[u8]) -> (u64, Vec<Option<Vec<u8>>>) {
        let (_, mut rest) = open(piece).unwrap();
        let (first, mut keys) = (rest.number().unwrap(), Vec::new());
        while !rest.is_empty() {
            keys.push(message::note(&mut rest).unwrap().and_then(|note| match note.change {
                Change::State(state) => Some(state.key().to_vec()),
                Change::Flush => None,
            }));
        }
        (first, keys)
    }

    #[test]
    fn what_is_not_confirmed_is_sent_again_in_order() {
        let stream = stream();
        assert_eq!((stream.piece(EPOCH), stream.last()), (None, None));
        assert_eq!(stream.push(About::Change(shard(5), Class::Sync), absent(b"a")), 0);
        assert_eq!(stream.push(About::Fill(shard(6), Class::Sync), absent(b"b")), 1);
        assert!(!stream.outstanding.has_none(shard(5)) && stream.outstanding.has_none(shard(6)));
        for _ in 0..2 {
            let (piece, next) = stream.piece(EPOCH).unwrap();
            assert_eq!(
                (keys(&piece), next),
                ((0, vec![Some(b"a".to_vec()), Some(b"b".to_vec())]), 2)
            );
        }
        assert!(stream.kept(0).now_or_never().is_none());
        stream.confirm(1);
        assert!(stream.kept(0).now_or_never().is_some() && stream.kept(1).now_or_never().is_none());
        assert!(stream.outstanding.has_none(shard(5)));
        let (piece, _) = stream.piece(EPOCH).unwrap();
        assert_eq!(keys(&piece), (1, vec![Some(b"b".to_vec())]));
        // A receipt that was late, and one beyond the end.
        stream.confirm(0);
        stream.confirm(9);
        assert_eq!((stream.piece(EPOCH), stream.bytes(), stream.last()), (None, 0, None));
        assert_eq!(stream.push(About::Change(shard(5), Class::Sync), absent(b"c")), 2);
    }

    #[test]
    fn what_concerns_the_receiver_no_more_leaves_an_empty_place() {
        let stream = stream();
        stream.push(About::Change(shard(5), Class::Sync), absent(b"a"));
        stream.push(About::Change(shard(6), Class::Sync), absent(b"b"));
        stream.retain(|kept, _| kept == shard(6));
        assert!(stream.outstanding.has_none(shard(5)) && !stream.outstanding.has_none(shard(6)));
        let (piece, next) = stream.piece(EPOCH).unwrap();
        assert_eq!((keys(&piece), next), ((0, vec![None, Some(b"b".to_vec())]), 2));
        stream.confirm(2);
        assert_eq!(stream.bytes(), 0);
    }

    #[test]
    fn closing_lets_everybody_go() {
        let stream = stream();
        stream.push(About::Change(shard(5), Class::Sync), absent(b"a"));
        stream.close();
        assert!(stream.kept(0).now_or_never().is_some() && stream.is_closed());
        assert!(stream.outstanding.has_none(shard(5)));
        stream.push(About::Change(shard(5), Class::Sync), absent(b"b"));
        assert!(stream.outstanding.has_none(shard(5)) && stream.piece(EPOCH).is_none());
    }

    #[test]
    fn what_no_message_takes_gets_lighter_and_the_others_stay() {
        let stream = stream();
        let note = |key: &[u8], length: usize| Note {
            space: Space::Portal,
            request: Some((7, vec![0; length].into())),
            change: Change::State(State::Present(Copy {
                record: Record::new(key, &vec![0; length], b""),
                flags: 0,
                cas: 1,
                left: None,
                is_stale: false,
                has_winner: false,
            })),
        };
        for (key, length) in [(b"a", 10), (b"b", 1000), (b"c", 10)] {
            stream.push(About::Change(shard(5), Class::Sync), note(key, length));
        }
        let length = || stream.piece(EPOCH).map_or(0, |(piece, _)| piece.len());
        let mut lengths = vec![length()];
        for _ in 0..2 {
            stream.lighten(3);
            lengths.push(length());
        }
        assert!(lengths.windows(2).all(|pair| pair[1] + 1000 <= pair[0]), "{lengths:?}");
        let (piece, _) = stream.piece(EPOCH).unwrap();
        let (_, mut rest) = open(&piece).unwrap();
        rest.number().unwrap();
        let mut left = Vec::new();
        while !rest.is_empty() {
            left.extend(message::note(&mut rest).unwrap());
        }
        let absent = Change::State(State::Absent(b"b"[..].into()));
        assert_eq!((left[1].request.is_none(), &left[1].change), (true, &absent));
        assert_eq!((&left[0], &left[2]), (&note(b"a", 10), &note(b"c", 10)));
        stream.confirm(3);
        assert_eq!(stream.bytes(), 0);
    }

    #[test]
    fn a_piece_is_bounded() {
        let stream = stream();
        for _ in 0..3 * PIECE / 200 {
            stream.push(About::Fill(shard(1), Class::Sync), absent(&[b'k'; 200]));
        }
        let (piece, next) = stream.piece(EPOCH).unwrap();
        assert!(piece.len() < PIECE + 300 && next < 3 * PIECE as u64 / 200);
    }
}
