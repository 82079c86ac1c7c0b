//! Queries, forms and cookies: pairs of names and values.

use bytes::Bytes;

use super::super::store::Store;
use super::super::transform::{Reading, Transform};
use super::super::variable::Variable;
use super::{Fault, bound};

/// `a=1&b=2`, decoded. `variable`: where the arguments belong.
pub fn parse(text: &Bytes, variable: Variable, store: &mut Store) -> Result<(), Fault> {
    for (start, end) in spans(text, b'&') {
        bound(variable, store)?;
        let pair = text.slice(start..end);
        let (name, value) = match memchr::memchr(b'=', &pair) {
            Some(at) => (pair.slice(..at), pair.slice(at + 1..)),
            None => (pair, Bytes::new()),
        };
        let name = decoded(name);
        store.add_argument(variable, key(&name), name, decoded(value));
    }
    Ok(())
}

pub fn query(text: &Bytes, store: &mut Store) -> Result<(), Fault> {
    parse(text, Variable::ArgsGet, store)
}

/// `a=1; b=2`, as they are.
pub fn cookies(text: &Bytes, store: &mut Store) -> Result<(), Fault> {
    for (start, end) in spans(text, b';') {
        bound(Variable::RequestCookies, store)?;
        let pair = text.slice_ref(text[start..end].trim_ascii());
        if pair.is_empty() {
            continue;
        }
        let (name, value) = match memchr::memchr(b'=', &pair) {
            Some(at) => (pair.slice(..at), pair.slice(at + 1..)),
            None => (pair, Bytes::new()),
        };
        store.add(Variable::RequestCookiesNames, name.clone(), name.clone());
        store.add(Variable::RequestCookies, name, value);
    }
    Ok(())
}

/// What PHP makes of the name of an argument: nothing before it, and nothing behind its last index, whatever is written there.
/// `a[b]c`, `a[b][c` and `a[b]` are one.
pub fn key(name: &Bytes) -> Bytes {
    let start = name.iter().take_while(|byte| **byte == b' ').count();
    let end = memchr::memchr(0, name).unwrap_or(name.len()).max(start);
    let (mut end, text) = (end, &name[..end]);
    let mut open = memchr::memchr(b'[', text);
    while let Some(at) = open.filter(|at| text.get(*at) == Some(&b'[')) {
        let Some(length) = memchr::memchr(b']', &text[at..]) else {
            break;
        };
        end = at + length + 1;
        open = Some(end);
    }
    name.slice(start..end)
}

/// Parts between marks that are not empty.
fn spans(text: &[u8], mark: u8) -> impl Iterator<Item = (usize, usize)> {
    let marks = memchr::memchr_iter(mark, text).chain([text.len()]);
    let mut start = 0;
    marks.filter_map(move |end| {
        let span = (start, end);
        start = end + 1;
        (span.0 < span.1).then_some(span)
    })
}

fn decoded(text: Bytes) -> Bytes {
    match Transform::UrlDecode.apply(&text, Reading::Text) {
        Some(decoded) => decoded.into(),
        None => text,
    }
}
