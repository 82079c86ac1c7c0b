//! What every match of a pattern must contain: derived from the pattern itself, in lower case. Pure.
//!
//! Sound by construction: where nothing can be said, nothing is. A text without any of the literals, or without a byte of each set, cannot match.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use crate::proxy::waf::operator::ByteSet;

/// Larger sets cost more than they sift out.
const MOST_LITERALS: usize = 300;
/// Sets of strings that are followed while they grow.
const MOST_EXACT: usize = 96;
const LONGEST: usize = 24;
/// One byte alone is in nearly every text.
const SHORTEST: usize = 2;
const MOST_SETS: usize = 6;

#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// One of these occurs. `None`: nothing can be said.
    pub literals: Option<Vec<Vec<u8>>>,
    /// Of each of these, one byte occurs.
    pub sets: Vec<ByteSet>,
    pub min_len: usize,
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
    let found = look(&hir);
    let whole = found.exact.filter(|exact| is_useful(exact));
    let literals = better(whole, found.literals).filter(|literals| is_useful(literals));
    Needs {
        literals,
        sets: found.sets,
        min_len: hir.properties().minimum_len().unwrap_or(0),
    }
}

#[derive(Clone, Debug, Default)]
struct Found {
    /// All texts that match, where they are few.
    exact: Option<Vec<Vec<u8>>>,
    literals: Option<Vec<Vec<u8>>>,
    sets: Vec<ByteSet>,
}

