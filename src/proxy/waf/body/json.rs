//! JSON: each scalar is an argument, named by its way from the root: `json.items.name`, whichever item of a list it is in.
//!
//! By the crate `json-event-parser` (MIT or Apache-2.0): it leaves numbers as they are written, however large, and takes no stack for depth.

use bytes::Bytes;
use json_event_parser::{JsonEvent, SliceJsonParser};

use super::super::store::Store;
use super::super::variable::Variable;
use super::{Fault, bound};

/// Names repeat those of all above them: without a bound a small body makes large ones.
const MOST_NAME: usize = 4096;
/// Lists and objects in one another. PHP reads no deeper.
const DEEPEST: usize = 512;

pub fn parse(body: &Bytes, store: &mut Store) -> Result<(), Fault> {
    let mut parser = SliceJsonParser::new(body);
    let mut reader = Reader {
        way: b"json".to_vec(),
        open: Vec::new(),
        store,
    };
    loop {
        match parser.parse_next() {
            Ok(JsonEvent::Eof) => return Ok(()),
            Ok(event) => reader.take(event)?,
            Err(error) => return Err(Fault::Broken(format!("no JSON: {error}"))),
        }
    }
}

struct Reader<'a> {
    way: Vec<u8>,
    /// How long the way was where each list and object began that is not closed yet.
    open: Vec<usize>,
    store: &'a mut Store,
}

impl Reader<'_> {
    fn take(&mut self, event: JsonEvent) -> Result<(), Fault> {
        match event {
            JsonEvent::StartObject | JsonEvent::StartArray if self.open.len() == DEEPEST => {
                return Err(Fault::Broken(format!("JSON deeper than {DEEPEST}")));
            }
            JsonEvent::StartObject | JsonEvent::StartArray => self.open.push(self.way.len()),
            JsonEvent::EndObject | JsonEvent::EndArray => {
                let before = self.open.pop();
                self.way.truncate(before.unwrap_or(0));
            }
            JsonEvent::ObjectKey(key) => self.step(&key)?,
            JsonEvent::String(text) | JsonEvent::Number(text) => self.add(&text)?,
            JsonEvent::Boolean(is_true) => self.add(if is_true { "true" } else { "false" })?,
            JsonEvent::Null => self.add("")?,
            JsonEvent::Eof => {}
        }
        Ok(())
    }

    /// Into a key of the innermost object. One that is too long for a name is a value: rules see it whole.
    fn step(&mut self, key: &str) -> Result<(), Fault> {
        let before = self.open.last().copied();
        self.way.truncate(before.unwrap_or(0));
        if self.way.len() + key.len() >= MOST_NAME {
            return self.add(key);
        }
        self.way.push(b'.');
        self.way.extend_from_slice(key.as_bytes());
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), Fault> {
        bound(Variable::ArgsPost, self.store)?;
        let name = Bytes::copy_from_slice(&self.way);
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.store.add_argument(Variable::ArgsPost, name.clone(), name, text);
        Ok(())
    }
}
