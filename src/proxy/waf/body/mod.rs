//! A body taken apart: codecs from bytes to values, without a look at any rule.
//!
//! A body that cannot be read as what it says it is leaves what was read until then and a `Fault`; the engine then shows rules the raw bytes too.

mod form;
mod json;
mod multipart;
mod xml;

use bytes::Bytes;

pub use form::{cookies, query};

use super::rule::Processor;
use super::store::Store;
use super::variable::Variable;

/// Values of one body; the portal's largest forms have a tenth.
pub const MOST_VALUES: usize = 10_000;

/// Why a body was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

/// What is announced by the field `Content-Type`.
pub fn processor(content_type: &[u8]) -> Option<Processor> {
    let kind = content_type
        .split(|byte| *byte == b';')
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
        Err(_) if is_cut && processor != Processor::Json => Ok(()),
        read => read,
    }
}

fn bound(store: &Store) -> Result<(), Fault> {
    match store.len() < MOST_VALUES {
        true => Ok(()),
        false => Err(Fault(format!("more than {MOST_VALUES} values"))),
    }
}

#[cfg(test)]
mod tests;
