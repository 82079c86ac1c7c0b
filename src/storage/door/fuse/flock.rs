//! flock of one inode on this node, under a lock that the node has of the leader as a whole. Pure.

/// Who has it here, and what the node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flock {
    pub holders: Vec<Holder>,
    pub node: Level,
    /// Another node asks for it: it goes when nobody here has it.
    pub is_wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub owner: u64,
    pub is_exclusive: bool,
}

impl Holder {
    /// What the node needs for it.
    pub fn level(self) -> Level {
        match self.is_exclusive {
            true => Level::Exclusive,
            false => Level::Shared,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    None,
    Shared,
    Exclusive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    /// Somebody on this node has it.
    Busy,
    /// The leader must grant this level first.
    Ask(Level),
}

impl Flock {
    pub fn judge(&self, wanted: Holder) -> Verdict {
        let is_in_the_way =
            |holder: &Holder| holder.owner != wanted.owner && (holder.is_exclusive || wanted.is_exclusive);
        let level = wanted.level();
        if self.holders.iter().any(is_in_the_way) {
            Verdict::Busy
        } else if self.node >= level {
            Verdict::Granted
        } else {
            Verdict::Ask(level)
        }
    }

    /// What the owner has now, in place of what it had.
    pub fn grant(&mut self, holder: Holder) {
        self.release(holder.owner);
        self.holders.push(holder);
    }

    /// Whether it had one.
    pub fn release(&mut self, owner: u64) -> bool {
        let before = self.holders.len();
        self.holders.retain(|holder| holder.owner != owner);
        self.holders.len() < before
    }

    /// The node's lock may go back to the leader.
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(owner: u64, is_exclusive: bool) -> Holder {
        Holder { owner, is_exclusive }
    }

    #[test]
    fn what_the_node_has_is_shared_out_on_the_node() {
        let mut flock = Flock::default();
        assert_eq!(flock.judge(holder(1, false)), Verdict::Ask(Level::Shared));
        flock.node = Level::Shared;
        flock.grant(holder(1, false));
        assert_eq!(flock.judge(holder(2, false)), Verdict::Granted);
        assert_eq!(flock.judge(holder(2, true)), Verdict::Busy);
        assert_eq!(
            flock.judge(holder(1, true)),
            Verdict::Ask(Level::Exclusive),
            "an upgrade"
        );
        flock.node = Level::Exclusive;
        flock.grant(holder(1, true));
        assert_eq!(flock.judge(holder(2, false)), Verdict::Busy);
        assert!(flock.release(1) && !flock.release(1) && flock.is_idle());
        assert_eq!(flock.judge(holder(2, true)), Verdict::Granted, "without the leader");
    }
}
