//! Where a content comes from. Pure.

use crate::storage::state::FileFact;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It has arrived before.
    Arrived,
    /// No bytes: made on the spot.
    Empty,
    /// The own state has it.
    Link,
    /// The sender sends it, unless a leftover turns out to be the same.
    Ask,
}

/// `own` is what the receiver's state says of the same number.
pub fn choose(wanted: &FileFact, own: Option<&FileFact>, has_arrived: bool) -> Choice {
    if has_arrived {
        Choice::Arrived
    } else if wanted.size == 0 {
        Choice::Empty
    } else if own == Some(wanted) {
        Choice::Link
    } else {
        Choice::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::Inode;

    #[test]
    fn only_what_is_the_same_in_every_fact_is_linked() {
        let wanted = FileFact {
            inode: Inode(5),
            generation: 1,
            size: 10,
            content_index: 7,
        };
        assert_eq!(choose(&wanted, Some(&wanted), false), Choice::Link);
        assert_eq!(choose(&wanted, Some(&wanted), true), Choice::Arrived);
        assert_eq!(choose(&wanted, None, false), Choice::Ask);
        for other in [
            FileFact {
                generation: 2,
                ..wanted
            },
            FileFact { size: 11, ..wanted },
            FileFact {
                content_index: 6,
                ..wanted
            },
        ] {
            assert_eq!(choose(&wanted, Some(&other), false), Choice::Ask);
        }
        let empty = FileFact { size: 0, ..wanted };
        assert_eq!(choose(&empty, None, false), Choice::Empty);
    }
}
