//! What PHP processes saw of their sessions, compared with what they wrote, strike by strike. Pure.

use std::fmt::{Display, Formatter};

use super::caches::Fault;
use super::worker::{End, Handler, Round};

/// After a strike is over a client of the struck node may still wait so long: for a lock that it could not take back, which lives for
/// three seconds. In nanoseconds.
const AFTERMATH: u64 = 4_000_000_000;

/// One fault of one machine; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    pub fault: Fault,
    pub at: usize,
    pub begun: u64,
    /// All three serve again.
    pub whole: u64,
}

impl Strike {
    fn hits(&self, round: &Round) -> bool {
        round.at == self.at && round.closed >= self.begun && round.begun <= self.whole + AFTERMATH
    }

    /// On a node that is well.
    fn is_near(&self, round: &Round) -> bool {
        round.at != self.at && round.closed >= self.begun && round.begun <= self.whole + AFTERMATH
    }
}

/// Whether the round's own node was struck.
pub fn is_hit(strikes: &[Strike], round: &Round) -> bool {
    strikes.iter().any(|strike| strike.hits(round))
}

/// What should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A session that was written is empty.
    Lost,
    /// It is as it was before.
    Stale,
    /// Two had its lock at a time, or what nobody wrote was there.
    Doubled,
}

#[derive(Debug)]
pub struct Finding {
    pub wrong: Wrong,
    pub text: String,
}

/// A session that one process alone writes: each round must see what the one before has written. `excused` rounds are not judged, and
/// what they left is taken as it is.
pub fn of_one(rounds: &[Round], excused: impl Fn(&Round) -> bool) -> Vec<Finding> {
    let (mut known, mut findings) = (Some((0, 0)), Vec::new());
    for round in rounds.iter().filter(|round| round.end != End::NotOpened) {
        if excused(round) {
            known = None;
            continue;
        }
        let seen = round.number - 1;
        let (written, perhaps) = known.unwrap_or((seen, seen));
        let wrong = match seen {
            _ if (written..=perhaps).contains(&seen) => None,
            0 => Some(Wrong::Lost),
            seen if seen < written => Some(Wrong::Stale),
            _ => Some(Wrong::Doubled),
        };
        findings.extend(wrong.map(|wrong| Finding {
            wrong,
            text: format!("{seen} was there after {written} (perhaps {perhaps}): {round:?}"),
        }));
        known = Some(match round.end {
            End::Written => (round.number, round.number),
            // What was seen must stay; what an earlier round may have written may still come.
            _ if wrong.is_none() => (seen, round.number.max(perhaps)),
            _ => (seen, round.number),
        });
    }
    findings
}

/// A session that several processes write, one at a time by its lock: nobody has it while another one has, and no number is
/// written twice. `lock` is how long a lock lives, in nanoseconds.
pub fn of_several(mut rounds: Vec<Round>, lock: u64) -> Vec<Finding> {
    // Beyond its lock's life nobody is promised anything.
    rounds.retain(|round| round.end == End::Written && round.closed - round.begun < lock);
    rounds.sort_by_key(|round| round.opened);
    let wrong = |before: &Round, after: &Round| match after.number {
        _ if after.opened < before.closing => Some(Wrong::Doubled),
        1 => Some(Wrong::Lost),
        number if number <= before.number => Some(Wrong::Stale),
        _ => None,
    };
    let pairs = rounds.windows(2).filter_map(|pair| {
        Some(Finding {
            wrong: wrong(&pair[0], &pair[1])?,
            text: format!("{:?} and {:?}", pair[0], pair[1]),
        })
    });
    pairs.collect()
}

/// What the clients of one kind of node had of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Felt {
    rounds: usize,
    /// Not opened, or not known whether written.
    pub failed: usize,
    /// Nanoseconds of the longest opening or closing.
    longest: u64,
}

impl Felt {
    pub fn of<'a>(rounds: impl Iterator<Item = &'a Round>) -> Self {
        rounds.fold(Felt::default(), |felt, round| Felt {
            rounds: felt.rounds + 1,
            failed: felt.failed + usize::from(round.end != End::Written),
            longest: felt
                .longest
                .max(round.opened - round.begun)
                .max(round.closed - round.closing),
        })
    }
}

