//! Who was promised what, and what they have not confirmed yet. The leader's part; no I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::thing::{Key, Keys};
use super::touches::Touches;
use super::{Recalls, Thing};
use crate::storage::call::Inode;
use crate::storage::operation::Session;

/// Sessions that may hold promises at one time: a bit each. Others ask for everything.
const HOLDERS: usize = 64;
/// Things promised to one session; when there are more, all are recalled. A portal has 40 000 files, each of which is two of
/// them. 25 bytes a thing for all sessions together and as much room again: 13 MiB when all keep the same.
const PROMISED: usize = 256 << 10;
/// Recalls that wait for a session's confirmation; more become one of all.
const WAITING: usize = 4096;
/// How long after the end of its lease a holder is waited for: its clock may run slower.
const SLACK: Duration = Duration::from_millis(50);

/// The promises of one leader.
#[derive(Debug)]
pub struct Promises {
    keys: Keys,
    touches: Touches,
    holders: [Option<Holder>; HOLDERS],
    /// A bit for each holder.
    promised: HashMap<Key, u64>,
    last_epoch: u64,
}

#[derive(Debug)]
struct Holder {
    session: Session,
    epoch: u64,
    /// End of its lease.
    until: Duration,
    promised: usize,
    last_recall: u64,
    /// The last one that a change waits for.
    last_awaited: u64,
    confirmed: u64,
    /// Number of a recall of all that is not confirmed.
    all: Option<u64>,
    /// Not confirmed, oldest first.
    waiting: VecDeque<(u64, Thing<Vec<u8>>)>,
}

/// A confirmation that a change waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    holder: usize,
    epoch: u64,
    recall: u64,
}

impl Promises {
    /// `epoch`: all of this process are above it, and differ from other leaders'.
    pub fn new(epoch: u64) -> Self {
        Promises {
            keys: Keys::default(),
            touches: Touches::default(),
            holders: [const { None }; HOLDERS],
            promised: HashMap::new(),
            last_epoch: epoch,
        }
    }

    /// The session has heeded the recalls up to `confirmed` of `epoch`. Whether there is nothing to tell it yet.
    pub fn confirm(&mut self, session: Session, epoch: u64, confirmed: u64) -> bool {
        let Some(holder) = self.holder(session).filter(|holder| holder.epoch == epoch) else {
            return false;
        };
        holder.confirm(confirmed);
        !holder.is_owing()
    }

    /// The session begins with nothing; `None`: there is no place for it. Only for one that `lend` did not know.
    pub fn begin(&mut self, session: Session) -> Option<u64> {
        let free = self.holders.iter().position(Option::is_none)?;
        self.last_epoch = self.last_epoch.wrapping_add(1);
        // Touches were not counted while nobody listened.
        self.touches.touch_all();
        self.holders[free] = Some(Holder {
            session,
            epoch: self.last_epoch,
            until: Duration::ZERO,
            promised: 0,
            last_recall: 0,
            last_awaited: 0,
            confirmed: 0,
            all: None,
            waiting: VecDeque::new(),
        });
        Some(self.last_epoch)
    }

    /// Extends the session's lease, and says what it must forget. `None`: it holds nothing.
    ///
    /// One that takes itself to be in another epoch has not heard of its own, or asked long ago. It may hold all the same:
    /// its lease is in force, so all is recalled.
    pub fn lend(&mut self, session: Session, epoch: u64, until: Duration) -> Option<Recalls> {
        let place = self.place(session)?;
        if self.holders[place].as_ref()?.epoch != epoch {
            self.recall_all(place);
        }
        let holder = self.holders[place].as_mut()?;
        holder.until = holder.until.max(until);
        Some(holder.recalls())
    }

    /// Take it before reading what is to be promised.
    pub fn ticket(&self) -> u64 {
        self.touches.now()
    }

    /// Promises the session that it will hear when one of `things`, read after `ticket`, is touched; the epoch of the promise.
    /// `None`: no promise.
    pub fn promise(&mut self, session: Session, things: &[Thing<&[u8]>], ticket: u64, now: Duration) -> Option<u64> {
        let place = self.place(session)?;
        let holder = self.holders[place].as_ref()?;
        let epoch = holder.epoch;
        if now >= holder.until {
            return None;
        }
        let is_untouched = |thing| self.touches.is_untouched(self.keys.of(thing), ticket);
        if !things.iter().all(is_untouched) {
            return None;
        }
        // All recalled once is enough to make it no promise.
        let mut is_noted = true;
        for thing in things {
            is_noted &= self.note(place, thing);
        }
        is_noted.then_some(epoch)
    }

