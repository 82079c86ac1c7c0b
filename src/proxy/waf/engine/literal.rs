//! What every match of a pattern must contain: derived from the pattern itself, in lower case. Pure.
//!
//! Sound by construction: where nothing can be said, nothing is. A text without any of a clause's literals and bytes cannot match.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use super::erase;
use super::rarity;
use crate::proxy::waf::operator::ByteSet;

/// Larger sets cost more than they sift out.
const MOST_LITERALS: usize = 2000;
/// Sets of strings that are followed while they grow.
const MOST_EXACT: usize = 96;
const LONGEST: usize = 24;
/// What so few texts have is not made longer.
const RARE: f64 = 0.001;
/// Of a pattern: with literals, and of bytes alone.
const MOST_CLAUSES: usize = 3;
const MOST_SETS: usize = 6;

#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// All of these are met.
    pub clauses: Vec<Clause>,
    /// Of each of these, one byte occurs.
    pub sets: Vec<ByteSet>,
    pub min_len: usize,
}

/// One of the literals or one of the bytes occurs.
#[derive(Clone, Debug, Default)]
pub struct Clause {
    /// Of two bytes and more.
    pub literals: Vec<Vec<u8>>,
    pub bytes: ByteSet,
    /// Literals are looked for in the text without the bytes that `erase` drops.
    pub is_erased: bool,
}

/// `pattern`: as it was compiled for bytes.
pub fn needs(pattern: &str) -> Needs {
    let mut parser = ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .dot_matches_new_line(true)
        .build();
    let Ok(hir) = parser.parse(pattern) else {
        return Needs::default();
    };
    let mut all = look(&hir).into_clauses();
    if let Some(erased) = erase::pattern(&hir) {
        let clauses = look(&erased).into_clauses().into_iter();
        all.extend(clauses.filter(|clause| !clause.literals.is_empty()).map(|mut clause| {
            clause.is_erased = true;
            clause.bytes.insert(erase::EXEMPT);
            clause
        }));
    }
    all.retain(|clause| clause.share() < 1.0);
    all.sort_by(|one, other| one.share().total_cmp(&other.share()));
    let (sets, clauses): (Vec<Clause>, Vec<Clause>) = all.into_iter().partition(|clause| clause.literals.is_empty());
    Needs {
        clauses: clauses.into_iter().take(MOST_CLAUSES).collect(),
        sets: sets.into_iter().take(MOST_SETS).map(|set| set.bytes).collect(),
        min_len: hir.properties().minimum_len().unwrap_or(0),
    }
}

#[derive(Clone, Debug, Default)]
struct Found {
    /// All texts that match, where they are few.
    exact: Option<Vec<Vec<u8>>>,
    /// What a match begins with, where that is all that is known.
    prefix: Option<Vec<Vec<u8>>>,
    clauses: Vec<Clause>,
}

impl Found {
    fn into_clauses(mut self) -> Vec<Clause> {
        let texts = self.exact.or(self.prefix);
        self.clauses.extend(texts.and_then(Clause::of));
        self.clauses
    }

    fn start(&self) -> Option<&Vec<Vec<u8>>> {
        self.exact.as_ref().or(self.prefix.as_ref())
    }
}

impl Clause {
    /// `None`: nothing is needed, or too much.
    fn of(texts: Vec<Vec<u8>>) -> Option<Clause> {
        let mut clause = Clause::default();
        for text in texts {
            match text.as_slice() {
                [] => return None,
                [byte] => clause.bytes.insert(*byte),
                _ => clause.literals.push(text),
            }
        }
        (clause.literals.len() <= MOST_LITERALS).then_some(clause)
    }

    fn join(&mut self, other: &Clause) {
        self.literals.extend_from_slice(&other.literals);
        self.bytes.join(&other.bytes);
    }

    /// How large a share of common texts meets it, roughly.
    fn share(&self) -> f64 {
        let literals = self.literals.iter().map(|literal| rarity::share(literal));
        let bytes = (0..=255).filter(|byte| self.bytes.has(*byte));
        literals.sum::<f64>() + bytes.map(|byte| rarity::share(&[byte])).sum::<f64>()
    }
}

