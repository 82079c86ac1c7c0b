//! What was said lately, for those who come back: of each address the newest hundred messages, each until it expires, all within a
//! budget of bytes. Messages for those present are told to other hubs alone. Pure: the time comes in as an argument.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::channel::Address;
use super::entry::Entry;
use super::message::Message;
use super::mid::Mid;
use super::queue;

/// Kept of one address.
pub const PER_ADDRESS: usize = 100;
/// Told to somebody who comes back, however many addresses are asked for.
pub const REPLAY: usize = 200;

pub struct History {
    /// All that is kept, oldest first.
    messages: BTreeMap<Mid, Kept>,
    addresses: HashMap<Address, VecDeque<Mid>>,
    bytes: usize,
    budget: usize,
    /// Where the last look for expired ones ended.
    looked_up_to: Option<Mid>,
}

struct Kept {
    entry: Arc<Entry>,
    until: Instant,
    /// Its receivers whose hundred newest it is among.
    holders: usize,
}

impl History {
    /// `budget`: bytes.
    pub fn new(budget: usize) -> Self {
        History {
            messages: BTreeMap::new(),
            addresses: HashMap::new(),
            bytes: 0,
            budget,
            looked_up_to: None,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Its id must be the highest so far.
    pub fn keep(&mut self, entry: Arc<Entry>, until: Instant) {
        let mid = entry.mid();
        let receivers: &[Address] = if entry.is_kept() { &entry.receivers } else { &[] };
        let kept = Kept {
            holders: receivers.len(),
            entry: entry.clone(),
            until,
        };
        self.bytes += entry.cost();
        self.messages.insert(mid, kept);
        for address in receivers {
            let mids = self.addresses.entry(*address).or_default();
            mids.push_back(mid);
            let old = if mids.len() > PER_ADDRESS {
                mids.pop_front()
            } else {
                None
            };
            if let Some(old) = old {
                self.release(old);
            }
        }
        while self.bytes > self.budget && self.remove_oldest() {}
    }

    /// All that is here after that id, oldest first, and until when.
    pub fn after(&self, mid: Mid) -> impl Iterator<Item = (&Arc<Entry>, Instant)> {
        let newer = self.messages.range((Bound::Excluded(mid), Bound::Unbounded));
        newer.map(|(_, kept)| (&kept.entry, kept.until))
    }

    /// What the addresses were told after that id, oldest first; of more than can be told or may wait, the newest.
    pub fn since(&self, addresses: &[Address], after: Mid, now: Instant) -> Vec<Arc<Message>> {
        let mut mids: Vec<Mid> = addresses
            .iter()
            .filter_map(|address| self.addresses.get(address))
            .flat_map(|mids| mids.iter().rev().take_while(|mid| **mid > after).copied())
            .collect();
        mids.sort_unstable();
        mids.dedup();
        let alive = mids.iter().filter_map(|mid| self.messages.get(mid));
        let mut told: Vec<Arc<Message>> = alive
            .filter(|kept| kept.until > now)
            .map(|kept| kept.entry.message.clone())
            .collect();
        let mut bytes = 0;
        let newest = told.iter().rev().take(REPLAY).take_while(|message| {
            bytes += message.cost();
            bytes <= queue::BYTES
        });
        let newest = newest.count().max(1);
        told.drain(..told.len().saturating_sub(newest));
        told
    }

    /// Forgets expired ones among the next `most` messages; starts anew when all were looked at.
    pub fn sweep(&mut self, now: Instant, most: usize) {
        let from = self.looked_up_to.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.messages.range((from, Bound::Unbounded)).take(most);
        let looked: Vec<(Mid, bool)> = range.map(|(mid, kept)| (*mid, kept.until <= now)).collect();
        self.looked_up_to = match looked.last() {
            Some((last, _)) if looked.len() == most => Some(*last),
            _ => None,
        };
        for (mid, is_expired) in looked {
            if is_expired {
                self.remove(mid);
            }
        }
    }

    fn remove_oldest(&mut self) -> bool {
        let oldest = self.messages.keys().next().copied();
        oldest.is_some_and(|oldest| {
            self.remove(oldest);
            true
        })
    }

    /// Takes a message out, wherever it is held.
    fn remove(&mut self, mid: Mid) {
        let Some(kept) = self.messages.remove(&mid) else { return };
        self.bytes -= kept.entry.cost();
        for address in &kept.entry.receivers {
            let Some(mids) = self.addresses.get_mut(address) else {
                continue;
            };
            // Ids grow, and so the list is sorted.
            if let Ok(at) = mids.binary_search(&mid) {
                mids.remove(at);
            }
            if mids.is_empty() {
                self.addresses.remove(address);
            }
        }
    }

    /// One address less leads to it.
    fn release(&mut self, mid: Mid) {
        let Some(kept) = self.messages.get_mut(&mid) else {
            return;
        };
        kept.holders -= 1;
        if kept.holders == 0
            && let Some(kept) = self.messages.remove(&mid)
        {
            self.bytes -= kept.entry.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::entry::Origin;
    use crate::push::message::{BODY_MAX, Body, Publication, Sender, with_dictionary};
    use crate::push::mid::Mids;
    use std::time::Duration;

    struct World {
        history: History,
        mids: Mids,
        start: Mid,
        now: Instant,
    }

    impl World {
        fn new(budget: usize) -> Self {
            let mids = Mids::new(Duration::from_secs(1));
            World {
                history: History::new(budget),
                start: mids.last(),
                mids,
                now: Instant::now(),
            }
        }

        fn keep(&mut self, users: &[u64], seconds: u64) -> Mid {
            let publication = Publication {
                receivers: users.iter().map(|user| Address::User(*user)).collect(),
                sender: Sender::Backend,
                body: Body::new("{}".into()).expect("JSON"),
                expiry: u32::from(seconds > 0),
                extras: None,
            };
            let entry = Entry::new(self.mids.take(), Duration::ZERO, &publication, Origin::default());
            let (mid, until) = (entry.mid(), self.now + Duration::from_secs(seconds));
            self.history.keep(Arc::new(entry), until);
            mid
        }

        fn since(&self, users: &[u64], after: Mid) -> Vec<Mid> {
            let addresses: Vec<Address> = users.iter().map(|user| Address::User(*user)).collect();
            let told = self.history.since(&addresses, after, self.now);
            told.iter().map(|message| message.mid).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_is_told_once_and_in_order() {
        let mut world = World::new(1 << 20);
        let first = world.keep(&[1, 2, 1], 60);
        let second = world.keep(&[2], 60);
        let third = world.keep(&[3, 1], 60);
        assert_eq!(world.since(&[1, 2, 3], world.start), [first, second, third]);
        assert_eq!(world.since(&[1], world.start), [first, third]);
        assert_eq!(world.since(&[2], first), [second]);
        assert!(world.since(&[1, 2, 3], third).is_empty());
        assert!(world.since(&[4], world.start).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_of_an_address_and_two_hundred_in_all() {
        let mut world = World::new(1 << 20);
        let mids: Vec<Mid> = (0..120).map(|_| world.keep(&[1], 60)).collect();
        assert_eq!(world.since(&[1], world.start), mids[20..]);
        assert_eq!(world.history.messages(), 100);
        for user in 2..5 {
            (0..100).for_each(|_| _ = world.keep(&[user], 60));
        }
        let told = world.since(&[1, 2, 3, 4], world.start);
        assert_eq!(told.len(), 200);
        assert_eq!(told, world.since(&[3, 4], world.start), "the newest");
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_address_forgets_another_still_has() {
        let mut world = World::new(1 << 20);
        let both = world.keep(&[1, 2], 60);
        (0..100).for_each(|_| _ = world.keep(&[1], 60));
        assert_eq!(world.since(&[2], world.start), [both]);
        assert!(!world.since(&[1], world.start).contains(&both));
        (0..100).for_each(|_| _ = world.keep(&[2], 60));
        assert_eq!(world.history.messages(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_ones_are_not_told_and_make_room() {
        let mut world = World::new(1 << 20);
        let lasting = world.keep(&[1], 60);
        (0..10).for_each(|_| _ = world.keep(&[1, 2], 5));
        world.now += Duration::from_secs(5);
        assert_eq!(world.since(&[1, 2], world.start), [lasting]);
        // Four looks of three messages each, and one that begins anew.
        (0..5).for_each(|_| world.history.sweep(world.now, 3));
        assert_eq!(world.history.messages(), 1);
        assert_eq!(world.history.addresses.len(), 1);
        world.now += Duration::from_secs(60);
        world.history.sweep(world.now, 3);
        assert_eq!((world.history.messages(), world.history.bytes()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_for_those_present_is_told_to_other_hubs_alone() {
        let mut world = World::new(1 << 20);
        let (live, kept) = (world.keep(&[1], 0), world.keep(&[1], 60));
        assert_eq!(world.since(&[1], world.start), [kept]);
        let after = |mid| -> Vec<Mid> { world.history.after(mid).map(|(entry, _)| entry.mid()).collect() };
        assert_eq!((after(world.start), after(live)), (vec![live, kept], vec![kept]));
        world.history.sweep(world.now, 10);
        assert_eq!((world.history.messages(), world.history.addresses.len()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_holds() {
        let mut world = World::new(10_000);
        let mids: Vec<Mid> = (0..1000).map(|user| world.keep(&[user, 7], 60)).collect();
        assert!(world.history.bytes() <= 10_000);
        let left = world.since(&[7], world.start);
        assert!(!left.is_empty() && mids.ends_with(&left));
        assert!(world.history.addresses.len() <= left.len() + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn dictionaries_are_within_the_budget() {
        const BUDGET: usize = 16 << 20;
        let mut world = World::new(BUDGET);
        for user in 0..100 {
            let publication = with_dictionary(user);
            let entry = Entry::new(world.mids.take(), Duration::ZERO, &publication, Origin::default());
            let until = world.now + Duration::from_secs(60);
            world.history.keep(Arc::new(entry), until);
        }
        let held = world.history.messages() * BODY_MAX;
        assert!((1..=BUDGET).contains(&held), "{held}");
    }
}
