//! A body taken apart: codecs from bytes to values, without a look at any rule.
//!
//! A body that cannot be read as what it says it is leaves what was read until then and a `Fault`; the engine then shows rules the raw bytes too.
//! The bound on values is one per source: nobody hides a query behind cookies.

mod form;
mod json;
mod multipart;
mod xml;

use bytes::Bytes;

pub use form::{cookies, query};

use super::rule::Processor;
use super::store::Store;
use super::variable::Variable;

/// Values of one source: the query, the cookies, the body. More than PHP takes of each (`max_input_vars` in
/// `assets/templates/fpm-pool.conf`); the portal's largest forms have a tenth of that.
pub const MOST_VALUES: usize = 20_000;

/// Why not all was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not what it says it is.
    Broken(String),
    /// It has more than is looked at.
    Full(String),
}

/// What is announced by the field `Content-Type`.
pub fn processor(content_type: &[u8]) -> Option<Processor> {
    // As PHP ends it.
    let kind = content_type
        .split(|byte| matches!(byte, b';' | b',' | b' '))
        .next()?
        .trim_ascii()
        .to_ascii_lowercase();
    match kind.as_slice() {
        b"application/x-www-form-urlencoded" => Some(Processor::UrlEncoded),
        b"multipart/form-data" => Some(Processor::Multipart),
        b"application/json" | b"text/json" => Some(Processor::Json),
        b"application/xml" | b"text/xml" => Some(Processor::Xml),
        kind if kind.starts_with(b"application/") && kind.ends_with(b"+json") => Some(Processor::Json),
        kind if kind.starts_with(b"application/") && kind.ends_with(b"+xml") => Some(Processor::Xml),
        _ => None,
    }
}

/// `is_cut`: there is more of the body than is looked at.
pub fn read(
    processor: Processor,
    content_type: &[u8],
    body: &Bytes,
    is_cut: bool,
    store: &mut Store,
) -> Result<(), Fault> {
    let read = match processor {
        Processor::UrlEncoded => form::parse(body, Variable::ArgsPost, store),
        Processor::Multipart => multipart::parse(content_type, body, is_cut, store),
        Processor::Json => json::parse(body, store),
        Processor::Xml => xml::parse(body, store),
    };
    match read {
        // What is missing is no fault of the client.
        Err(Fault::Broken(_)) if is_cut => Ok(()),
        read => read,
    }
}

/// Whether one more value of a source is looked at. `variable`: one of which the source has a value for each.
fn bound(variable: Variable, store: &Store) -> Result<(), Fault> {
    match store.of(variable).len() < MOST_VALUES {
        true => Ok(()),
        false => Err(Fault::Full(format!("more than {MOST_VALUES} of {}", variable.name()))),
    }
}

#[cfg(test)]
mod tests;
