//! What a node is fit for, as its heartbeat says it: a set of bits that only grows in meaning.

use serde::{Deserialize, Serialize};

/// A bit that a reader does not know means nothing to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fit(pub u32);

impl Fit {
    pub const NONE: Fit = Fit(0);
    /// Its front takes connections.
    pub const FRONT: Fit = Fit(1);
    /// PHP answers and sees the portal's files.
    pub const WEB: Fit = Fit(1 << 1);
    /// Its database takes connections.
    pub const DB: Fit = Fit(1 << 2);
    /// Its cache answers.
    pub const CACHE: Fit = Fit(1 << 3);
    /// Its copy of the files is whole and in sync.
    pub const FILES: Fit = Fit(1 << 4);
    /// Its storage leads the group.
    pub const LEADER: Fit = Fit(1 << 5);
    /// It can hold a floating address: clients that come there are served.
    pub const EDGE: Fit = Fit(1 << 6);
    /// It can run the portal's jobs.
    pub const CRON: Fit = Fit(1 << 7);
    /// It can get certificates: its configuration names a directory.
    pub const ACME: Fit = Fit(1 << 8);

    /// Its database has lately answered a read that waits for all that the group had agreed on.
    pub const READS: Fit = Fit(1 << 9);
    /// The disk under its database is full: it is written to only where nobody else can be. The one bit that speaks against a node, so
    /// that one that does not know it yet is taken for well.
    pub const FULL: Fit = Fit(1 << 10);
    /// It can make backups of a database that all nodes have: its configuration has a schedule, and its database answers.
    pub const BACKUP: Fit = Fit(1 << 11);

    #[must_use]
    pub fn with(self, other: Fit) -> Fit {
        Fit(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Fit) -> Fit {
        Fit(self.0 & !other.0)
    }

    /// All of `other`.
    pub fn has(self, other: Fit) -> bool {
        self.0 & other.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let fit = Fit::FRONT.with(Fit::WEB);
        assert!(fit.has(Fit::WEB) && fit.has(Fit::NONE) && !fit.has(Fit::DB));
        assert!(!Fit::WEB.has(fit));
    }
}