    /// Recalls all promises of these. Whether there were any.
    pub fn touch<'a>(&mut self, things: impl IntoIterator<Item = Thing<&'a [u8]>>) -> bool {
        if self.holders.iter().all(Option::is_none) {
            return false;
        }
        let mut recalled = 0;
        let (keys, promised, holders) = (&self.keys, &mut self.promised, &mut self.holders);
        self.touches.touch(things.into_iter().map(|thing| {
            let key = keys.of(&thing);
            let bits = promised.remove(&key).unwrap_or_default();
            recalled |= bits;
            for place in places(bits) {
                if let Some(holder) = &mut holders[place] {
                    holder.recall(thing.to_owned());
                }
            }
            key
        }));
        for place in places(recalled) {
            if self.holders[place]
                .as_ref()
                .is_some_and(|it| it.waiting.len() > WAITING)
            {
                self.recall_all(place);
            }
        }
        recalled != 0
    }

    /// Tells the session that the inode has lost its last name, promised or not; nobody waits for that. Before the promises
    /// of it are recalled, so that who has one is told once. Whether there is anything to hear.
    pub fn orphaned(&mut self, inode: Inode, session: Session) -> bool {
        let Some(place) = self.place(session) else {
            return false;
        };
        let promised = self.promised.get(&self.keys.of::<&[u8]>(&Thing::Attributes(inode)));
        if promised.is_some_and(|holders| holders & bit(place) != 0) {
            return false;
        }
        self.push(place, Thing::Attributes(inode));
        true
    }

    /// The session was refused a lock of the inode: those that hold one hear of that, and it hears when one is given up. Nobody
    /// waits for either. Whether there is anything to hear now.
    pub fn refused(&mut self, inode: Inode, session: Session, holders: &[Session]) -> bool {
        if let Some(place) = self.place(session) {
            self.note(place, &Thing::Locks(inode));
        }
        let mut is_heard = false;
        for place in holders
            .iter()
            .filter_map(|holder| self.place(*holder))
            .collect::<Vec<_>>()
        {
            self.push(place, Thing::Locks(inode));
            is_heard = true;
        }
        is_heard
    }

    /// Some lock of the inode was given up. Whether there is anything to hear.
    pub fn freed(&mut self, inode: Inode) -> bool {
        let refused = self.promised.remove(&self.keys.of::<&[u8]>(&Thing::Locks(inode)));
        let refused = refused.unwrap_or_default();
        for place in places(refused) {
            if let Some(holder) = &mut self.holders[place] {
                holder.promised -= 1;
            }
            self.push(place, Thing::Locks(inode));
        }
        refused != 0
    }

    /// Notes what the holder is to hear of. `false`: it was too much, and all is recalled.
    fn note(&mut self, place: usize, thing: &Thing<&[u8]>) -> bool {
        let Some(holder) = &mut self.holders[place] else {
            return false;
        };
        let holders = self.promised.entry(self.keys.of(thing)).or_default();
        holder.promised += usize::from(*holders & bit(place) == 0);
        *holders |= bit(place);
        let is_over = holder.promised > PROMISED;
        if is_over {
            self.recall_all(place);
        }
        !is_over
    }

    fn push(&mut self, place: usize, what: Thing<Vec<u8>>) {
        let Some(holder) = &mut self.holders[place] else {
            return;
        };
        holder.push(what);
        if holder.waiting.len() > WAITING {
            self.recall_all(place);
        }
    }

    /// What the session has not confirmed; `None`: nothing, or it holds no promises.
    pub fn recalls(&self, session: Session) -> Option<Recalls> {
        let holder = self.holders[self.place(session)?].as_ref()?;
        holder.is_owing().then(|| holder.recalls())
    }

    /// Recalls of all sessions but `own` that are not confirmed now.
    pub fn owed(&self, own: Session) -> Vec<Owed> {
        let owing = |(holder, it): (usize, &Option<Holder>)| {
            let it = it.as_ref()?;
            (it.session != own && it.confirmed < it.last_awaited).then_some(Owed {
                holder,
                epoch: it.epoch,
                recall: it.last_awaited,
            })
        };
        self.holders.iter().enumerate().filter_map(owing).collect()
    }

    /// `None`: it was confirmed, or the lease is over and the holder has nothing any more. Else until when to wait at most.
    pub fn outstanding(&mut self, owed: &Owed, now: Duration) -> Option<Duration> {
        let holder = self.holders[owed.holder].as_ref()?;
        if holder.epoch != owed.epoch || holder.confirmed >= owed.recall {
            return None;
        }
        let end = holder.until + SLACK;
        if now < end {
            return Some(end);
        }
        self.dismiss(owed.holder);
        None
    }

    /// Nobody holds anything any more: what follows was not counted.
    pub fn forget(&mut self) {
        self.promised.clear();
        self.holders = [const { None }; HOLDERS];
    }

    /// Forgets who has not listened for `patience` after its lease.
    pub fn expire(&mut self, now: Duration, patience: Duration) {
        for place in 0..HOLDERS {
            let is_gone = |holder: &Holder| now > holder.until + SLACK + patience;
            if self.holders[place].as_ref().is_some_and(is_gone) {
                self.dismiss(place);
            }
        }
    }

    fn place(&self, session: Session) -> Option<usize> {
        let is_it = |holder: &Option<Holder>| holder.as_ref().is_some_and(|it| it.session == session);
        self.holders.iter().position(is_it)
    }

    fn holder(&mut self, session: Session) -> Option<&mut Holder> {
        let place = self.place(session)?;
        self.holders[place].as_mut()
    }

    fn recall_all(&mut self, place: usize) {
        self.withdraw(place);
        if let Some(holder) = &mut self.holders[place] {
            holder.last_recall += 1;
            holder.last_awaited = holder.last_recall;
            holder.all = Some(holder.last_recall);
            holder.waiting.clear();
            holder.promised = 0;
        }
    }

    fn dismiss(&mut self, place: usize) {
        self.withdraw(place);
        self.holders[place] = None;
    }

    fn withdraw(&mut self, place: usize) {
        self.promised.retain(|_, holders| {
            *holders &= !bit(place);
            *holders != 0
        });
    }
}

