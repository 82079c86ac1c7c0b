//! The data path of the simulated machines: one number per shard, copied as the router must copy, and what must hold of it.

use super::world::{Happening, MS, World};
use crate::cluster::council::{Filled, Shard, ShardSet, Stage, Told};
use crate::net::mesh::Name;

/// Shards whose data are looked at.
const TRACKED: usize = 24;

impl World {
    fn tracked() -> impl Iterator<Item = Shard> {
        Shard::all().step_by(512 / TRACKED)
    }

    /// Whether what one sends reaches the other, and the answer comes back.
    fn reaches(&self, one: usize, other: usize) -> bool {
        one == other
            || (!self.lines[one][other].is_cut && !self.lines[other][one].is_cut && self.machines[other].runs())
    }

    fn place(&self, name: &Name) -> Option<usize> {
        self.machines.iter().position(|machine| machine.name == *name)
    }

    pub fn work(&mut self) {
        self.plan(MS * 2, Happening::Work);
        for owner in 0..self.machines.len() {
            let serves = self.machines[owner].serves(self.now);
            if !self.machines[owner].runs() || serves.is_empty() {
                continue;
            }
            for shard in Self::tracked().filter(|shard| serves.has(*shard)) {
                if self.random.is_one_of(6) {
                    self.write(owner, shard);
                }
            }
            if self.random.is_one_of(4) {
                self.fill(owner, serves);
            }
        }
    }

    fn write(&mut self, owner: usize, shard: Shard) {
        let Some(placement) = self.machines[owner]
            .state()
            .and_then(|state| state.placement().cloned())
        else {
            return;
        };
        self.count += 1;
        let number = self.count;
        let process = self.machines[owner].process.as_mut().expect("it serves");
        process.data.insert(shard, number);
        let filled = process.filled.clone();
        let epoch = placement.epoch();
        let must = |name: &Name| filled.contains(&(name.clone(), epoch));
        let replica = placement.replica(shard).map(|node| (node.name.clone(), true));
        let fillers = placement
            .fillers(shard)
            .map(|node| (node.name.clone(), must(&node.name)));
        let copies: Vec<(Name, bool)> = replica.into_iter().chain(fillers).collect();
        let mut is_acknowledged = true;
        for (name, must) in copies {
            let is_copied = self.copy(owner, &name, shard, number);
            is_acknowledged &= is_copied || !must;
        }
        if is_acknowledged {
            self.acknowledged += 1;
            self.newest.insert(shard, number);
        }
    }

    fn copy(&mut self, owner: usize, to: &Name, shard: Shard, number: u64) -> bool {
        let Some(to) = self.place(to).filter(|to| self.reaches(owner, *to)) else {
            return false;
        };
        let (Some(state), Some(sent)) = (self.machines[to].state(), self.machines[owner].state()) else {
            return false;
        };
        let Some(epoch) = sent.placement().map(|placement| placement.epoch()) else {
            return false;
        };
        let takes = state.takes_copy(shard, &self.machines[owner].name, epoch);
        if let Some(process) = self.machines[to].process.as_mut().filter(|_| takes) {
            process.data.insert(shard, number);
        }
        takes
    }

    /// One round: replicas and fillers get what the owner has; who has all of it is said to be filled.
    fn fill(&mut self, owner: usize, serves: ShardSet) {
        let Some(placement) = self.machines[owner]
            .state()
            .and_then(|state| state.placement().cloned())
        else {
            return;
        };
        let mut lacking: Vec<Name> = Vec::new();
        let owned = placement.owned(&self.machines[owner].name);
        for shard in Self::tracked().filter(|shard| owned.has(*shard)) {
            let copies = placement.replica(shard).into_iter().chain(placement.fillers(shard));
            let copies: Vec<Name> = copies.map(|node| node.name.clone()).collect();
            let number = self.machines[owner]
                .process
                .as_ref()
                .and_then(|process| process.data.get(&shard).copied());
            for name in copies {
                let is_copied = serves.has(shard)
                    && match number {
                        Some(number) => self.copy(owner, &name, shard, number),
                        None => self.place(&name).is_some_and(|to| self.reaches(owner, to)),
                    };
                if !is_copied {
                    lacking.push(name);
                }
            }
        }
        let filling = placement.table().nodes.iter();
        let filling = filling.filter(|node| node.stage == Stage::Filling);
        let filled: Vec<Filled> = filling
            .filter(|node| !lacking.contains(&node.name))
            .map(|node| Filled {
                node: node.name.clone(),
                incarnation: node.incarnation,
                epoch: placement.epoch(),
            })
            .collect();
        for filled in filled {
            let process = self.machines[owner].process.as_mut().expect("it serves");
            let claim = (filled.node.clone(), filled.epoch);
            if !process.filled.contains(&claim) {
                process.filled.push(claim);
                self.told(owner, Told::Filled(filled));
            }
        }
    }

    /// What must hold at every moment.
    pub fn look(&mut self) {
        let serves: Vec<ShardSet> = self.machines.iter().map(|machine| machine.serves(self.now)).collect();
        for (one, other) in (0..serves.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
            let both = serves[one].and(&serves[other]).iter().next();
            if let Some(shard) = both {
                let names = [one, other].map(|machine| self.machines[machine].name.to_string());
                self.fault(format!("{names:?} serve shard {}", shard.index()));
                return;
            }
        }
        let mut faults = Vec::new();
        for (machine, serves) in self.machines.iter().zip(&serves) {
            for (shard, newest) in self.newest.iter_mut().filter(|(shard, _)| serves.has(**shard)) {
                let data = machine
                    .process
                    .as_ref()
                    .and_then(|process| process.data.get(shard).copied());
                match data {
                    Some(number) if number < *newest => {
                        faults.push(format!(
                            "{} has {number} of {}, older than {newest}",
                            machine.name,
                            shard.index()
                        ));
                    }
                    Some(_) => {}
                    // A miss.
                    None => {
                        self.lost += u64::from(*newest > 0);
                        *newest = 0;
                    }
                }
            }
        }
        faults.truncate(1);
        faults.into_iter().for_each(|fault| self.fault(fault));
    }
}
