//! Who is online: whoever has a connection, and for a while after the last one has ended, because pages are left and reached all the
//! time. Pure: the time comes in as an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::channel::Address;

/// How long somebody without a connection still counts as online.
pub const GRACE: Duration = Duration::from_secs(130);
/// How long it is known when somebody was last seen. Channels live half as long.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Only what the portal has signed gets in here: its users and their channels bound the number of entries.
#[derive(Default)]
pub struct Presence {
    seen: HashMap<Address, Seen>,
}

struct Seen {
    connections: u32,
    /// When the last one ended.
    last: Instant,
    is_online: bool,
}

impl Presence {
    /// Returns whether that is news.
    pub fn come(&mut self, address: Address, now: Instant) -> bool {
        let seen = self.seen.entry(address).or_insert(Seen {
            connections: 0,
            last: now,
            is_online: false,
        });
        seen.connections += 1;
        !std::mem::replace(&mut seen.is_online, true)
    }

    pub fn leave(&mut self, address: Address, now: Instant) {
        if let Some(seen) = self.seen.get_mut(&address) {
            seen.connections = seen.connections.saturating_sub(1);
            seen.last = now;
        }
    }

    pub fn is_online(&self, address: Address, now: Instant) -> bool {
        self.ago(address, now).is_some_and(|ago| ago.is_zero())
    }

    /// How long ago it was last seen; zero: it is online; `None`: not within memory.
    pub fn ago(&self, address: Address, now: Instant) -> Option<Duration> {
        let seen = self.seen.get(&address)?;
        let ago = now.saturating_duration_since(seen.last);
        Some(if seen.connections > 0 || ago < GRACE {
            Duration::ZERO
        } else {
            ago
        })
    }

    /// Those who have gone since the last look.
    pub fn sweep(&mut self, now: Instant) -> Vec<Address> {
        let mut gone = Vec::new();
        self.seen.retain(|address, seen| {
            let ago = now.saturating_duration_since(seen.last);
            if seen.connections == 0 && seen.is_online && ago >= GRACE {
                seen.is_online = false;
                gone.push(*address);
            }
            seen.connections > 0 || ago < MEMORY
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_soon_was_never_away() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        let (user, after) = (Address::User(1), |seconds| start + Duration::from_secs(seconds));
        assert_eq!(presence.ago(user, start), None);
        assert!(presence.come(user, start));
        assert!(!presence.come(user, start));
        presence.leave(user, after(1000));
        assert!(presence.is_online(user, after(1000)), "one connection is left");
        presence.leave(user, after(2000));
        assert!(presence.sweep(after(2129)).is_empty());
        assert!(!presence.come(user, after(2129)), "no news");
        presence.leave(user, after(3000));
        assert_eq!(presence.ago(user, after(3129)), Some(Duration::ZERO));
        assert_eq!(presence.ago(user, after(3130)), Some(Duration::from_secs(130)));
        assert_eq!(presence.sweep(after(3130)), [user]);
        assert!(presence.sweep(after(3131)).is_empty(), "told once");
        assert!(presence.come(user, after(4000)), "news again");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_are_forgotten_after_a_day() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        presence.come(Address::User(1), start);
        presence.come(Address::User(2), start);
        presence.leave(Address::User(1), start);
        presence.sweep(start + MEMORY);
        assert_eq!(presence.ago(Address::User(1), start + MEMORY), None);
        assert!(presence.is_online(Address::User(2), start + MEMORY));
    }
}
