//! How often one may try to join in vain. A secret cannot be guessed; this keeps those who try from costing more than they must.
//! Pure: the caller says what time it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// After this an attempt is forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// Attempts in vain within it: an admin who mistypes is not stopped.
const BY_PEER: u32 = 10;
const IN_ALL: u32 = 200;
/// Addresses remembered. Beyond it strangers wait until others are forgotten.
const PEERS: usize = 1024;
/// Events in the registry are for people; the log has every attempt.
const BETWEEN_EVENTS: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Limits {
    peers: HashMap<IpAddr, Window>,
    all: Window,
    last_event: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Window {
    began: Option<Instant>,
    attempts: u32,
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        self.began.is_none_or(|began| now.duration_since(began) >= WINDOW)
    }

    fn has_room(&self, now: Instant, most: u32) -> bool {
        self.is_over(now) || self.attempts < most
    }

    fn count(&mut self, now: Instant) {
        if self.is_over(now) {
            *self = Window {
                began: Some(now),
                attempts: 0,
            };
        }
        self.attempts = self.attempts.saturating_add(1);
    }
}

impl Limits {
    /// Whether a peer may try now.
    pub fn allow(&self, peer: IpAddr, now: Instant) -> bool {
        let of_peer = match self.peers.get(&peer) {
            Some(window) => window.has_room(now, BY_PEER),
            None => self.peers.len() < PEERS || self.peers.values().any(|window| window.is_over(now)),
        };
        of_peer && self.all.has_room(now, IN_ALL)
    }

    /// It tried in vain. Returns whether an event may tell of it.
    pub fn refused(&mut self, peer: IpAddr, now: Instant) -> bool {
        self.all.count(now);
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS {
            self.peers.retain(|_, window| !window.is_over(now));
        }
        if self.peers.contains_key(&peer) || self.peers.len() < PEERS {
            self.peers.entry(peer).or_default().count(now);
        }
        let is_due = self
            .last_event
            .is_none_or(|last| now.duration_since(last) >= BETWEEN_EVENTS);
        if is_due {
            self.last_event = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn one_peer_is_stopped_and_let_in_again_and_others_are_not_touched() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        for _ in 0..BY_PEER {
            assert!(limits.allow(peer(1), start));
            limits.refused(peer(1), start);
        }
        assert!(!limits.allow(peer(1), start) && limits.allow(peer(2), start));
        assert!(limits.allow(peer(1), start + WINDOW));
    }

    #[test]
    fn many_peers_are_stopped_together_and_cost_bounded_memory() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        for number in 0..IN_ALL {
            limits.refused(peer(number), start);
        }
        assert!(!limits.allow(peer(5000), start));
        let mut now = start;
        for number in 0..5000 {
            now += Duration::from_millis(10);
            limits.refused(peer(number), now);
            assert!(limits.peers.len() <= PEERS);
        }
    }

    #[test]
    fn events_come_at_most_every_ten_seconds() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        assert!(limits.refused(peer(1), start) && !limits.refused(peer(2), start));
        assert!(!limits.refused(peer(1), start + BETWEEN_EVENTS / 2));
        assert!(limits.refused(peer(1), start + BETWEEN_EVENTS));
    }
}
