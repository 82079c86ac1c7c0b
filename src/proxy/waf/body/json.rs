//! JSON: each scalar is an argument, named by its way from the root: `json.items.name`, whichever item of a list it is in.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::super::store::Store;
use super::super::variable::Variable;
use super::{Fault, bound};

pub fn parse(body: &Bytes, store: &mut Store) -> Result<(), Fault> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let mut way = b"json".to_vec();
    let node = Node {
        way: &mut way,
        store: &mut *store,
    };
    let read = node.deserialize(&mut reader);
    let read = read.and_then(|()| reader.end());
    read.or_else(|error| {
        bound(Variable::ArgsPost, store)?;
        Err(Fault::Broken(format!("no JSON: {error}")))
    })
}

/// A value at `way`. Depth is bounded by the parser's own limit.
struct Node<'a> {
    way: &'a mut Vec<u8>,
    store: &'a mut Store,
}

impl Node<'_> {
    fn add<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        bound(Variable::ArgsPost, self.store).map_err(|_| E::custom("too many values"))?;
        let name = Bytes::copy_from_slice(self.way);
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.store.add_argument(Variable::ArgsPost, name, text);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.add(if value { "true" } else { "false" })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.add(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.add(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.add(&value.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.add(value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.add("")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Node { way, store } = self;
        while items.next_element_seed(Node { way, store })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let size = self.way.len();
        while let Some(key) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            if size + key.len() > MOST_NAME {
                return Err(A::Error::custom("names too long together"));
            }
            self.way.truncate(size);
            self.way.push(b'.');
            self.way.extend_from_slice(key.as_bytes());
            let way = &mut *self.way;
            let node = Node { way, store: self.store };
            entries.next_value_seed(node)?;
        }
        self.way.truncate(size);
        Ok(())
    }
}

/// Names repeat those of all above them: without a bound a small body makes large ones.
const MOST_NAME: usize = 4096;
