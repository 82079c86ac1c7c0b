//! Text with `{{name}}` in it, filled in strictly: every place must have its value and every value its place,
//! and no value may bring control bytes, so that a configuration file keeps the lines of its template.
//! Quoting is the caller's: each format has its own.

use std::path::Path;

use thiserror::Error;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("the template wants {{{{{0}}}}}, which is not given")]
    Missing(String),
    #[error("the template has no {{{{{0}}}}}")]
    Unused(String),
    #[error("the value of {0} holds a line break or another control character")]
    Control(String),
    #[error("the path {0:?} holds characters that configuration files cannot carry; use letters, digits and /._-")]
    Path(std::path::PathBuf),
}

/// Fills in `template`.
pub fn render(template: &str, values: &[(&str, &str)]) -> Result<String, Error> {
    if let Some((name, _)) = values.iter().find(|(_, value)| value.contains(char::is_control)) {
        return Err(Error::Control(name.to_string()));
    }
    let mut used = vec![false; values.len()];
    let mut text = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (name, after) = after
            .split_once(CLOSE)
            .ok_or_else(|| Error::Missing(after.chars().take(20).collect()))?;
        let place = values.iter().position(|(known, _)| *known == name);
        let place = place.ok_or_else(|| Error::Missing(name.to_string()))?;
        text.push_str(before);
        text.push_str(values[place].1);
        used[place] = true;
        rest = after;
    }
    text.push_str(rest);
    match used.iter().position(|used| !used) {
        Some(place) => Err(Error::Unused(values[place].0.to_string())),
        None => Ok(text),
    }
}

/// A path as it may stand in a configuration file of any format without quotes.
pub fn path(path: &Path) -> Result<&str, Error> {
    let plain = |text: &&str| {
        let mut bytes = text.bytes();
        !text.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
    };
    path.to_str()
        .filter(plain)
        .ok_or_else(|| Error::Path(path.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled() {
        let text = render("{{a}}={{b}}; {{a}}\n", &[("a", "x"), ("b", "{{a}}")]);
        assert_eq!(text.as_deref(), Ok("x={{a}}; x\n"), "a value is not read again");
        assert_eq!(render("none", &[]).as_deref(), Ok("none"));
    }

    #[test]
    fn place_without_value_and_value_without_place_are_refused() {
        assert_eq!(render("{{a}}", &[]), Err(Error::Missing("a".into())));
        assert_eq!(render("{{a", &[("a", "x")]), Err(Error::Missing("a".into())));
        assert_eq!(render("", &[("a", "x")]), Err(Error::Unused("a".into())));
        assert_eq!(
            Error::Missing("a".into()).to_string(),
            "the template wants {{a}}, which is not given"
        );
    }

    #[test]
    fn value_cannot_bring_lines() {
        for value in ["x\ny", "x\ry", "x\0", "\u{1b}[31m", "\u{85}"] {
            assert_eq!(render("{{a}}", &[("a", value)]), Err(Error::Control("a".into())));
        }
    }

    #[test]
    fn only_plain_paths_pass() {
        assert_eq!(path(Path::new("/var/lib/a-b_1.d")), Ok("/var/lib/a-b_1.d"));
        for bad in ["", "/a b", "/a;b", "/a\"b", "/a$b", "/a#b", "/a\nb", "/ä"] {
            assert!(path(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