fn look(hir: &Hir) -> Found {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Found {
            exact: Some(vec![Vec::new()]),
            ..Found::default()
        },
        HirKind::Literal(literal) => {
            let text = literal.0.to_ascii_lowercase();
            let bytes = text.iter().map(|byte| Clause {
                bytes: ByteSet::of(&[*byte]),
                ..Clause::default()
            });
            Found {
                clauses: bytes.take(MOST_SETS).collect(),
                exact: Some(vec![text]),
                prefix: None,
            }
        }
        HirKind::Class(class) => look_class(class),
        HirKind::Capture(capture) => look(&capture.sub),
        HirKind::Repetition(repetition) => look_repetition(repetition),
        HirKind::Concat(parts) => look_concat(parts),
        HirKind::Alternation(branches) => look_alternation(branches),
    }
}

fn look_class(class: &Class) -> Found {
    let Class::Bytes(class) = class else {
        return Found::default();
    };
    let mut bytes: Vec<u8> = class.iter().flat_map(|range| range.start()..=range.end()).collect();
    bytes.iter_mut().for_each(|byte| byte.make_ascii_lowercase());
    bytes.sort_unstable();
    bytes.dedup();
    let clause = (1..=128).contains(&bytes.len()).then(|| Clause {
        bytes: ByteSet::of(&bytes),
        ..Clause::default()
    });
    let exact = (1..=8).contains(&bytes.len());
    Found {
        exact: exact.then(|| bytes.iter().map(|byte| vec![*byte]).collect()),
        prefix: None,
        clauses: clause.into_iter().collect(),
    }
}

fn look_repetition(repetition: &Repetition) -> Found {
    let inner = look(&repetition.sub);
    match (repetition.min, repetition.max) {
        (0, Some(1)) => Found {
            exact: inner.exact.map(|mut exact| {
                if !exact.contains(&Vec::new()) {
                    exact.push(Vec::new());
                }
                exact
            }),
            ..Found::default()
        },
        (0, _) => Found::default(),
        (1, Some(1)) => inner,
        (1, _) => Found {
            exact: None,
            prefix: inner.start().cloned(),
            clauses: inner.clauses,
        },
        _ => {
            let twice = inner.exact.as_ref().and_then(|exact| product(exact, exact, MOST_EXACT));
            Found {
                exact: None,
                prefix: twice.or_else(|| inner.start().cloned()),
                clauses: inner.clauses,
            }
        }
    }
}

fn look_concat(parts: &[Hir]) -> Found {
    let mut clauses = Vec::new();
    // The texts of the parts since the last one about which too little is known.
    let mut run = vec![Vec::new()];
    let mut prefix = None;
    for part in parts {
        let part = look(part);
        let joined = part.exact.as_ref().and_then(|exact| product(&run, exact, MOST_EXACT));
        clauses.extend(part.clauses.iter().cloned());
        if let Some(joined) = joined {
            run = joined;
            continue;
        }
        let is_rare = Clause::of(run.clone()).is_some_and(|clause| clause.share() < RARE);
        let longer = part.start().filter(|_| !is_rare);
        let longer = longer.and_then(|start| product(&run, start, MOST_LITERALS));
        let known = longer.unwrap_or(run);
        match prefix {
            None => prefix = Some(known),
            Some(_) => clauses.extend(Clause::of(known)),
        }
        run = part.exact.unwrap_or_else(|| vec![Vec::new()]);
    }
    let mut found = match prefix {
        None => Found {
            exact: Some(run),
            prefix,
            clauses,
        },
        Some(_) => {
            clauses.extend(Clause::of(run));
            Found {
                exact: None,
                prefix,
                clauses,
            }
        }
    };
    trim(&mut found.clauses);
    found
}

fn look_alternation(branches: &[Hir]) -> Found {
    let branches: Vec<Found> = branches.iter().map(look).collect();
    let exact = join(branches.iter().map(|branch| branch.exact.as_ref()), MOST_EXACT);
    let prefix = match exact {
        Some(_) => None,
        None => join(branches.iter().map(Found::start), MOST_LITERALS),
    };
    let branches: Vec<Vec<Clause>> = branches.into_iter().map(Found::into_clauses).collect();
    let best = union(&branches, |_| true);
    let bytes = union(&branches, |clause| clause.literals.is_empty());
    Found {
        exact,
        prefix,
        clauses: best.into_iter().chain(bytes).collect(),
    }
}

/// One clause of all branches: of each, the one that is met least.
fn union(branches: &[Vec<Clause>], is_meant: impl Fn(&Clause) -> bool) -> Option<Clause> {
    let mut union = Clause::default();
    for branch in branches {
        let clauses = branch.iter().filter(|clause| is_meant(clause));
        union.join(clauses.min_by(|one, other| one.share().total_cmp(&other.share()))?);
    }
    union.literals.sort_unstable();
    union.literals.dedup();
    (union.literals.len() <= MOST_LITERALS).then_some(union)
}

