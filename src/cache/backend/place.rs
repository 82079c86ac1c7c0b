//! Which server has a key: rendezvous, so that a server that goes takes only its own keys along. The same on every node, because nothing
//! but the names counts. Pure.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// The server with the highest score among those that are up.
pub fn choose<'a>(key: &[u8], servers: impl Iterator<Item = (&'a str, bool)>) -> Option<usize> {
    servers
        .enumerate()
        .filter(|(_, (_, is_up))| *is_up)
        .max_by_key(|(_, (name, _))| score(key, name))
        .map(|(number, _)| number)
}

fn score(key: &[u8], name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    // No name holds it, so that a name and a key are never read as another pair.
    hasher.write_u8(0);
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"];

    fn placed(key: u32, down: Option<usize>) -> Option<usize> {
        let servers = NAMES
            .iter()
            .enumerate()
            .map(|(number, name)| (*name, Some(number) != down));
        choose(&key.to_le_bytes(), servers)
    }

    #[test]
    fn keys_are_spread_and_only_those_of_a_lost_server_move() {
        let mut counts = [0; 3];
        for key in 0..3000 {
            let before = placed(key, None).unwrap();
            counts[before] += 1;
            let after = placed(key, Some(1)).unwrap();
            assert!(after == before || before == 1, "{key}");
            assert_ne!(after, 1);
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(choose(b"k", [("a", false)].into_iter()), None);
    }

    #[test]
    fn placement_is_the_same_on_every_node_and_in_every_version() {
        let first: Vec<usize> = (0..12).filter_map(|key| placed(key, None)).collect();
        assert_eq!(first, FIRST);
    }

    /// Nodes of different versions ask the same servers.
    const FIRST: [usize; 12] = [1, 2, 2, 2, 2, 1, 1, 1, 2, 1, 2, 2];
}
