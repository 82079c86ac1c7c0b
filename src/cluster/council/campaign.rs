//! `judge`: whether the votes make a candidate the leader, and of what. Pure.
//!
//! Voters keep nothing on a disk: one that has started anew has forgotten every table. So the votes show two things apart: that a majority
//! lets the candidate lead, and that enough of them remember, so that the others alone cannot have put a table in force that none of these
//! knows. Without the second the leader begins with an empty table, and whoever has data drops them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::View;
use super::message::Memory;
use super::table::{Epoch, Table, Term, majority};
use crate::net::mesh::Name;

/// One vote.
#[derive(Clone, Debug)]
pub struct Ballot {
    /// When it was asked for, on the candidate's clock.
    pub sent: Duration,
    pub last: Option<(Term, Name)>,
    pub memory: Memory,
}

/// What an elected leader begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// The newest table that may be in force; without nodes if nobody remembers.
    pub base: Arc<Table>,
    pub is_committed: bool,
    pub is_inherited: bool,
    /// Each of these sets of voters must go on to agree until a table of this leader is in force.
    pub electorate: Vec<Vec<Name>>,
    /// Who may still hold a lease of a former leader.
    pub suspects: BTreeSet<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    NotYet,
    /// A majority is there, but it does not remember enough; others have not answered yet.
    Forgetful(Mandate),
    Elected(Mandate),
}

/// `term`: the candidate's.
pub fn judge(ballots: &BTreeMap<Name, Ballot>, term: Term, view: Option<&View>) -> Verdict {
    let chain = |ballot: &Ballot| ballot.memory.base.as_ref().map(|base| base.chain);
    let chains: BTreeSet<Epoch> = ballots.values().filter_map(chain).collect();
    let of = |wanted: Option<Epoch>| {
        let votes = ballots
            .iter()
            .filter(|(_, ballot)| chain(ballot).is_none_or(|chain| Some(chain) == wanted));
        judge_chain(
            &votes.map(|(name, ballot)| (name.clone(), ballot.clone())).collect(),
            term,
            view,
        )
    };
    // At most one chain can be inherited; who remembers another one has not been heard since.
    let is_inherited = |verdict: &Verdict| matches!(verdict, Verdict::Elected(mandate) if mandate.is_inherited);
    if let Some(elected) = chains.iter().map(|chain| of(Some(*chain))).find(is_inherited) {
        return elected;
    }
    match judge_chain(ballots, term, view) {
        // Old voters may be gone for ever: then those who know nothing decide.
        Verdict::NotYet => of(None),
        verdict => verdict,
    }
}

/// For votes that all know the same chain, or none; or of several, and then none is inherited.
fn judge_chain(ballots: &BTreeMap<Name, Ballot>, term: Term, view: Option<&View>) -> Verdict {
    let memories = || ballots.values().map(|ballot| &ballot.memory);
    let committed = memories()
        .filter(|memory| memory.is_committed)
        .filter_map(|memory| memory.base.as_ref());
    let committed = committed.max_by_key(|table| table.epoch);
    let mut chains = memories().flat_map(Memory::tables).map(|table| table.chain);
    let first = chains.next();
    let is_single = chains.all(|chain| Some(chain) == first);
    let floor = committed.map(|table| table.epoch).filter(|_| is_single);
    let open: BTreeMap<Epoch, &Arc<Table>> = memories()
        .flat_map(Memory::tables)
        .filter(|table| Some(table.epoch) > floor)
        .map(|table| (table.epoch, table))
        .collect();
    let committed = committed.filter(|_| is_single);
    let known: Vec<&Arc<Table>> = committed.into_iter().chain(open.values().copied()).collect();
    let mut electorate: Vec<Vec<Name>> = known.iter().map(|table| table.voters.clone()).collect();
    if electorate.is_empty() {
        electorate.extend(view.map(|view| view.voters.clone()));
    }
    electorate.dedup();
    let count = |voters: &[Name], is: &dyn Fn(&Ballot) -> bool| {
        voters.iter().filter(|voter| ballots.get(voter).is_some_and(is)).count()
    };
    let has_majority = |voters: &Vec<Name>| count(voters, &|_| true) >= majority(voters.len());
    if electorate.is_empty() || !electorate.iter().all(has_majority) {
        return Verdict::NotYet;
    }
    let remembers = |voters: &Vec<Name>| {
        let remembering = count(voters, &|ballot| ballot.memory.base.is_some());
        voters.len() - remembering < majority(voters.len())
    };
    let newest = known.last().copied();
    let is_inherited = newest.is_some() && is_single && electorate.iter().all(remembers);
    let mut suspects: BTreeSet<Name> = known
        .iter()
        .flat_map(|table| &table.nodes)
        .map(|node| node.name.clone())
        .collect();
    // Then the table in force is the committed one or derives from it, and whoever else led has ended with this election.
    let is_plain = is_inherited && floor.is_some_and(|floor| open.values().all(|table| table.parent == floor));
    match is_plain {
        true => {
            let last = ballots.values().filter_map(|ballot| ballot.last.as_ref()).max();
            suspects.retain(|name| last.is_none_or(|(_, leader)| leader != name));
        }
        false => {
            let members = view.iter().flat_map(|view| &view.members);
            suspects.extend(electorate.iter().flatten().chain(members).cloned());
        }
    }
    let mandate = Mandate {
        base: match newest.filter(|_| is_inherited) {
            Some(table) => table.clone(),
            None => Arc::new(genesis(term, newest, electorate.last(), view)),
        },
        is_committed: is_inherited && newest.map(|table| table.epoch) == floor,
        is_inherited,
        electorate,
        suspects,
    };
    let is_all = mandate
        .electorate
        .iter()
        .flatten()
        .all(|voter| ballots.contains_key(voter));
    match mandate.is_inherited || newest.is_none() || is_all {
        true => Verdict::Elected(mandate),
        false => Verdict::Forgetful(mandate),
    }
}

