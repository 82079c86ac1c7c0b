//! Which operators can hold for a text at all: one scan for the literals of all of them, then bytes and length. What is left is tried.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::bits;
use super::erase;
use super::literal::{Clause, Needs, needs};
use crate::proxy::waf::operator::{ByteSet, Operator, Phrases};

/// The number of an operator that can be sifted.
pub type Sifted = u32;

/// Bytes of most values. What needs a byte beyond them is out at once; the first that holds all of a text is taken.
const ALPHABETS: [&[u8]; 3] = [b"", b"_-", b"_-. /:,@"];

#[derive(Debug, Default)]
pub struct Filter {
    operators: Vec<Sieve>,
    /// Operators that need no literal.
    unsifted: Vec<u64>,
    alphabets: Vec<Alphabet>,
    scan: Option<Scan>,
}

/// What one operator needs.
#[derive(Debug)]
struct Sieve {
    min_len: usize,
    sets: Vec<ByteSet>,
    gates: Range<u32>,
}

#[derive(Debug)]
struct Alphabet {
    bytes: ByteSet,
    /// Operators that may hold for a text of these bytes.
    possible: Vec<u64>,
}

/// One search for the literals of all clauses.
#[derive(Debug)]
struct Scan {
    automaton: AhoCorasick,
    /// By literal.
    owners: Vec<Vec<Owner>>,
    /// By clause: bytes that stand in for its literals.
    gates: Vec<ByteSet>,
    has_erased: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    gate: u32,
    operator: Sifted,
    is_erased: bool,
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
            Operator::Phrases(phrases) => of_phrases(phrases),
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

    pub fn finish(self) -> Filter {
        let mut unsifted = vec![0; self.needs.len().div_ceil(64)];
        let mut literals: Vec<(Vec<u8>, Owner)> = Vec::new();
        let (mut operators, mut gates) = (Vec::new(), Vec::new());
        for (number, needs) in self.needs.into_iter().enumerate() {
            let (operator, first) = (number as Sifted, gates.len() as u32);
            // A byte alone is not searched for.
            if !needs.clauses.iter().any(|clause| clause.bytes.len() == 0) {
                bits::insert(&mut unsifted, operator);
            }
            for clause in needs.clauses {
                let owner = Owner {
                    gate: gates.len() as u32,
                    operator,
                    is_erased: clause.is_erased,
                };
                literals.extend(clause.literals.into_iter().map(|literal| (literal, owner)));
                gates.push(clause.bytes);
            }
            operators.push(Sieve {
                min_len: needs.min_len,
                sets: needs.sets,
                gates: first..gates.len() as u32,
            });
        }
        let scan = Scan::new(literals, gates);
        if scan.is_none() {
            // Without the scan every operator is tried.
            for (number, sieve) in operators.iter_mut().enumerate() {
                sieve.gates = 0..0;
                bits::insert(&mut unsifted, number as Sifted);
            }
        }
        let alphabets = ALPHABETS.map(|marks| alphabet(marks, &operators, unsifted.len()));
        Filter {
            operators,
            unsifted,
            alphabets: alphabets.into(),
            scan,
        }
    }
}

impl Scan {
    /// `None`: there is nothing to look for, or too much.
    fn new(mut literals: Vec<(Vec<u8>, Owner)>, gates: Vec<ByteSet>) -> Option<Scan> {
        literals.sort_unstable();
        let has_erased = literals.iter().any(|(_, owner)| owner.is_erased);
        let (mut texts, mut owners): (Vec<Vec<u8>>, Vec<Vec<Owner>>) = (Vec::new(), Vec::new());
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
        automaton.filter(|_| !texts.is_empty()).map(|automaton| Scan {
            automaton,
            owners,
            gates,
            has_erased,
        })
    }

    /// The gates that a text opens, and the operators behind them.
    fn open(&self, text: &[u8], present: &ByteSet, opened: &mut [u64], found: &mut [u64]) {
        let mut look = |text: &[u8], is_meant: &dyn Fn(&Owner) -> bool| {
            for hit in self.automaton.find_overlapping_iter(text) {
                for owner in &self.owners[hit.pattern().as_usize()] {
                    if is_meant(owner) {
                        bits::insert(opened, owner.gate);
                        bits::insert(found, owner.operator);
                    }
                }
            }
        };
        match self.has_erased && erase::changes(present) {
            true => {
                look(text, &|owner| !owner.is_erased);
                look(&erase::text(text), &|owner| owner.is_erased);
            }
            false => look(text, &|_| true),
        }
    }
}

