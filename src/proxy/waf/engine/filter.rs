//! Which operators can hold for a text at all: one scan for the literals of all of them, then bytes and length. What is left is tried.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::literal::{Needs, needs};
use crate::proxy::waf::operator::{ByteSet, Operator};

/// The number of an operator that can be sifted.
pub type Sifted = u32;

/// A set of such numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates(Box<[u64]>);

#[derive(Debug, Default)]
pub struct Filter {
    needs: Vec<Needs>,
    /// Operators without literals.
    unsifted: Candidates,
    scan: Option<Scan>,
}

#[derive(Debug)]
struct Scan {
    automaton: AhoCorasick,
    /// By literal: whose it is.
    owners: Vec<Vec<Sifted>>,
}

/// Gathers operators; `finish` makes the scan of them.
#[derive(Debug, Default)]
pub struct Builder {
    needs: Vec<Needs>,
}

impl Builder {
    /// `None`: nothing can be said of this operator without running it.
    pub fn add(&mut self, operator: &Operator) -> Option<Sifted> {
        let needs = match operator {
            Operator::Pattern(pattern) => needs(pattern.linear()?),
            Operator::Phrases(phrases) => Needs {
                literals: Some(phrases.texts().iter().map(|text| text.to_ascii_lowercase()).collect()),
                sets: Vec::new(),
                min_len: 1,
            },
            Operator::Sqli => of_bytes(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))),
            Operator::Xss => of_bytes(|byte| matches!(byte, b'<' | b'=')),
            Operator::OutsideOf(set) => of_bytes(|byte| !set.has(byte)),
            Operator::BrokenUtf8 => of_bytes(|byte| !byte.is_ascii()),
            Operator::BrokenUrlEncoding => of_bytes(|byte| byte == b'%'),
            _ => return None,
        };
        self.needs.push(needs);
        Some((self.needs.len() - 1) as Sifted)
    }

    pub fn finish(mut self) -> Filter {
        let words = self.needs.len().div_ceil(64);
        let mut unsifted = Candidates(vec![0; words].into());
        let mut literals: Vec<(Vec<u8>, Sifted)> = Vec::new();
        for (number, needs) in self.needs.iter_mut().enumerate() {
            match needs.literals.take() {
                Some(own) => literals.extend(own.into_iter().map(|literal| (literal, number as Sifted))),
                None => unsifted.insert(number as Sifted),
            }
        }
        literals.sort_unstable();
        let (mut texts, mut owners): (Vec<Vec<u8>>, Vec<Vec<Sifted>>) = (Vec::new(), Vec::new());
        for (literal, owner) in literals {
            if texts.last() != Some(&literal) {
                texts.push(literal);
                owners.push(Vec::new());
            }
            owners.last_mut().expect("one for each text").push(owner);
        }
        let mut builder = AhoCorasick::builder();
        // The small kind: it leaves the processor's cache to others, and costs the same.
        builder
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::Standard);
        let automaton = builder.ascii_case_insensitive(true).build(&texts).ok();
        let scan = automaton
            .filter(|_| !texts.is_empty())
            .map(|automaton| Scan { automaton, owners });
        if scan.is_none() {
            // Without the scan every operator is tried.
            (0..self.needs.len()).for_each(|number| unsifted.insert(number as Sifted));
        }
        Filter {
            needs: self.needs,
            unsifted,
            scan,
        }
    }
}

impl Filter {
    /// The operators that a text may satisfy.
    pub fn sift(&self, text: &[u8]) -> Candidates {
        let mut found = self.unsifted.clone();
        if let Some(Scan { automaton, owners }) = &self.scan {
            for hit in automaton.find_overlapping_iter(text) {
                owners[hit.pattern().as_usize()]
                    .iter()
                    .for_each(|owner| found.insert(*owner));
            }
        }
        let mut present = ByteSet::default();
        text.iter().for_each(|byte| present.insert(byte.to_ascii_lowercase()));
        for word in 0..found.0.len() {
            let mut left = found.0[word];
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let needs = &self.needs[word * 64 + bit as usize];
                let can_hold = text.len() >= needs.min_len && needs.sets.iter().all(|set| set.meets(&present));
                if !can_hold {
                    found.0[word] &= !(1 << bit);
                }
            }
        }
        found
    }

    pub fn none(&self) -> Candidates {
        Candidates(vec![0; self.unsifted.0.len()].into())
    }
}

impl Candidates {
    pub fn has(&self, number: Sifted) -> bool {
        self.0[number as usize / 64] >> (number % 64) & 1 == 1
    }

    pub fn insert(&mut self, number: Sifted) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    pub fn join(&mut self, other: &Candidates) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }
}

fn of_bytes(is_meant: impl Fn(u8) -> bool) -> Needs {
    let mut set = ByteSet::default();
    (0..=255)
        .filter(|byte| is_meant(*byte))
        .for_each(|byte| set.insert(byte));
    Needs {
        literals: None,
        sets: vec![set],
        min_len: 1,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::proxy::waf::operator::parse;

    #[test]
    fn only_what_can_hold_is_left() {
        let mut builder = Builder::default();
        let operators = [
            ("rx", "(?i)union.{1,9}select"),
            ("pm", "abc defg"),
            ("rx", "^[$;]x?"),
            ("rx", "ion"),
            ("detectXSS", ""),
        ];
        let operators = operators.map(|(name, argument)| parse(name, argument, Path::new("/nowhere")).unwrap());
        let numbers: Vec<Sifted> = operators
            .iter()
            .map(|operator| builder.add(operator).unwrap())
            .collect();
        let filter = builder.finish();
        for text in ["UNION all SELECT", "xABCx", "$x", "a<b", "plain", "", "select", "onion"] {
            let found = filter.sift(text.as_bytes());
            for (operator, number) in operators.iter().zip(&numbers) {
                let holds = operator.holds(text.as_bytes(), |_| Vec::new(), None);
                assert!(!holds || found.has(*number), "{operator:?} on {text}");
            }
        }
        assert_eq!(filter.sift(b"plain"), filter.none());
        assert!(!filter.sift(b"union").has(0) || !filter.sift(b"select").has(0));
    }
}
