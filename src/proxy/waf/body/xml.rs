//! XML: the text between tags as one value (`XML:/*`), attributes one by one (`XML://@*`). Entities that a document defines are not
//! expanded; the definitions are part of the text.

use bytes::Bytes;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};

use super::super::store::Store;
use super::super::variable::Variable;
use super::{Fault, bound};

const TEXT: &str = "/*";
const ATTRIBUTE: &str = "//@*";
/// Elements in one another. PHP reads no deeper.
const DEEPEST: usize = 256;
/// Beginnings of encodings in which markup and attacks are the same bytes as in ASCII.
const ENCODINGS: [&[u8]; 6] = [b"utf-8", b"us-ascii", b"windows-125", b"cp125", b"iso-8859-", b"koi8-"];

pub fn parse(body: &Bytes, store: &mut Store) -> Result<(), Fault> {
    let mut text = Vec::new();
    let read = read(body, &mut text, store);
    if !text.is_empty() {
        store.add(Variable::Xml, TEXT, text);
    }
    read
}

fn read(body: &[u8], text: &mut Vec<u8>, store: &mut Store) -> Result<(), Fault> {
    // UTF-16 and UTF-32.
    if memchr::memchr(0, body).is_some() {
        return Err(Fault::Broken("no XML: zero bytes".to_string()));
    }
    let mut reader = Reader::from_reader(body);
    let (mut depth, mut elements) = (0usize, 0usize);
    loop {
        let event = reader
            .read_event()
            .map_err(|error| Fault::Broken(format!("no XML: {error}")))?;
        match event {
            Event::Start(tag) => {
                depth += 1;
                elements += 1;
                if depth > DEEPEST {
                    return Err(Fault::Broken(format!("XML deeper than {DEEPEST}")));
                }
                attributes(&tag, store)?;
            }
            Event::Empty(tag) => {
                elements += 1;
                attributes(&tag, store)?;
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(part) => text.extend_from_slice(&part),
            Event::CData(part) => text.extend_from_slice(&part),
            Event::DocType(part) => text.extend_from_slice(&part),
            Event::GeneralRef(reference) => resolve(&reference, text),
            Event::Decl(declaration) => known(&declaration)?,
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match (depth, elements) {
        (0, 1..) => Ok(()),
        _ => Err(Fault::Broken(
            "no XML: elements are not closed, or there are none".to_string(),
        )),
    }
}

/// What is written in an encoding like UTF-7 looks harmless until it is decoded.
fn known(declaration: &BytesDecl) -> Result<(), Fault> {
    let Some(Ok(encoding)) = declaration.encoding() else {
        return Ok(());
    };
    let name = encoding.to_ascii_lowercase();
    match ENCODINGS.iter().any(|known| name.starts_with(known)) {
        true => Ok(()),
        false => Err(Fault::Broken("XML in an encoding that is not read".to_string())),
    }
}

fn attributes(tag: &BytesStart, store: &mut Store) -> Result<(), Fault> {
    for attribute in tag.attributes().with_checks(false) {
        bound(Variable::Xml, store)?;
        let attribute = attribute.map_err(|error| Fault::Broken(format!("no XML: {error}")))?;
        let raw = &attribute.value;
        let text = std::str::from_utf8(raw)
            .ok()
            .and_then(|raw| quick_xml::escape::unescape(raw).ok());
        let text = text.map_or_else(|| Bytes::copy_from_slice(raw), |text| Bytes::from(text.into_owned()));
        store.add(Variable::Xml, ATTRIBUTE, text);
    }
    Ok(())
}

fn resolve(reference: &BytesRef, text: &mut Vec<u8>) {
    if let Ok(Some(char)) = reference.resolve_char_ref() {
        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        return;
    }
    match std::str::from_utf8(reference).ok().and_then(resolve_xml_entity) {
        Some(known) => text.extend_from_slice(known.as_bytes()),
        None => text.extend([b"&".as_slice(), reference, b";"].concat()),
    }
}