impl Filter {
    /// Words of a set of operators.
    pub fn width(&self) -> usize {
        self.unsifted.len()
    }

    /// The operators that a text may satisfy, into an empty set. `present`: its bytes in lower case. `opened`: room, kept from call to call.
    pub fn sift(&self, text: &[u8], present: &ByteSet, opened: &mut Vec<u64>, found: &mut [u64]) {
        found.copy_from_slice(&self.unsifted);
        let gates = self.scan.as_ref().map_or(&[][..], |scan| &scan.gates);
        opened.clear();
        opened.resize(gates.len().div_ceil(64), 0);
        if let Some(scan) = &self.scan {
            scan.open(text, present, opened, found);
        }
        let mut alphabets = self.alphabets.iter();
        if let Some(alphabet) = alphabets.find(|alphabet| present.is_within(&alphabet.bytes)) {
            bits::keep(found, &alphabet.possible);
        }
        for place in 0..found.len() {
            for bit in bits::numbers(&[found[place]]) {
                let sieve = &self.operators[place * 64 + bit as usize];
                let is_open = |gate: u32| bits::has(opened, gate) || gates[gate as usize].meets(present);
                if !sieve.allows(text.len(), present) || !sieve.gates.clone().all(is_open) {
                    bits::remove(&mut found[place..=place], bit);
                }
            }
        }
    }
}

impl Sieve {
    fn allows(&self, len: usize, present: &ByteSet) -> bool {
        len >= self.min_len && self.sets.iter().all(|set| set.meets(present))
    }
}

/// Digits, small letters and marks.
fn alphabet(marks: &[u8], operators: &[Sieve], width: usize) -> Alphabet {
    let bytes = ByteSet::all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase() || marks.contains(&byte));
    let mut possible = vec![0; width];
    let able = operators.iter().enumerate();
    let able = able.filter(|(_, sieve)| sieve.allows(usize::MAX, &bytes));
    able.for_each(|(number, _)| bits::insert(&mut possible, number as Sifted));
    Alphabet { bytes, possible }
}

fn of_bytes(is_meant: impl Fn(u8) -> bool) -> Needs {
    Needs {
        clauses: Vec::new(),
        // Texts are looked at in lower case.
        sets: vec![ByteSet::all(is_meant).lowercase()],
        min_len: 1,
    }
}

fn of_phrases(phrases: &Phrases) -> Needs {
    let mut clause = Clause::default();
    for text in phrases.texts() {
        match text.as_slice() {
            [byte] => clause.bytes.insert(byte.to_ascii_lowercase()),
            _ => clause.literals.push(text.to_ascii_lowercase()),
        }
    }
    Needs {
        clauses: vec![clause],
        sets: Vec::new(),
        min_len: 1,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::proxy::waf::operator::parse;

    fn sift(filter: &Filter, text: &str) -> Vec<u64> {
        let mut found = vec![0; filter.width()];
        filter.sift(
            text.as_bytes(),
            &ByteSet::of(text.as_bytes()).lowercase(),
            &mut Vec::new(),
            &mut found,
        );
        found
    }

    #[test]
    fn only_what_can_hold_is_left() {
        let mut builder = Builder::default();
        let operators = [
            ("rx", "(?i)union.{1,9}select"),
            ("pm", "abc defg"),
            ("rx", "^[$;]x?"),
            ("rx", "ion"),
            ("rx", "(?i)c[')]*a[')]*t"),
            ("rx", "abc|!x"),
            ("pm", "; xyz"),
            ("detectXSS", ""),
            ("validateByteRange", "48-57,65-90,97-122"),
        ];
        let operators = operators.map(|(name, argument)| parse(name, argument, Path::new("/nowhere")).unwrap());
        let numbers: Vec<Sifted> = operators
            .iter()
            .map(|operator| builder.add(operator).unwrap())
            .collect();
        let filter = builder.finish();
        for text in [
            "UNION all SELECT",
            "xABCx",
            "$x",
            "a<b",
            "plain",
            "",
            "select",
            "onion",
            "A",
            "a_b",
        ] {
            let found = sift(&filter, text);
            for (operator, number) in operators.iter().zip(&numbers) {
                let holds = operator.holds(text.as_bytes(), |_| Vec::new(), None);
                assert!(!holds || bits::has(&found, *number), "{operator:?} on {text}");
            }
        }
        assert_eq!(sift(&filter, "plain"), [0]);
        assert!(!bits::has(&sift(&filter, "union"), 0) || !bits::has(&sift(&filter, "select"), 0));
    }
}