impl Holder {
    fn recall(&mut self, thing: Thing<Vec<u8>>) {
        self.promised -= 1;
        self.push(thing);
        self.last_awaited = self.last_recall;
    }

    fn push(&mut self, thing: Thing<Vec<u8>>) {
        self.last_recall += 1;
        self.waiting.push_back((self.last_recall, thing));
    }

    fn confirm(&mut self, confirmed: u64) {
        self.confirmed = self.confirmed.max(confirmed);
        self.all = self.all.filter(|all| *all > confirmed);
        while self.waiting.front().is_some_and(|(recall, _)| *recall <= confirmed) {
            self.waiting.pop_front();
        }
    }

    fn is_owing(&self) -> bool {
        self.confirmed < self.last_recall
    }

    fn recalls(&self) -> Recalls {
        let mut recalls = Recalls {
            epoch: self.epoch,
            last: self.last_recall,
            all: self.all.is_some(),
            ..Recalls::default()
        };
        for (_, thing) in &self.waiting {
            match thing {
                Thing::Attributes(inode) => recalls.inodes.push(*inode),
                Thing::Access(folder) => recalls.access.push(*folder),
                Thing::Name(folder, name) => recalls.names.push((*folder, name.clone())),
                Thing::Locks(inode) => recalls.locks.push(*inode),
            }
        }
        recalls
    }
}

fn bit(place: usize) -> u64 {
    1 << place
}

