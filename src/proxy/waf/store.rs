//! The values of one request and its answer, each with a number by which the rest of the engine knows it.

use bytes::Bytes;

use super::variable::{STORED, Variable};

#[derive(Clone, Debug)]
pub struct Value {
    pub key: Bytes,
    pub text: Bytes,
}

#[derive(Debug)]
pub struct Store {
    values: Vec<Value>,
    places: [Vec<u32>; STORED],
    weight: usize,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            values: Vec::new(),
            places: [const { Vec::new() }; STORED],
            weight: 0,
        }
    }
}

impl Store {
    pub fn add(&mut self, variable: Variable, key: impl Into<Bytes>, text: impl Into<Bytes>) {
        debug_assert!(variable.is_stored());
        let place = self.values.len() as u32;
        let (key, text) = (key.into(), text.into());
        self.weight += text.len();
        self.values.push(Value { key, text });
        self.places[variable as usize].push(place);
    }

    /// The only value of a variable without keys.
    pub fn set(&mut self, variable: Variable, text: impl Into<Bytes>) {
        self.places[variable as usize].clear();
        self.add(variable, Bytes::new(), text);
    }

    /// An argument and its name. `variable`: the arguments of the query or of the body. `key`: what the name is for who reads it.
    pub fn add_argument(&mut self, variable: Variable, key: Bytes, name: Bytes, text: Bytes) {
        let names = match variable {
            Variable::ArgsGet => Variable::ArgsGetNames,
            _ => Variable::ArgsPostNames,
        };
        self.add(names, key.clone(), name);
        self.add(variable, key, text);
    }

    /// Numbers of a variable's values, in their order.
    pub fn of(&self, variable: Variable) -> &[u32] {
        self.places.get(variable as usize).map_or(&[], Vec::as_slice)
    }

    pub fn get(&self, number: u32) -> &Value {
        &self.values[number as usize]
    }

    pub fn first(&self, variable: Variable, key: Option<&str>) -> Option<&Value> {
        let mut values = self.of(variable).iter().map(|number| self.get(*number));
        values.find(|value| key.is_none_or(|key| value.key.eq_ignore_ascii_case(key.as_bytes())))
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes of all texts that were ever added.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Bytes of keys and texts of the variables, together.
    pub fn size(&self, variables: &[Variable], counts_keys: bool) -> usize {
        let numbers = variables.iter().flat_map(|variable| self.of(*variable));
        let values = numbers.map(|number| self.get(*number));
        values
            .map(|value| value.text.len() + if counts_keys { value.key.len() } else { 0 })
            .sum()
    }
}