impl Display for Felt {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let Felt {
            rounds,
            failed,
            longest,
        } = self;
        write!(out, "{rounds:6} {failed:7} {:6} ms", longest / 1_000_000)
    }
}

/// Prints a line for each strike: what clients of the two nodes that are well had of it, and what the struck node's own.
pub fn tell(strikes: &[Strike], rounds: &[Round]) {
    println!("{:13}{:^26}  {:^26}", "", "nodes that are well", "the struck node");
    println!(
        "{:13}{1:>8}{2:>8}{3:>10}  {1:>8}{2:>8}{3:>10}",
        "", "rounds", "failed", "longest"
    );
    for strike in strikes {
        let well = rounds
            .iter()
            .filter(|round| strike.is_near(round) && !is_hit(strikes, round));
        let own = rounds.iter().filter(|round| strike.hits(round));
        let what = format!("{:?} n{}", strike.fault, strike.at + 1);
        println!(
            "{what:13}{:>24}  {:>24}",
            Felt::of(well).to_string(),
            Felt::of(own).to_string()
        );
    }
}

/// An ext-memcache whose own cache is away opens an empty session and writes it when the cache is back: that loses sessions with any
/// server.
pub fn is_own_fault(strikes: &[Strike], round: &Round) -> bool {
    round.handler == Handler::Memcache && is_hit(strikes, round)
}

#[cfg(test)]
mod tests {
    use super::super::worker;
    use super::*;

    fn rounds(text: &str) -> Vec<Round> {
        let read = |line| worker::round(line, 0, Handler::Memcache);
        text.lines().filter_map(read).collect()
    }

    fn wrongs(findings: Vec<Finding>) -> Vec<Wrong> {
        findings.into_iter().map(|finding| finding.wrong).collect()
    }

    fn alone(text: &str) -> Vec<Wrong> {
        wrongs(of_one(&rounds(text), |_| false))
    }

    #[test]
    fn a_session_of_one_is_what_was_written_last() {
        let good = "W 1 1 2 3 4\nU 2 5 6 7 8\nF 9 10\nW 2 11 12 13 14\nW 3 15 16 17 18";
        assert_eq!(alone(good), []);
        assert_eq!(alone("W 1 1 2 3 4\nW 1 5 6 7 8"), [Wrong::Lost]);
        assert_eq!(
            alone("W 1 1 2 3 4\nW 2 5 6 7 8\nW 3 5 6 7 8\nW 2 9 9 9 9"),
            [Wrong::Stale]
        );
        assert_eq!(alone("W 1 1 2 3 4\nW 9 5 6 7 8"), [Wrong::Doubled]);
        // What is not known to be written may be there or not; once it was seen it stays.
        assert_eq!(alone("W 1 1 2 3 4\nU 2 5 6 7 8\nU 2 9 9 9 9\nW 3 10 10 10 10"), []);
        assert_eq!(
            alone("W 1 1 2 3 4\nU 2 5 6 7 8\nU 3 9 9 9 9\nW 2 10 10 10 10"),
            [Wrong::Stale]
        );
    }

    #[test]
    fn what_is_excused_is_not_judged_nor_what_it_left() {
        let seen = rounds("W 1 1 2 3 4\nW 2 5 6 7 8\nW 1 100 101 102 103\nW 2 200 201 202 203\nW 1 300 301 302 303");
        let excused = |round: &Round| round.begun == 100;
        assert_eq!(wrongs(of_one(&seen, excused)), [Wrong::Lost]);
    }

    #[test]
    fn a_session_of_several_is_had_by_one_at_a_time() {
        let several = |text| wrongs(of_several(rounds(text), 100));
        assert_eq!(several("W 1 1 2 3 4\nW 2 1 5 6 7"), []);
        assert_eq!(several("W 1 1 2 6 7\nW 2 1 5 8 9"), [Wrong::Doubled]);
        assert_eq!(several("W 2 1 2 3 4\nW 2 1 5 6 7"), [Wrong::Stale]);
        assert_eq!(several("W 2 1 2 3 4\nW 1 1 5 6 7"), [Wrong::Lost]);
    }
}
