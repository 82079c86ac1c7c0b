//! Who made a version: decided from what is on the files after an attempt to publish. Pure.
//!
//! Three things can fool an author. A reply that was lost: its LINK is answered EXIST although it succeeded. A sleep: the
//! version that it wanted to make was made by another and removed since, so that its LINK succeeds again, far below the newest
//! version. Both: its own version was published long ago, and built upon, when it wakes up to look.
//!
//! So first the file behind the name is compared with the author's own (`is_mine`). That is certain while the version is the
//! newest one. Else the newest version is asked: its history says which attempt made each version before it.

use super::Revision;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Won,
    Lost,
    /// Ask the history of the newest version.
    AskHistory,
    /// The listing is older than the attempt, or something was removed by hand.
    LookAgain,
}

/// `wanted`: the version tried for. `is_mine`: its name leads to the file of this attempt; `None`: there is no such name.
/// `newest`: from a listing made after that.
pub fn verdict(wanted: Revision, is_mine: Option<bool>, newest: Revision) -> Verdict {
    match is_mine {
        _ if newest > wanted => Verdict::AskHistory,
        Some(true) if newest == wanted => Verdict::Won,
        Some(false) if newest == wanted => Verdict::Lost,
        // Our file cannot be linked any more, for it is gone; the name was not taken.
        None if newest < wanted => Verdict::Lost,
        _ => Verdict::LookAgain,
    }
}

/// The history's answer; `None`: it does not reach back so far.
pub fn by_history(attempt: u64, made_by: Option<u64>) -> Option<bool> {
    made_by.map(|other| other == attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_judged_by_its_file_and_older_ones_by_history() {
        let cases = [
            (Some(true), 8, Verdict::Won),
            (Some(false), 8, Verdict::Lost),
            (None, 7, Verdict::Lost),
            // Published long ago, or linked anew where another one was removed.
            (Some(true), 60, Verdict::AskHistory),
            (Some(true), 9, Verdict::AskHistory),
            (Some(false), 60, Verdict::AskHistory),
            (None, 60, Verdict::AskHistory),
            // A listing that does not show what is surely there.
            (Some(true), 7, Verdict::LookAgain),
            (Some(false), 0, Verdict::LookAgain),
            (None, 8, Verdict::LookAgain),
        ];
        for (is_mine, newest, expected) in cases {
            assert_eq!(verdict(8, is_mine, newest), expected, "{is_mine:?} {newest}");
        }
    }

    #[test]
    fn history_knows_or_does_not() {
        assert_eq!(by_history(5, Some(5)), Some(true));
        assert_eq!(by_history(5, Some(6)), Some(false));
        assert_eq!(by_history(5, None), None);
    }
}
