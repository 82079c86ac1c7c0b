//! Texts with `%{variable.key}` in them: parsed at load, expanded while a rule runs.

use super::variable::Variable;

/// A text whose parts are known or are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Lookup(Vec<Variable>, Option<String>),
}

impl Text {
    /// What names no variable stays as it is written.
    pub fn parse(text: &str) -> Text {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(start) = rest.find("%{") {
            literal.push_str(&rest[..start]);
            let inner = rest[start + 2..].split_once('}');
            let Some((lookup, (name, after))) = inner.and_then(|inner| Some((lookup(inner.0)?, inner))) else {
                literal.push_str("%{");
                rest = &rest[start + 2..];
                continue;
            };
            debug_assert!(!name.contains('}'));
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into_bytes()));
            }
            parts.push(lookup);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into_bytes()));
        }
        Text(parts)
    }

    /// The text, where nothing in it is looked up.
    pub fn constant(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// `look` appends the value of a variable, if it has one.
    pub fn expand(&self, mut look: impl FnMut(&[Variable], Option<&str>, &mut Vec<u8>)) -> Vec<u8> {
        let mut text = Vec::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.extend_from_slice(literal),
                Part::Lookup(variables, key) => look(variables, key.as_deref(), &mut text),
            }
        }
        text
    }
}

fn lookup(text: &str) -> Option<Part> {
    let (name, key) = match text.split_once(['.', ':']) {
        Some((name, key)) => (name, Some(key.to_ascii_lowercase())),
        None => (text, None),
    };
    Some(Part::Lookup(Variable::named(name)?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_looked_up_and_the_rest_stays() {
        let text = Text::parse("a %{tx.Score}%{nope}%{MATCHED_VAR}%{");
        let expanded = text.expand(|variables, key, text| {
            text.extend_from_slice(format!("<{:?} {key:?}>", variables[0]).as_bytes());
        });
        let expected = "a <Tx Some(\"score\")>%{nope}<MatchedVar None>%{";
        assert_eq!(String::from_utf8(expanded).unwrap(), expected);
        assert_eq!(text.constant(), None);
        assert_eq!(Text::parse("100%").constant(), Some(b"100%".as_slice()));
    }
}