/// The best of many.
fn trim(clauses: &mut Vec<Clause>) {
    const MOST: usize = 2 * (MOST_CLAUSES + MOST_SETS);
    if clauses.len() > MOST {
        clauses.sort_by(|one, other| one.share().total_cmp(&other.share()));
        clauses.truncate(MOST);
    }
}

fn join<'a>(all: impl Iterator<Item = Option<&'a Vec<Vec<u8>>>>, most: usize) -> Option<Vec<Vec<u8>>> {
    let all: Option<Vec<&Vec<Vec<u8>>>> = all.collect();
    let mut all: Vec<Vec<u8>> = all?.into_iter().flatten().cloned().collect();
    all.sort_unstable();
    all.dedup();
    (all.len() <= most).then_some(all)
}

fn product(left: &[Vec<u8>], right: &[Vec<u8>], most: usize) -> Option<Vec<Vec<u8>>> {
    let longest = |texts: &[Vec<u8>]| texts.iter().map(Vec::len).max().unwrap_or(0);
    if left.len() * right.len() > most || longest(left) + longest(right) > LONGEST {
        return None;
    }
    let pairs = left
        .iter()
        .flat_map(|left| right.iter().map(move |right| [left.as_slice(), right].concat()));
    Some(pairs.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    use super::*;

    fn literals(pattern: &str) -> Vec<String> {
        let mut clauses = needs(pattern).clauses.into_iter();
        let best = clauses.next().map(|clause| clause.literals).unwrap_or_default();
        best.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
    }

    #[test]
    fn literals_are_found_within_patterns() {
        assert_eq!(literals(r"(?i)union\s+x"), ["union"]);
        assert_eq!(literals(r"\bfoo(?:bar|baz)\d*"), ["foobar", "foobaz"]);
        assert_eq!(literals(r"(?:abc|def)+x?"), ["abc", "def"]);
        assert_eq!(literals(r"[.]{2,3}[/]"), [".."]);
        let erased = needs(r"(?i)c['\\]*a['\\]*(?:\$[a-z]+)?t x").clauses;
        let mut erased = erased.iter().filter(|clause| clause.is_erased);
        assert!(erased.any(|clause| clause.literals == [b"cat x"] && clause.bytes.has(b'$')));
        assert_eq!(literals(r"(?:abc)?"), [] as [&str; 0]);
        let mixed = &needs(r"abc\d+|[!]\s*x").clauses[0];
        assert_eq!(mixed.literals, [b"abc"]);
        assert!(mixed.bytes.has(b'!') || mixed.bytes.has(b'x'));
    }

    fn is_met(clause: &Clause, text: &[u8]) -> bool {
        let erased = erase::text(text);
        let text = if clause.is_erased { &erased } else { text };
        let mut literals = clause.literals.iter();
        literals.any(|literal| memchr::memmem::find(text, literal).is_some()) || clause.bytes.meets(&ByteSet::of(text))
    }

    proptest! {
        /// Whatever matches has what is said to be needed.
        #[test]
        fn what_matches_has_what_it_needs(
            pattern in "(\\(\\?:)?[abAB]{1,3}(\\||[xyXY.]?|['\"]\\*|\\\\\\\\\\?|\\(\\$\\[a-c\\]\\*\\)\\?)([ab]{0,2})\\)?([?*+]|\\{2,3\\})?(c|\\[de\\]|'\\?d)?",
            text in "[abcdexyABXY'$\\\\\"\\[]{0,12}",
        ) {
            let mut builder = RegexBuilder::new(&pattern);
            if let Ok(regex) = builder.unicode(false).case_insensitive(true).build() && regex.is_match(text.as_bytes()) {
                let needs = needs(&format!("(?i){pattern}"));
                let text = text.to_ascii_lowercase();
                for clause in &needs.clauses {
                    prop_assert!(is_met(clause, text.as_bytes()), "{pattern} on {text}: {clause:?}");
                }
                let present = ByteSet::of(text.as_bytes());
                prop_assert!(needs.sets.iter().all(|set| set.meets(&present)), "{pattern} on {text}");
                prop_assert!(text.len() >= needs.min_len);
            }
        }
    }
}
