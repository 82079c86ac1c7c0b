//! A turn, as the setting `upgrade.turn` has it: whose it is, since when on the boot clock of that node, and whether it was drained
//! already. Which boot it was, it does not say: a time that has not come yet is one of an earlier boot. Versions before know the first two
//! words. Pure.

use std::fmt;
use std::time::Duration;

/// Third word.
const DRAINED: &str = "drained";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub node: String,
    pub begun: Duration,
    /// The operator wants it drained, also after the turn.
    pub is_drained: bool,
}

impl Turn {
    /// `None`: it is nobody's.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let node = words.next().filter(|node| !node.is_empty())?.to_owned();
        let begun = words.next().and_then(|begun| begun.parse().ok()).unwrap_or(u64::MAX);
        Some(Turn {
            node,
            begun: Duration::from_millis(begun),
            is_drained: words.next() == Some(DRAINED),
        })
    }

    /// Since it began; at least since this boot, where it began before that.
    pub fn waited(&self, now: Duration) -> Duration {
        now.checked_sub(self.begun).unwrap_or(now)
    }

    /// Whether a change of the executable, begun at that time of this node's boot clock, was made in this turn.
    pub fn covers(&self, change: Duration, now: Duration) -> bool {
        let is_after_reboot = self.begun > now && change <= now;
        change >= self.begun || is_after_reboot
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.node, self.begun.as_millis())?;
        match self.is_drained {
            true => write!(out, " {DRAINED}"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_turn_is_read_as_it_is_written() {
        let turn = Turn::parse("n3 5000").unwrap();
        assert_eq!((turn.node.as_str(), turn.begun), ("n3", seconds(5)));
        assert_eq!(turn.to_string(), "n3 5000");
        assert_eq!(Turn::parse("n3 5000 more").as_ref(), Some(&turn), "of a later version");
        let is_drained = true;
        let turn = Turn { is_drained, ..turn };
        assert_eq!(Turn::parse(&turn.to_string()), Some(turn));
        assert_eq!(Turn::parse(""), None);
    }

    #[test]
    fn a_reboot_stops_no_clock_and_hides_no_change() {
        let turn = Turn::parse("n3 900000").unwrap();
        assert_eq!(turn.waited(seconds(1000)), seconds(100));
        assert_eq!(turn.waited(seconds(400)), seconds(400), "since the machine started");
        let covers = |change, now| turn.covers(seconds(change), seconds(now));
        assert!(covers(950, 1000) && !covers(850, 1000));
        // After a reboot: made since then, before it in this turn, before it and before this turn.
        assert!(covers(100, 400) && covers(950, 400) && !covers(850, 400));
    }
}
