//! Reads the settings that the portal writes as a PHP array of texts: `$name = array("KEY" => "text", "LIST" => array(...),);`. No I/O.
//! Whatever is more than that, like a call or a variable inside, is not read at all.

use std::collections::BTreeMap;

/// Arrays in arrays: the portal writes two levels.
const DEPTH: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Numbers, `true`, `false` and `null` as PHP makes texts of them.
    Text(String),
    /// Key and value; a missing key counts from 0.
    Array(Vec<(String, Value)>),
}

impl Value {
    /// The texts of an array, in order.
    pub fn texts(&self) -> Vec<String> {
        let Value::Array(items) = self else { return Vec::new() };
        let texts = items.iter().filter_map(|(_, value)| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Array(_) => None,
        });
        texts.collect()
    }
}

/// The array that is assigned to `$name`. `None`: there is none, or more than an array of texts.
pub fn parse(source: &str, name: &str) -> Option<BTreeMap<String, Value>> {
    let mut reader = Reader {
        rest: source.trim_start_matches('\u{feff}').trim_start(),
    };
    reader.rest = reader.rest.strip_prefix("<?")?;
    reader.rest = reader.rest.strip_prefix("php").unwrap_or(reader.rest);
    reader.take("$")?;
    reader.rest = reader.rest.strip_prefix(name)?;
    reader.take("=")?;
    let Value::Array(items) = reader.value(DEPTH)? else {
        return None;
    };
    reader.take(";")?;
    reader.skip()?;
    matches!(reader.rest.trim_end(), "" | "?>").then(|| items.into_iter().collect())
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Spaces and comments.
    fn skip(&mut self) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start();
            let end = match self.rest {
                rest if rest.starts_with("/*") => rest.find("*/")? + 2,
                rest if rest.starts_with("//") || rest.starts_with('#') => rest.find('\n').unwrap_or(rest.len()),
                _ => return Some(()),
            };
            self.rest = self.rest.get(end..)?;
        }
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.skip()?;
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn is_next(&mut self, token: &str) -> bool {
        self.take(token).is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip()?;
        let first = self.rest.chars().next()?;
        if matches!(first, '"' | '\'') {
            return self.text().map(Value::Text);
        }
        if first == '[' {
            self.take("[")?;
            return self.items("]", depth.checked_sub(1)?);
        }
        let end = self
            .rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '.' | '-' | '+'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match word.to_ascii_lowercase().as_str() {
            "array" => {
                self.take("(")?;
                self.items(")", depth.checked_sub(1)?)
            }
            "true" => Some(Value::Text("1".into())),
            "false" | "null" => Some(Value::Text(String::new())),
            number => number.parse::<f64>().ok().map(|_| Value::Text(number.into())),
        }
    }

    fn items(&mut self, end: &str, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        loop {
            if self.is_next(end) {
                return Some(Value::Array(items));
            }
            let first = self.value(depth)?;
            let item = match (self.is_next("=>"), first) {
                (true, Value::Text(key)) => (key, self.value(depth)?),
                (true, Value::Array(_)) => return None,
                (false, value) => (items.len().to_string(), value),
            };
            items.push(item);
            if !self.is_next(",") {
                self.take(end)?;
                return Some(Value::Array(items));
            }
        }
    }

    /// A text in quotes. What PHP would put in for `$name` we cannot know.
    fn text(&mut self) -> Option<String> {
        let mut letters = self.rest.char_indices();
        let (_, quote) = letters.next()?;
        let is_plain = quote == '\'';
        let mut text = String::new();
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    self.rest = self.rest.get(at + 1..)?;
                    return Some(text);
                }
                '$' | '{' if !is_plain && self.rest.get(at..)?.starts_with(['$', '{']) => {
                    let next = self.rest.get(at + 1..)?.chars().next()?;
                    let is_variable = match letter {
                        '$' => next.is_alphabetic() || matches!(next, '_' | '{'),
                        _ => next == '$',
                    };
                    if is_variable {
                        return None;
                    }
                    text.push(letter);
                }
                '\\' => {
                    let (_, escaped) = letters.next()?;
                    match (is_plain, escaped) {
                        (_, '\\') => text.push('\\'),
                        (true, '\'') => text.push('\''),
                        (false, '"' | '$') => text.push(escaped),
                        (false, 'n') => text.push('\n'),
                        (false, 't') => text.push('\t'),
                        (false, 'r') => text.push('\r'),
                        // Numbers of letters: nobody writes them there.
                        (false, 'x' | 'u' | 'e' | 'f' | 'v' | '0'..='7') => return None,
                        (_, other) => text.extend(['\\', other]),
                    }
                }
                letter => text.push(letter),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn what_the_portal_writes_is_read() {
        let source = "<?\n$arOptions = array(\n\t\"A\" => \"/*\",\n\t\"~A\" => array(\n\t\t0 => \"'^/.*?\\$'\",\n\t\t\"k\" => \"v\",\n\t),\n\
                      \t\"EMPTY\" => \"\",\n\t\"Q\" => \"a\\\\b\\\"c\",\n);\n?>";
        let read = parse(source, "arOptions").expect("read");
        assert_eq!(read["A"], text("/*"));
        assert_eq!(read["~A"].texts(), ["'^/.*?$'", "v"]);
        assert_eq!(read["EMPTY"], text(""));
        assert_eq!(read["Q"], text("a\\b\"c"));
    }

    #[test]
    fn other_hands_may_write_it_otherwise() {
        let source =
            "<?php // by hand\n# so\n$o = [ 'a' => true, 'b' => 100, /* one */ 'c' => ['x', 'y',], 'd' => null ];";
        let read = parse(source, "o").expect("read");
        assert_eq!(
            (&read["a"], &read["b"], &read["d"]),
            (&text("1"), &text("100"), &text(""))
        );
        assert_eq!(read["c"].texts(), ["x", "y"]);
    }

    #[test]
    fn what_is_more_than_texts_is_not_read() {
        for source in [
            "",
            "<?",
            "<? $o = 1;",
            "<? $o = array(\"a\" => \"$b\");",
            "<? $o = array(\"a\" => \"{$b}\");",
            "<? $o = array(\"a\" => phpversion());",
            "<? $o = array(\"a\" => \"b\"); exit();",
            "<? $o = array(\"a\" => \"b\"",
            "<? $other = array();",
            "<? include 'x'; $o = array();",
            "<? $o = [[[[[[[[]]]]]]]];",
        ] {
            assert_eq!(parse(source, "o"), None, "{source}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(source in "(<\\? ?)?\\$o ?= ?[\\[\\]()\"'a-z\\\\$,=>é#/* ]{0,60}") {
            let _ = parse(&source, "o");
        }
    }
}
