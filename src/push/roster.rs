//! `Roster`: who has a connection at which hub. Each hub tells the others of its own: a whole list first, then what changes. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use super::channel::Address;
use super::order::Presence as Told;
use crate::net::mesh::Name;

/// Changes that are remembered; who is further behind is told all.
const CHANGES: usize = 10_000;
/// Addresses of one list: what a call can carry. Beyond it some seem to be away to other nodes.
const LONGEST: usize = 200_000;

pub struct Roster {
    /// Random, of this process.
    process: u64,
    own: HashMap<Address, u32>,
    /// Of the state of `own`.
    version: u64,
    /// The last ones, up to `version`.
    changes: VecDeque<(Address, bool)>,
    others: HashMap<Name, Other>,
}

#[derive(Default)]
struct Other {
    process: u64,
    version: u64,
    online: HashSet<Address>,
}

/// Addresses that have a hub more, and one less.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub came: Vec<Address>,
    pub gone: Vec<Address>,
}

impl Roster {
    pub fn new(process: u64) -> Self {
        Roster {
            process,
            own: HashMap::new(),
            version: 0,
            changes: VecDeque::new(),
            others: HashMap::new(),
        }
    }

    /// A connection here. Others know of the first one.
    pub fn come(&mut self, address: Address) {
        let count = self.own.entry(address).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.note(address, true);
        }
    }

    pub fn leave(&mut self, address: Address) {
        let Some(count) = self.own.get_mut(&address) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.own.remove(&address);
            self.note(address, false);
        }
    }

    fn note(&mut self, address: Address, is_there: bool) {
        self.version += 1;
        self.changes.push_back((address, is_there));
        if self.changes.len() > CHANGES {
            self.changes.pop_front();
        }
    }

    /// What a hub must be told that knows this version; `None`: nothing.
    pub fn tell(&self, known: Option<u64>) -> Option<Told> {
        if known == Some(self.version) {
            return None;
        }
        let behind = known.and_then(|known| usize::try_from(self.version.checked_sub(known)?).ok());
        let changes = behind.filter(|behind| *behind <= self.changes.len());
        let Some(behind) = changes else {
            return Some(Told {
                process: self.process,
                from: None,
                upto: self.version,
                came: self.own.keys().take(LONGEST).copied().collect(),
                gone: Vec::new(),
            });
        };
        let newest = self.changes.iter().skip(self.changes.len() - behind);
        // What came last of each counts.
        let newest: HashMap<Address, bool> = newest.copied().collect();
        let of = |wanted: bool| {
            let newest = newest.iter().filter(|(_, is_there)| **is_there == wanted);
            newest.map(|(address, _)| *address).collect()
        };
        Some(Told {
            process: self.process,
            from: known,
            upto: self.version,
            came: of(true),
            gone: of(false),
        })
    }

    /// What another hub tells. The version that is known now; `None`: the whole list is wanted.
    pub fn hear(&mut self, from: &Name, told: Told) -> (Moved, Option<u64>) {
        let known = self.others.entry(from.clone()).or_default();
        let mut moved = Moved::default();
        match told.from {
            None => {
                let all: HashSet<Address> = told.came.into_iter().collect();
                moved.came = all.difference(&known.online).copied().collect();
                moved.gone = known.online.difference(&all).copied().collect();
                known.online = all;
            }
            Some(version) if (known.process, known.version) == (told.process, version) => {
                let online = &mut known.online;
                moved.gone = told.gone.into_iter().filter(|address| online.remove(address)).collect();
                moved.came = told
                    .came
                    .into_iter()
                    .filter(|address| online.insert(*address))
                    .collect();
            }
            Some(_) => return (moved, None),
        }
        (known.process, known.version) = (told.process, told.upto);
        (moved, Some(told.upto))
    }

    /// Hubs that are not among these are gone, with all who were there.
    pub fn keep(&mut self, is_there: impl Fn(&Name) -> bool) -> Moved {
        let mut gone = Vec::new();
        self.others.retain(|name, other| {
            let stays = is_there(name);
            if !stays {
                gone.extend(other.online.drain());
            }
            stays
        });
        Moved { came: Vec::new(), gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::council::fixture::name;

    fn user(number: u64) -> Address {
        Address::User(number)
    }

    fn sorted(mut moved: Moved) -> (Vec<Address>, Vec<Address>) {
        moved.came.sort_unstable();
        moved.gone.sort_unstable();
        (moved.came, moved.gone)
    }

    #[test]
    fn a_list_comes_first_and_then_what_changes() {
        let (mut here, mut there) = (Roster::new(7), Roster::new(8));
        (1..=3).for_each(|number| here.come(user(number)));
        here.come(user(1));
        let n1 = name("n1");
        let (moved, known) = there.hear(&n1, here.tell(None).expect("something"));
        assert_eq!(sorted(moved), (vec![user(1), user(2), user(3)], vec![]));
        assert_eq!(here.tell(known), None);
        here.leave(user(1));
        here.leave(user(2));
        here.come(user(4));
        let told = here.tell(known).expect("something");
        let (moved, known) = there.hear(&n1, told.clone());
        assert_eq!(
            sorted(moved),
            (vec![user(4)], vec![user(2)]),
            "one connection of 1 is left"
        );
        assert_eq!(there.hear(&n1, told).1, None, "heard before");
        here.come(user(2));
        here.leave(user(2));
        let (moved, known) = there.hear(&n1, here.tell(known).expect("something"));
        assert_eq!(sorted(moved), (vec![], vec![]));
        // Another process of that node.
        let mut again = Roster::new(9);
        again.come(user(3));
        again.come(user(9));
        assert_eq!(
            there
                .hear(
                    &n1,
                    Told {
                        from: known,
                        ..again.tell(None).expect("something")
                    }
                )
                .1,
            None
        );
        let (moved, _) = there.hear(&n1, again.tell(None).expect("something"));
        assert_eq!(sorted(moved), (vec![user(9)], vec![user(1), user(4)]));
        assert_eq!(sorted(there.keep(|_| false)), (vec![], vec![user(3), user(9)]));
        assert_eq!(sorted(there.keep(|_| false)), (vec![], vec![]));
    }

    #[test]
    fn who_is_far_behind_is_told_all() {
        let mut here = Roster::new(7);
        for _ in 0..CHANGES {
            here.come(user(1));
            here.leave(user(1));
        }
        here.come(user(2));
        let all = here.tell(Some(1)).expect("something");
        assert_eq!((all.from, all.came), (None, vec![user(2)]));
        let some = here.tell(Some(all.upto - 2)).expect("something");
        assert_eq!((some.came, some.gone), (vec![user(2)], vec![user(1)]));
    }
}