/// The table before the first one.
fn genesis(term: Term, newest: Option<&Arc<Table>>, voters: Option<&Vec<Name>>, view: Option<&View>) -> Table {
    let epoch = Epoch { term, number: 0 };
    Table {
        epoch,
        chain: epoch,
        parent: Epoch::default(),
        view: match newest {
            Some(table) => table.view,
            None => view.map_or(0, |view| view.version),
        },
        voters: voters.cloned().unwrap_or_default(),
        nodes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::fixture::{name, table};
    use super::*;

    const TERM: Term = Term { number: 9, mark: 9 };

    fn ballot(base: Option<Table>, next: Option<Table>) -> Ballot {
        Ballot {
            sent: Duration::ZERO,
            last: Some((Term { number: 1, mark: 1 }, name("n1"))),
            memory: Memory {
                is_committed: base.is_some(),
                base: base.map(Arc::new),
                next: next.map(Arc::new),
            },
        }
    }

    fn verdict(ballots: &[(&str, Ballot)]) -> Verdict {
        let ballots = ballots.iter().map(|(voter, ballot)| (name(voter), ballot.clone()));
        let view = View {
            version: 4,
            members: THREE.map(name).into(),
            voters: THREE.map(name).into(),
        };
        judge(&ballots.collect(), TERM, Some(&view))
    }

    fn elected(ballots: &[(&str, Ballot)]) -> Mandate {
        match verdict(ballots) {
            Verdict::Elected(mandate) => mandate,
            other => panic!("{other:?}"),
        }
    }

    const THREE: [&str; 3] = ["n1", "n2", "n3"];

    #[test]
    fn of_two_chains_the_one_is_inherited_that_a_majority_knows_whatever_its_numbers() {
        let mut newer = table(2, &THREE);
        newer.chain.term.mark = 77;
        let (old, new) = (
            || ballot(Some(table(8, &THREE)), None),
            || ballot(Some(newer.clone()), None),
        );
        let mandate = elected(&[("n1", new()), ("n2", new()), ("n3", old())]);
        assert!(mandate.is_inherited && *mandate.base == newer);
        let Verdict::Forgetful(mandate) = verdict(&[("n2", new()), ("n3", old())]) else {
            panic!("n1 knows which is in force")
        };
        assert!(!mandate.is_inherited && mandate.suspects.len() == 3);
        let mut gone = table(8, &["n3", "n7", "n8"]);
        gone.chain.term.mark = 66;
        let gone = ballot(Some(gone), None);
        assert!(
            elected(&[("n1", ballot(None, None)), ("n2", ballot(None, None)), ("n3", gone)])
                .base
                .nodes
                .is_empty()
        );
    }

    #[test]
    fn a_majority_inherits_the_table_and_leaves_out_only_the_last_leader_at_once() {
        let three = || ballot(Some(table(5, &THREE)), None);
        assert_eq!(verdict(&[("n2", three())]), Verdict::NotYet);
        let mandate = elected(&[("n2", three()), ("n3", three())]);
        assert!(mandate.is_inherited && mandate.is_committed && mandate.base.epoch.number == 5);
        assert_eq!(mandate.suspects, ["n2", "n3"].map(name).into());
        let mut two = table(6, &["n1", "n2"]);
        two.voters = mandate.base.voters.clone();
        let preparing = ballot(Some(table(5, &THREE)), Some(two));
        let mandate = elected(&[("n2", preparing), ("n3", three())]);
        assert!(!mandate.is_committed && mandate.base.epoch.number == 6);
        assert_eq!(mandate.suspects, ["n2", "n3"].map(name).into());
        // A table whose parent nobody saw in force: anybody may have a lease.
        let orphan = ballot(Some(table(5, &THREE)), Some(table(7, &THREE)));
        assert_eq!(elected(&[("n2", orphan), ("n3", three())]).suspects.len(), 3);
    }

    #[test]
    fn who_does_not_remember_counts_for_the_election_and_not_for_the_inheritance() {
        let (old, new) = (|| ballot(Some(table(5, &THREE)), None), || ballot(None, None));
        let Verdict::Forgetful(mandate) = verdict(&[("n2", old()), ("n3", new())]) else {
            panic!("n1 and n3 may have decided alone")
        };
        assert!(!mandate.is_inherited && mandate.base.nodes.is_empty() && mandate.base.epoch.term == TERM);
        assert_eq!(mandate.suspects.len(), 3);
        assert!(elected(&[("n1", old()), ("n2", old()), ("n3", new())]).is_inherited);
        assert!(!elected(&[("n1", new()), ("n2", old()), ("n3", new())]).is_inherited);
        assert!(!elected(&[("n1", new()), ("n2", new())]).is_inherited);
        // Of two, one that remembers was part of every majority.
        let pair = || ballot(Some(table(5, &["n1", "n2"])), None);
        assert!(elected(&[("n1", pair()), ("n2", new())]).is_inherited);
    }

    #[test]
    fn old_and_new_voters_must_both_agree_while_it_is_not_known_which_are_in_force() {
        let grown = ballot(Some(table(5, &THREE)), Some(table(6, &["n1", "n2", "n3", "n4"])));
        let three = || ballot(Some(table(5, &THREE)), None);
        assert_eq!(verdict(&[("n2", grown.clone()), ("n3", three())]), Verdict::NotYet);
        let mandate = elected(&[("n2", grown), ("n3", three()), ("n4", ballot(None, None))]);
        assert_eq!(mandate.electorate.len(), 2);
    }
}
