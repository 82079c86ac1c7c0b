//! Subscribers that go from hub to hub with the newest id that they have.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::hub::said;
use super::world::{ADDRESSES, Happening, MS, World};
use crate::push::channel::Address;
use crate::push::entry::Entry;
use crate::push::mid::Mid;
use crate::push::order::cursor;

pub struct Client {
    number: u64,
    pub user: u64,
    pub hub: Option<usize>,
    cursor: Option<Mid>,
    floor: Mid,
    pub got: BTreeSet<u64>,
    /// When it came for the first time; what was acknowledged before is not its matter.
    pub since: Option<Duration>,
}

impl Client {
    pub fn new(number: u64) -> Self {
        Client {
            number,
            user: number % ADDRESSES,
            hub: None,
            cursor: None,
            floor: Mid::default(),
            got: BTreeSet::new(),
            since: None,
        }
    }

    /// What is wrong, if something is.
    pub fn offer(&mut self, entry: &Arc<Entry>) -> Option<String> {
        let mid = entry.mid();
        if !entry.receivers.contains(&Address::User(self.user)) || mid <= self.floor {
            return None;
        }
        let before = self.cursor.replace(mid);
        let said = said(entry);
        let is_new = self.got.insert(said);
        if before >= Some(mid) {
            return Some(format!("client {} got {mid} after {before:?}", self.number));
        }
        (!is_new).then(|| format!("client {} got {said} twice, now as {mid}", self.number))
    }
}

impl World {
    /// Some go elsewhere, and all who have nobody.
    pub(super) fn wander(&mut self) {
        self.plan(MS * 25, Happening::Wander);
        for client in 0..self.clients.len() {
            if self.clients[client].hub.is_none() || self.random.is_one_of(20) {
                self.visit(client);
            }
        }
    }

    fn visit(&mut self, client: usize) {
        let at = self.random.index(self.machines.len());
        if !self.machines[at].runs() {
            return;
        }
        let moment = self.moment(at);
        let after = self.clients[client].cursor;
        let process = self.machines[at].process.as_ref().expect("it runs");
        let log = process.part.log();
        // The door opens when the hub has caught up for the first time.
        if !log.is_whole() && log.delivered() == Mid::default() {
            return;
        }
        let start = cursor::start(log, after, process.part.is_current(moment.is_leased));
        let client = &mut self.clients[client];
        if after.is_some() && start.replay == Some(Mid::default()) {
            // Of a world that is lost.
            client.cursor = None;
            client.got.clear();
        }
        let addresses = [Address::User(client.user)];
        let missed = start
            .replay
            .map(|after| log.history().since(&addresses, after, moment.now));
        client.hub = Some(at);
        client.since.get_or_insert(self.now);
        // It is told the entries, not only the messages.
        let entries: Vec<Arc<Entry>> = missed
            .into_iter()
            .flatten()
            .filter_map(|message| {
                let mut all = log.history().after(Mid::default());
                all.find(|(entry, _)| entry.mid() == message.mid)
                    .map(|(entry, _)| entry.clone())
            })
            .collect();
        client.floor = Mid::default();
        let faults: Vec<String> = entries.iter().filter_map(|entry| client.offer(entry)).collect();
        client.floor = start.floor;
        client.cursor = client.cursor.or(Some(start.floor));
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    /// Acknowledged publishes that subscribers lack.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for client in &self.clients {
            let wanted = self.acknowledged.iter().filter(|(_, user)| **user == client.user);
            let lacks = wanted.filter(|(said, _)| !client.got.contains(said));
            missing.extend(lacks.map(|(said, _)| format!("client {} lacks {said}", client.number)));
        }
        missing
    }
}
