//! `Member`: the tables that this node knows, what it serves by them, and whether its data still count. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::message::Memory;
use super::placement::Placement;
use super::shard::ShardSet;
use super::table::{Epoch, Table};
use crate::net::mesh::Name;

#[derive(Clone, Debug)]
pub struct Member {
    own: Name,
    pub incarnation: u64,
    /// The table in force, or the one that must be taken to be.
    base: Option<Arc<Placement>>,
    /// A leader said that it is in force.
    is_committed: bool,
    next: Option<Arc<Placement>>,
    /// The data path has stopped for the next table.
    is_stopped: bool,
    /// It has been in a table, or nearly, so it has data.
    holds: bool,
    is_emptied: bool,
    /// What it owns in every table that may be in force.
    pub serves: ShardSet,
    pub lease: Duration,
}

impl Member {
    pub fn new(own: Name, incarnation: u64) -> Self {
        Member {
            own,
            incarnation,
            base: None,
            is_committed: false,
            next: None,
            is_stopped: false,
            holds: false,
            is_emptied: true,
            serves: ShardSet::EMPTY,
            lease: Duration::ZERO,
        }
    }

    pub fn base(&self) -> Option<&Arc<Placement>> {
        self.base.as_ref()
    }

    pub fn next(&self) -> Option<&Arc<Placement>> {
        self.next.as_ref()
    }

    /// A table without this node is in force, and it serves nothing.
    pub fn is_out(&self) -> bool {
        let is_in = self
            .base
            .as_ref()
            .is_some_and(|base| base.table().node(&self.own).is_some());
        self.is_committed && !is_in && self.serves.is_empty()
    }

    pub fn is_emptied(&self) -> bool {
        self.is_emptied
    }

    pub fn memory(&self) -> Memory {
        let table = |placement: &Arc<Placement>| placement.table().clone();
        Memory {
            base: self.base.as_ref().map(table),
            is_committed: self.is_committed,
            next: self.next.as_ref().map(table),
        }
    }

    /// The next table, if nothing of an older one is served any more.
    pub fn prepared(&self) -> Option<Epoch> {
        let next = self.next.as_ref().filter(|_| self.is_stopped && self.is_emptied);
        next.map(|next| next.epoch())
    }

    /// Takes what a leader says. The events are for the data path, in this order.
    pub fn take(&mut self, base: &Arc<Table>, is_committed: bool, next: Option<&Arc<Table>>) -> Vec<Event> {
        let mut events = Vec::new();
        if self.base.as_ref().map(|known| known.epoch()) != Some(base.epoch) {
            self.rebase(base, &mut events);
        }
        self.is_committed |= is_committed;
        match next {
            None => self.next = None,
            Some(next) if self.next.as_ref().is_some_and(|known| known.epoch() == next.epoch) => {}
            Some(next) => {
                let placement = Arc::new(Placement::new(next.clone()));
                self.is_stopped = false;
                // Who has prepared it takes copies already.
                self.holds |= next.holds(&self.own, self.incarnation);
                self.next = Some(placement.clone());
                events.push(Event::Stop(placement));
            }
        }
        let (base, next) = (self.base.as_ref(), self.next.as_ref());
        let limit = base.map_or(ShardSet::EMPTY, |base| self.owned(base));
        let limit = next.map_or(limit, |next| limit.and(&self.owned(next)));
        self.serves = match self.is_committed {
            true => limit,
            false => limit.and(&self.serves),
        };
        events
    }

    /// Another table is in force. The data count if this node was in each one of the chain.
    fn rebase(&mut self, table: &Arc<Table>, events: &mut Vec<Event>) {
        let prepared = self.next.take_if(|next| next.epoch() == table.epoch);
        let follows = prepared.is_some() || self.base.as_ref().is_some_and(|base| base.epoch() == table.parent);
        let is_in = table.holds(&self.own, self.incarnation);
        let placement = prepared.unwrap_or_else(|| Arc::new(Placement::new(table.clone())));
        if self.holds && !(follows && is_in) {
            events.push(self.lose());
        } else if is_in {
            self.holds = true;
            events.push(Event::Commit(placement.clone()));
        }
        self.base = Some(placement);
        self.is_committed = false;
    }

    /// Its data are void, and it serves nothing: from now on it is another incarnation.
    pub fn lose(&mut self) -> Event {
        self.incarnation += 1;
        (self.holds, self.is_emptied) = (false, false);
        (self.serves, self.lease) = (ShardSet::EMPTY, Duration::ZERO);
        Event::Empty {
            incarnation: self.incarnation,
        }
    }

