//! `Links`: which other nodes answer. Two nodes may both reach the leader and not each other. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::net::mesh::Name;

#[derive(Clone, Debug, Default)]
pub struct Links {
    /// When the newest probe that was answered was sent.
    answered: BTreeMap<Name, Duration>,
}

impl Links {
    pub fn answered(&mut self, by: &Name, sent: Duration) {
        let known = self.answered.entry(by.clone()).or_default();
        *known = sent.max(*known);
    }

    /// Those who have not answered what was sent within that time.
    pub fn cut(&self, peers: &[Name], now: Duration, within: Duration) -> Vec<Name> {
        let is_cut = |peer: &&Name| {
            let answered = self.answered.get(peer);
            answered.is_none_or(|sent| now.saturating_sub(*sent) > within)
        };
        peers.iter().filter(is_cut).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fixture::name;
    use super::*;

    #[test]
    fn who_does_not_answer_soon_is_cut_off() {
        let (mut links, second) = (Links::default(), Duration::from_secs(1));
        let peers = ["n2", "n3"].map(name);
        assert_eq!(links.cut(&peers, second, second), peers);
        links.answered(&peers[0], 5 * second);
        links.answered(&peers[0], 4 * second);
        assert_eq!(links.cut(&peers, 6 * second, second), [name("n3")]);
        assert_eq!(links.cut(&peers, 7 * second, second), peers);
    }
}
