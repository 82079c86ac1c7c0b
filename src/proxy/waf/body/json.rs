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
/// All names together, by the size of the body. Further ones are without their beginning.
const NAMES: usize = 4;
/// Lists and objects in one another. PHP reads no deeper.
const DEEPEST: usize = 512;

pub fn parse(body: &Bytes, store: &mut Store) -> Result<(), Fault> {
    let mut parser = SliceJsonParser::new(body);
    let mut reader = Reader {
        way: b"json".to_vec(),
        name: None,
        open: Vec::new(),
        spare: MOST_NAME + NAMES * body.len(),
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
    /// The way as a name, once there is a value: one for all items of a list.
    name: Option<Bytes>,
    open: Vec<Open>,
    /// How many bytes of names may still be made.
    spare: usize,
    store: &'a mut Store,
}

/// A list or an object that is not closed yet, with the way to it.
struct Open {
    length: usize,
    name: Option<Bytes>,
}

impl Reader<'_> {
    fn take(&mut self, event: JsonEvent) -> Result<(), Fault> {
        match event {
            JsonEvent::StartObject | JsonEvent::StartArray if self.open.len() == DEEPEST => {
                return Err(Fault::Broken(format!("JSON deeper than {DEEPEST}")));
            }
            JsonEvent::StartObject | JsonEvent::StartArray => self.open.push(Open {
                length: self.way.len(),
                name: self.name.clone(),
            }),
            JsonEvent::EndObject | JsonEvent::EndArray => {
                let closed = self.open.pop().filter(|closed| closed.length < self.way.len());
                if let Some(Open { length, name }) = closed {
                    self.way.truncate(length);
                    self.name = name;
                }
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
        let before = self.open.last().map_or(0, |open| open.length);
        self.way.truncate(before);
        self.name = None;
        if self.way.len() + key.len() >= MOST_NAME {
            return self.add(key);
        }
        self.way.push(b'.');
        self.way.extend_from_slice(key.as_bytes());
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), Fault> {
        bound(Variable::ArgsPost, self.store)?;
        let name = self.name();
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.store.add_argument(Variable::ArgsPost, name.clone(), name, text);
        Ok(())
    }

    fn name(&mut self) -> Bytes {
        let Reader { way, spare, name, .. } = self;
        let make = || {
            let left = spare.checked_sub(way.len());
            *spare = left.unwrap_or(0);
            Bytes::copy_from_slice(match left {
                Some(_) => way,
                None => way.rsplit(|byte| *byte == b'.').next().unwrap_or_default(),
            })
        };
        name.get_or_insert_with(make).clone()
    }
}
