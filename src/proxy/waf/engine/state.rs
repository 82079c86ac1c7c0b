//! Collections that rules write, and what the last match was.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::proxy::waf::operator::{Captures, number};
use crate::proxy::waf::rule::Change;
use crate::proxy::waf::variable::Variable;

/// One text in a collection, and the keys of all: a rule that grows them endlessly is stopped here. What is there goes on changing.
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
        let before = self.get(collection, &key);
        let is_known = before.is_some();
        let before = before.map_or(0, |text| number(text));
        let text = match change {
            Change::Unset => {
                self.remove(collection, &key);
                return;
            }
            Change::Assign(_) => text,
            Change::Add(_) => before.saturating_add(number(&text)).to_string().into_bytes(),
            Change::Subtract(_) => before.saturating_sub(number(&text)).to_string().into_bytes(),
        };
        // Beside captures.
        let has_room = || self.tx.len() + self.others.len() < MOST_KEYS + CAPTURES;
        if text.len() <= LONGEST && (is_known || has_room()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::waf::macros::Text;

    #[test]
    fn what_is_there_goes_on_changing_when_nothing_new_fits() {
        let mut state = State::default();
        let mut change = |key: String, change: fn(Text) -> Change, text: &str| {
            state.change(Variable::Tx, key.into_bytes(), &change(Text::parse("")), text.into());
            state.tx.len()
        };
        change("score".into(), Change::Assign, "5");
        for number in 0..5000 {
            change(format!("counter_{number}"), Change::Assign, "1");
        }
        let full = change("score".into(), Change::Add, "5");
        assert!(full < 5000);
        assert_eq!(change("new".into(), Change::Assign, "1"), full);
        change("counter_1".into(), Change::Assign, "2");
        assert_eq!((state.number("score"), state.number("counter_1")), (10, 2));
    }
}
