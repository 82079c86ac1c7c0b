//! Patterns that look through quotes and escapes (`c['"\\]*a['"\\]*t`): what they look for is plain in a text without those bytes.
//!
//! Sound since dropping bytes is a homomorphism: where a part of a text matches a pattern, the part without the bytes matches the pattern
//! without them. A text with `EXEMPT` is left out of it: parts of a pattern that need that byte are as if they were not there.

use regex_syntax::hir::{Capture, Class, ClassBytes, ClassBytesRange, Dot, Hir, HirKind, Repetition};

use crate::proxy::waf::operator::ByteSet;

const ERASED: &[u8] = b"\"')[\\";
/// Begins a variable of a shell.
pub const EXEMPT: u8 = b'$';

pub fn text(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| !ERASED.contains(byte)).collect()
}

pub fn changes(present: &ByteSet) -> bool {
    ERASED.iter().any(|byte| present.has(*byte))
}

/// `None`: nothing without `EXEMPT` matches.
pub fn pattern(hir: &Hir) -> Option<Hir> {
    Some(match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Hir::empty(),
        HirKind::Literal(literal) => match literal.0.contains(&EXEMPT) {
            true => return None,
            false => Hir::literal(text(&literal.0)),
        },
        HirKind::Class(Class::Bytes(class)) => erase_class(class)?,
        // Any text at all: nothing is known.
        HirKind::Class(_) => Hir::repetition(Repetition {
            min: 0,
            max: None,
            greedy: true,
            sub: Box::new(Hir::dot(Dot::AnyByte)),
        }),
        HirKind::Capture(Capture { sub, .. }) => pattern(sub)?,
        HirKind::Repetition(repetition) => match pattern(&repetition.sub) {
            Some(sub) if *sub.kind() == HirKind::Empty => Hir::empty(),
            Some(sub) => Hir::repetition(Repetition {
                sub: Box::new(sub),
                ..repetition.clone()
            }),
            None if repetition.min == 0 => Hir::empty(),
            None => return None,
        },
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(pattern).collect::<Option<Vec<Hir>>>()?),
        HirKind::Alternation(branches) => {
            let branches: Vec<Hir> = branches.iter().filter_map(pattern).collect();
            match branches.is_empty() {
                true => return None,
                false => Hir::alternation(branches),
            }
        }
    })
}

fn erase_class(class: &ClassBytes) -> Option<Hir> {
    let bytes = class.iter().flat_map(|range| range.start()..=range.end());
    let bytes: Vec<u8> = bytes.filter(|byte| *byte != EXEMPT).collect();
    if bytes.is_empty() {
        return None;
    }
    let kept = text(&bytes);
    let ranges = kept.iter().map(|byte| ClassBytesRange::new(*byte, *byte));
    let class = Hir::class(Class::Bytes(ClassBytes::new(ranges)));
    Some(match (kept.is_empty(), kept.len() == bytes.len()) {
        (true, _) => Hir::empty(),
        (false, true) => class,
        (false, false) => Hir::alternation(vec![class, Hir::empty()]),
    })
}
