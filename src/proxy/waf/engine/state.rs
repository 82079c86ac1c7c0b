//! Collections that rules write, and what the last match was.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::proxy::waf::operator::{Captures, number};
use crate::proxy::waf::rule::Change;
use crate::proxy::waf::variable::Variable;

/// One text in a collection, and all of one collection: a rule that grows them endlessly is stopped here.
const LONGEST: usize = 64 << 10;
const MOST_KEYS: usize = 4096;
const CAPTURES: usize = 10;

#[derive(Debug, Default)]
pub struct State {
    tx: BTreeMap<Bytes, Bytes>,
    others: BTreeMap<(Variable, Bytes), Bytes>,
    pub matched: Matched,
    /// Of the links of the rule that runs.
    pub all_matched: Vec<Matched>,
}

/// A value that an operator held for.
#[derive(Clone, Debug, Default)]
pub struct Matched {
    /// Like `ARGS:q`.
    pub name: Bytes,
    pub text: Bytes,
}

impl State {
    /// Keys are in lower case.
    pub fn get(&self, collection: Variable, key: &[u8]) -> Option<&Bytes> {
        match collection {
            Variable::Tx => self.tx.get(key),
            _ => self.others.get(&(collection, Bytes::copy_from_slice(key))),
        }
    }

    pub fn number(&self, key: &str) -> i64 {
        self.tx.get(key.as_bytes()).map_or(0, |text| number(text))
    }

    pub fn all(&self, collection: Variable) -> Vec<(Bytes, Bytes)> {
        let pair = |(key, text): (&Bytes, &Bytes)| (key.clone(), text.clone());
        match collection {
            Variable::Tx => self.tx.iter().map(pair).collect(),
            _ => {
                let own = self.others.iter().filter(|((variable, _), _)| *variable == collection);
                own.map(|((_, key), text)| (key.clone(), text.clone())).collect()
            }
        }
    }

    pub fn change(&mut self, collection: Variable, key: Vec<u8>, change: &Change, text: Vec<u8>) {
        let key = Bytes::from(key.to_ascii_lowercase());
        let before = self.get(collection, &key).map_or(0, |text| number(text));
        let text = match change {
            Change::Unset => {
                self.remove(collection, &key);
                return;
            }
            Change::Assign(_) => text,
            Change::Add(_) => before.saturating_add(number(&text)).to_string().into_bytes(),
            Change::Subtract(_) => before.saturating_sub(number(&text)).to_string().into_bytes(),
        };
        if text.len() <= LONGEST && self.tx.len() + self.others.len() < MOST_KEYS {
            self.insert(collection, key, text.into());
        }
    }

    /// `TX:0` to `TX:9`; those of an earlier match go.
    pub fn capture(&mut self, captures: Captures) {
        let mut captures = captures.into_iter();
        for place in 0..CAPTURES {
            let key = Bytes::from_static(&b"0123456789"[place..=place]);
            match captures.next() {
                Some(text) => self.insert(Variable::Tx, key, text.into()),
                None => self.remove(Variable::Tx, &key),
            }
        }
    }

    fn insert(&mut self, collection: Variable, key: Bytes, text: Bytes) {
        match collection {
            Variable::Tx => self.tx.insert(key, text),
            _ => self.others.insert((collection, key), text),
        };
    }

    fn remove(&mut self, collection: Variable, key: &Bytes) {
        match collection {
            Variable::Tx => self.tx.remove(key),
            _ => self.others.remove(&(collection, key.clone())),
        };
    }
}