fn look(hir: &Hir) -> Found {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Found {
            exact: Some(vec![Vec::new()]),
            ..Found::default()
        },
        HirKind::Literal(literal) => {
            let text = literal.0.to_ascii_lowercase();
            Found {
                sets: text.iter().map(|byte| ByteSet::of(&[*byte])).take(MOST_SETS).collect(),
                exact: Some(vec![text]),
                literals: None,
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
    let sets = match bytes.len() {
        1..=128 => vec![ByteSet::of(&bytes)],
        _ => Vec::new(),
    };
    let exact = (1..=8).contains(&bytes.len());
    Found {
        exact: exact.then(|| bytes.iter().map(|byte| vec![*byte]).collect()),
        literals: None,
        sets,
    }
}

fn look_repetition(repetition: &Repetition) -> Found {
    let inner = look(&repetition.sub);
    match (repetition.min, repetition.max) {
        (0, Some(1)) => Found {
            exact: inner.exact.map(|mut exact| {
                exact.push(Vec::new());
                exact
            }),
            ..Found::default()
        },
        (0, _) => Found::default(),
        (1, Some(1)) => inner,
        _ => Found {
            exact: None,
            literals: better(inner.exact.filter(|exact| is_useful(exact)), inner.literals),
            sets: inner.sets,
        },
    }
}

fn look_concat(parts: &[Hir]) -> Found {
    let mut found = Found::default();
    // The texts of the parts since the last one about which too little is known.
    let mut run = vec![Vec::new()];
    let mut is_exact = true;
    for part in parts {
        let part = look(part);
        found.sets.extend(part.sets);
        found.literals = better(found.literals.take(), part.literals);
        let joined = part.exact.as_ref().and_then(|exact| product(&run, exact));
        if let Some(joined) = joined {
            run = joined;
            continue;
        }
        is_exact = false;
        found.literals = better(found.literals.take(), Some(std::mem::take(&mut run)));
        run = part.exact.unwrap_or_else(|| vec![Vec::new()]);
    }
    found.sets.truncate(MOST_SETS);
    match is_exact {
        true => found.exact = Some(run),
        false => found.literals = better(found.literals.take(), Some(run)),
    }
    found
}

fn look_alternation(branches: &[Hir]) -> Found {
    let branches: Vec<Found> = branches.iter().map(look).collect();
    let union = |of: fn(&Found) -> Option<Vec<Vec<u8>>>, most: usize| {
        let mut all = Vec::new();
        for branch in &branches {
            all.extend(of(branch)?);
        }
        all.sort_unstable();
        all.dedup();
        (all.len() <= most).then_some(all)
    };
    let exact = union(|branch| branch.exact.clone(), MOST_EXACT);
    let literals = union(
        |branch| {
            better(
                branch.exact.clone().filter(|exact| is_useful(exact)),
                branch.literals.clone(),
            )
        },
        MOST_LITERALS,
    );
    // A byte of one set of each branch.
    let firsts: Option<Vec<&ByteSet>> = branches
        .iter()
        .map(|branch| branch.sets.iter().min_by_key(|set| set.len()))
        .collect();
    let set = firsts.map(|sets| {
        let mut union = ByteSet::default();
        sets.iter().for_each(|set| union.join(set));
        union
    });
    Found {
        exact,
        literals,
        sets: set.filter(|set| set.len() <= 128).into_iter().collect(),
    }
}

fn product(left: &[Vec<u8>], right: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let longest = |texts: &[Vec<u8>]| texts.iter().map(Vec::len).max().unwrap_or(0);
    if left.len() * right.len() > MOST_EXACT || longest(left) + longest(right) > LONGEST {
        return None;
    }
    let pairs = left
        .iter()
        .flat_map(|left| right.iter().map(move |right| [left.as_slice(), right].concat()));
    Some(pairs.collect())
}

fn is_useful(literals: &[Vec<u8>]) -> bool {
    shortest(literals) >= SHORTEST && literals.len() <= MOST_LITERALS
}

fn shortest(literals: &[Vec<u8>]) -> usize {
    literals.iter().map(Vec::len).min().unwrap_or(0)
}

/// The one that occurs less often: longer literals, then fewer.
fn better(left: Option<Vec<Vec<u8>>>, right: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let (Some(left), Some(right)) = (&left, &right) else {
        return left.or(right).filter(|only| is_useful(only));
    };
    let rank = |literals: &[Vec<u8>]| {
        (
            is_useful(literals),
            shortest(literals).min(4),
            std::cmp::Reverse(literals.len()),
        )
    };
    let best = if rank(left) >= rank(right) { left } else { right };
    Some(best.clone()).filter(|best| is_useful(best))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    use super::*;

    fn literals(pattern: &str) -> Option<Vec<String>> {
        let texts = needs(pattern).literals?;
        Some(texts.into_iter().map(|text| String::from_utf8(text).unwrap()).collect())
    }

    #[test]
    fn literals_are_found_within_patterns() {
        let strings = |texts: &[&str]| Some(texts.iter().map(|text| text.to_string()).collect::<Vec<_>>());
        assert_eq!(literals(r"(?i)union\s+x"), strings(&["union"]));
        assert_eq!(literals(r"\bfoo(?:bar|baz)\d*"), strings(&["foobar", "foobaz"]));
        assert_eq!(literals(r"(?:abc|def)+x?"), strings(&["abc", "def"]));
        assert_eq!(literals(r"a|\d{3}"), None);
        assert_eq!(literals(r"(?:abc)?"), None);
    }

    proptest! {
        /// Whatever matches has what is said to be needed.
        #[test]
        fn what_matches_has_what_it_needs(pattern in "(\\(\\?:)?[abAB]{1,3}(\\||[xyXY.]?)([ab]{0,2})\\)?[?*+]?(c|\\[de\\])?", text in "[abcdexyABXY]{0,12}") {
            let mut builder = RegexBuilder::new(&pattern);
            if let Ok(regex) = builder.unicode(false).case_insensitive(true).build() && regex.is_match(text.as_bytes()) {
                let needs = needs(&format!("(?i){pattern}"));
                let text = text.to_ascii_lowercase();
                if let Some(literals) = &needs.literals {
                    let is_there = literals.iter().any(|literal| memchr::memmem::find(text.as_bytes(), literal).is_some());
                    prop_assert!(is_there, "{pattern} on {text}: {literals:?}");
                }
                let present = ByteSet::of(text.as_bytes());
                prop_assert!(needs.sets.iter().all(|set| set.meets(&present)), "{pattern} on {text}");
                prop_assert!(text.len() >= needs.min_len);
            }
        }
    }
}
