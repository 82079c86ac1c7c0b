//! Which refused connections are worth a line in the log: the first of a machine, then one a minute with the number of the others.
//! A removed node or a scanner must not fill a disk. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);
/// Machines remembered. Beyond, further ones share one entry: an attacker has many addresses.
const MOST: usize = 256;

#[derive(Default)]
pub struct Refusals {
    seen: BTreeMap<Option<IpAddr>, Seen>,
}

struct Seen {
    logged: Instant,
    /// Since then.
    untold: u64,
}

impl Refusals {
    /// Notes one; `Some`: log it, and how many before it were not.
    pub fn note(&mut self, address: IpAddr, now: Instant) -> Option<u64> {
        let is_over = |seen: &Seen| now.saturating_duration_since(seen.logged) >= PAUSE;
        if !self.seen.contains_key(&Some(address)) && self.seen.len() >= MOST {
            self.seen.retain(|_, seen| !is_over(seen));
        }
        let is_known = self.seen.contains_key(&Some(address)) || self.seen.len() < MOST;
        let key = is_known.then_some(address);
        let Some(seen) = self.seen.get_mut(&key) else {
            self.seen.insert(key, Seen { logged: now, untold: 0 });
            return Some(0);
        };
        if !is_over(seen) {
            seen.untold += 1;
            return None;
        }
        seen.logged = now;
        Some(std::mem::take(&mut seen.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_gets_a_line_a_minute() {
        let (mut refusals, begun) = (Refusals::default(), Instant::now());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(refusals.note(one, begun), Some(0));
        assert_eq!(refusals.note(other, begun), Some(0));
        for second in 1..60 {
            assert_eq!(refusals.note(one, begun + Duration::from_secs(second)), None);
        }
        assert_eq!(refusals.note(one, begun + PAUSE), Some(59));
        assert_eq!(refusals.note(one, begun + PAUSE), None);
    }

    #[test]
    fn many_machines_share_an_entry() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let told = (0..10_000_u32).filter_map(|number| refusals.note(IpAddr::from(number.to_be_bytes()), now));
        assert_eq!(told.count(), MOST + 1);
        assert_eq!(
            refusals.note(IpAddr::from([9, 9, 9, 9]), now + PAUSE),
            Some(0),
            "it has an entry again"
        );
    }
}