fn places(bits: u64) -> impl Iterator<Item = usize> {
    (0..HOLDERS).filter(move |place| bits & bit(*place) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Session = Session(1);
    const TWO: Session = Session(2);
    const FILE: Inode = Inode(7);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn lent(sessions: &[Session]) -> Promises {
        let mut promises = Promises::new(100);
        for session in sessions {
            let epoch = promises.begin(*session).unwrap();
            promises.lend(*session, epoch, at(1000));
        }
        promises
    }

    /// Attributes of these.
    fn of<'a>(inodes: impl IntoIterator<Item = Inode>) -> Vec<Thing<&'a [u8]>> {
        inodes.into_iter().map(Thing::Attributes).collect()
    }

    fn promise(promises: &mut Promises, session: Session, inode: Inode) -> Option<u64> {
        let ticket = promises.ticket();
        promises.promise(session, &of([inode]), ticket, at(10))
    }

    #[test]
    fn a_change_waits_for_each_holder_but_the_one_that_made_it() {
        let mut promises = lent(&[ONE, TWO]);
        assert!(!promises.touch(of([FILE])), "nobody was promised anything");
        let epoch = promise(&mut promises, ONE, FILE).unwrap();
        promise(&mut promises, TWO, FILE).unwrap();
        assert!(promises.touch(of([FILE])));
        let owed = promises.owed(TWO);
        assert_eq!(owed.len(), 1);
        assert_eq!(promises.outstanding(&owed[0], at(20)), Some(at(1050)));
        let recalls = promises.recalls(ONE).unwrap();
        assert_eq!((recalls.epoch, recalls.inodes.as_slice()), (epoch, &[FILE][..]));
        assert!(promises.confirm(ONE, epoch, recalls.last), "nothing to tell");
        assert_eq!(promises.outstanding(&owed[0], at(20)), None);
        assert!(promises.recalls(ONE).is_none() && promises.recalls(TWO).is_some());
        assert!(!promises.touch(of([FILE])), "a promise is recalled once");
    }

    #[test]
    fn a_holder_whose_lease_is_over_is_waited_for_no_more_and_begins_anew() {
        let mut promises = lent(&[ONE]);
        let epoch = promise(&mut promises, ONE, FILE).unwrap();
        promises.touch(of([FILE]));
        let owed = promises.owed(TWO);
        assert!(promises.outstanding(&owed[0], at(1049)).is_some());
        assert_eq!(promises.outstanding(&owed[0], at(1050)), None);
        assert_eq!(promises.lend(ONE, epoch, at(3000)), None);
        assert_ne!(promises.begin(ONE), Some(epoch));
        assert_eq!(
            promises.outstanding(&owed[0], at(2000)),
            None,
            "another epoch owes nothing"
        );
    }

    #[test]
    fn a_listen_of_another_epoch_recalls_all_and_ends_no_lease() {
        let mut promises = lent(&[ONE]);
        let epoch = promise(&mut promises, ONE, FILE).unwrap();
        let recalls = promises.lend(ONE, 0, at(900)).unwrap();
        assert!(recalls.all && recalls.epoch == epoch);
        let owed = promises.owed(TWO);
        assert_eq!(promises.outstanding(&owed[0], at(950)), Some(at(1050)));
        assert!(promises.confirm(ONE, epoch, recalls.last));
        assert_eq!(promises.outstanding(&owed[0], at(950)), None);
    }

    #[test]
    fn what_was_touched_since_it_was_read_is_not_promised() {
        let mut promises = lent(&[ONE]);
        let ticket = promises.ticket();
        promises.touch(of([FILE]));
        assert_eq!(promises.promise(ONE, &of([Inode(8), FILE]), ticket, at(10)), None);
        assert!(promises.promise(ONE, &of([Inode(8)]), ticket, at(10)).is_some());
        assert_eq!(
            promises.promise(ONE, &of([Inode(8)]), ticket, at(1000)),
            None,
            "the lease is over"
        );
        assert_eq!(promise(&mut promises, TWO, FILE), None, "it does not listen");
    }

    #[test]
    fn a_ticket_from_before_anybody_listened_is_void() {
        let mut promises = Promises::new(0);
        let ticket = promises.ticket();
        promises.touch(of([FILE]));
        let epoch = promises.begin(ONE).unwrap();
        promises.lend(ONE, epoch, at(1000));
        assert_eq!(promises.promise(ONE, &of([FILE]), ticket, at(10)), None);
    }

    #[test]
    fn each_name_is_promised_and_recalled_for_itself() {
        let mut promises = lent(&[ONE]);
        let (ticket, folder) = (promises.ticket(), Inode(1));
        let found = [
            Thing::Name(folder, b"a".as_slice()),
            Thing::Access(folder),
            Thing::Attributes(FILE),
        ];
        let missed = [Thing::Name(folder, b"b".as_slice()), Thing::Access(folder)];
        let epoch = promises.promise(ONE, &found, ticket, at(10)).unwrap();
        promises.promise(ONE, &missed, ticket, at(10)).unwrap();
        assert_eq!(
            promises.holder(ONE).unwrap().promised,
            4,
            "who may search the folder is one thing"
        );
        assert!(!promises.touch([Thing::Name(folder, b"c".as_slice()), Thing::Attributes(folder)]));
        assert!(promises.touch([Thing::Name(folder, b"b".as_slice()), Thing::Attributes(folder)]));
        let recalls = promises.recalls(ONE).unwrap();
        assert_eq!(recalls.names, [(folder, b"b".to_vec())]);
        assert!(recalls.inodes.is_empty() && recalls.access.is_empty());
        promises.confirm(ONE, epoch, recalls.last);
        assert!(promises.touch([Thing::Access(folder)]));
        assert_eq!(promises.recalls(ONE).unwrap().access, [folder]);
    }

    #[test]
    fn who_may_have_it_open_hears_that_it_lost_its_name_and_nobody_waits() {
        let mut promises = lent(&[ONE, TWO]);
        let epoch = promise(&mut promises, ONE, FILE).unwrap();
        assert!(!promises.orphaned(FILE, ONE), "it will be recalled");
        assert!(promises.orphaned(FILE, TWO));
        assert!(!promises.orphaned(FILE, Session(3)), "it does not listen");
        assert_eq!(promises.owed(Session(3)), []);
        promises.touch(of([FILE]));
        let owed = promises.owed(Session(3));
        assert_eq!(owed.len(), 1);
        for session in [ONE, TWO] {
            let recalls = promises.recalls(session).unwrap();
            assert_eq!((recalls.inodes.as_slice(), recalls.last), (&[FILE][..], 1));
        }
        assert!(promises.orphaned(Inode(8), ONE));
        promises.confirm(ONE, epoch, 1);
        assert_eq!(
            promises.outstanding(&owed[0], at(20)),
            None,
            "the later one is not waited for"
        );
        assert_eq!(promises.recalls(ONE).unwrap().inodes, [Inode(8)]);
    }

    #[test]
    fn who_holds_a_lock_and_who_was_refused_one_hear_of_each_other() {
        let mut promises = lent(&[ONE, TWO]);
        assert!(!promises.freed(FILE), "nobody was refused any");
        assert!(promises.refused(FILE, TWO, &[ONE, Session(3)]));
        let holder = promises.recalls(ONE).unwrap();
        assert!(holder.locks == [FILE] && holder.inodes.is_empty());
        assert!(promises.recalls(TWO).is_none(), "not yet");
        promises.refused(FILE, TWO, &[]);
        assert!(promises.freed(FILE) && !promises.freed(FILE), "it is told once");
        assert_eq!(promises.recalls(TWO).unwrap().locks, [FILE]);
        assert_eq!(promises.owed(Session(3)), [], "no change waits for it");
        promises.touch(of([FILE]));
        promises.refused(FILE, TWO, &[]);
        promise(&mut promises, ONE, FILE).unwrap();
        promises.touch(of([FILE]));
        let owed = promises.owed(TWO);
        assert_eq!(owed.len(), 1, "what was promised is awaited as ever");
        assert!(promises.confirm(ONE, owed[0].epoch, owed[0].recall));
        promises.forget();
        assert!(!promises.freed(FILE));
    }

    #[test]
    fn too_much_becomes_one_recall_of_all() {
        let mut promises = lent(&[ONE]);
        for inode in 0..=WAITING as u64 {
            promise(&mut promises, ONE, Inode(inode)).unwrap();
        }
        promise(&mut promises, ONE, Inode(1 << 40)).unwrap();
        promises.touch(of((0..=WAITING as u64).map(Inode)));
        let recalls = promises.recalls(ONE).unwrap();
        assert!(recalls.all && recalls.inodes.is_empty());
        assert!(promises.promised.is_empty(), "the last promise went too");
        promise(&mut promises, ONE, FILE).unwrap();
        promises.touch(of([FILE]));
        let later = promises.recalls(ONE).unwrap();
        assert!(later.all && later.inodes == [FILE]);
        assert!(!promises.confirm(ONE, recalls.epoch, recalls.last));
        let later = promises.recalls(ONE).unwrap();
        assert!(!later.all && later.inodes == [FILE]);
        let mut last = None;
        for inode in 0..=PROMISED as u64 {
            last = promise(&mut promises, ONE, Inode(inode + 100));
        }
        assert_eq!(last, None);
        assert!(promises.promised.is_empty() && promises.recalls(ONE).unwrap().all);
    }

    #[test]
    fn places_are_bounded_and_free_again() {
        let mut promises = Promises::new(0);
        for session in 0..HOLDERS as u64 {
            assert!(promises.begin(Session(session)).is_some());
        }
        assert_eq!(promises.begin(Session(1000)), None);
        promises.lend(Session(3), 0, at(5000)).unwrap();
        promises.expire(at(4000), at(1000));
        assert!(promises.place(Session(3)).is_some() && promises.place(Session(4)).is_none());
        assert!(promises.begin(Session(1000)).is_some());
    }
}