    fn owned(&self, placement: &Placement) -> ShardSet {
        match placement.table().holds(&self.own, self.incarnation) {
            true => placement.owned(&self.own),
            false => ShardSet::EMPTY,
        }
    }

    /// Whether that was what it waited for.
    pub fn stopped(&mut self, epoch: Epoch) -> bool {
        let is_next = self.next.as_ref().is_some_and(|next| next.epoch() == epoch);
        let is_new = is_next && !self.is_stopped;
        self.is_stopped |= is_next;
        is_new
    }

    pub fn emptied(&mut self, incarnation: u64) {
        self.is_emptied |= incarnation == self.incarnation;
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fixture::{name, table};
    use super::*;

    fn tables(number: u64, nodes: &[&str]) -> Arc<Table> {
        Arc::new(table(number, nodes))
    }

    /// A member that serves in a table of three.
    fn serving() -> Member {
        let mut member = Member::new(name("n1"), 1);
        let three = tables(1, &["n1", "n2", "n3"]);
        let events = member.take(&three, true, None);
        assert!(matches!(&events[..], [Event::Commit(_)]));
        assert!(!member.serves.is_empty());
        member
    }

    #[test]
    fn what_moves_is_not_served_between_stop_and_commit() {
        let mut member = serving();
        let before = member.serves;
        let (three, two) = (tables(1, &["n1", "n2", "n3"]), tables(2, &["n1", "n3"]));
        let events = member.take(&three, true, Some(&two));
        assert!(matches!(&events[..], [Event::Stop(next)] if next.epoch() == two.epoch));
        assert_eq!((member.serves, member.prepared()), (before, None), "it gains only");
        assert!(member.stopped(two.epoch) && !member.stopped(two.epoch));
        assert_eq!(member.prepared(), Some(two.epoch));
        assert!(matches!(&member.take(&two, true, None)[..], [Event::Commit(_)]));
        assert!(member.serves.len() > before.len());
        let four = tables(3, &["n1", "n3", "n4", "n5"]);
        member.take(&two, true, Some(&four));
        let kept = member.serves;
        assert!(kept.len() < member.base().unwrap().owned(&name("n1")).len());
        // A new leader does not know whether the table was put in force.
        member.take(&four, false, None);
        assert_eq!(member.serves, kept);
    }

    #[test]
    fn a_node_that_was_being_filled_has_data_too() {
        let mut member = Member::new(name("n3"), 1);
        let two = tables(1, &["n1", "n2"]);
        assert_eq!(member.take(&two, true, None), []);
        member.take(&two, true, Some(&tables(2, &["n1", "n2", "+n3"])));
        let events = member.take(&tables(3, &["n1", "n2"]), true, None);
        assert_eq!(events, [Event::Empty { incarnation: 2 }]);
    }

    #[test]
    fn who_has_lost_its_data_serves_nothing_under_the_tables_that_name_it() {
        let mut member = serving();
        let three = tables(1, &["n1", "n2", "n3"]);
        member.take(&three, true, Some(&tables(2, &["n1", "n2"])));
        assert_eq!(member.lose(), Event::Empty { incarnation: 2 });
        member.emptied(1);
        assert!(member.serves.is_empty() && !member.is_emptied());
        assert_eq!(member.take(&three, true, Some(&tables(2, &["n1", "n2"]))), []);
        assert!(member.serves.is_empty());
        // It has nothing that must go once more.
        member.emptied(2);
        assert_eq!(member.take(&tables(3, &["n2"]), true, None), []);
        assert_eq!(member.incarnation, 2);
    }

    #[test]
    fn a_node_that_missed_a_table_or_is_not_in_one_begins_empty() {
        for (number, nodes) in [(2, &["n2", "n3"][..]), (7, &["n1", "n2"])] {
            let mut member = serving();
            let events = member.take(&tables(number, nodes), true, None);
            assert_eq!(events, [Event::Empty { incarnation: 2 }]);
            assert!(member.serves.is_empty() && !member.is_emptied());
            member.emptied(2);
            assert!(member.is_emptied());
            // Empty, it may come into any table.
            let mut back = table(8, &["+n1", "n2"]);
            back.nodes[0].incarnation = 2;
            assert!(matches!(
                &member.take(&Arc::new(back), true, None)[..],
                [Event::Commit(_)]
            ));
        }
    }
}
