//! `ARGS|!ARGS:x|&REQUEST_HEADERS:/^x-/` to targets.

use regex::bytes::{Regex, RegexBuilder};

use super::line::unquote;
use crate::proxy::waf::variable::{Selector, Target, Targets, Variable};

pub fn parse(text: &str) -> Result<Targets, String> {
    let mut targets = Targets::default();
    for part in parts(text) {
        let (is_exclusion, part) = strip(part, '!');
        let (is_count, part) = strip(part, '&');
        let (name, selector) = match part.split_once(':') {
            Some((name, selector)) => (name, Some(selector)),
            None => (part, None),
        };
        let variables = Variable::named(name).ok_or_else(|| format!("no variable {name}"))?;
        let selector = selector.map_or(Ok(Selector::All), parse_selector)?;
        for variable in variables {
            if !variable.has_keys() && !matches!(selector, Selector::All) {
                return Err(format!("{name} has no keys to select from"));
            }
            let selector = selector.clone();
            let target = Target {
                variable,
                selector,
                is_count,
            };
            match is_exclusion {
                true => targets.exclude.push(target),
                false => targets.include.push(target),
            }
        }
    }
    Ok(targets)
}

fn strip(text: &str, mark: char) -> (bool, &str) {
    let text = text.trim();
    text.strip_prefix(mark).map_or((false, text), |rest| (true, rest))
}

/// Parts between bars and, as older rules write, commas; a bar within a pattern parts nothing.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let bar = rest.find(['|', ',']).unwrap_or(rest.len());
        let pattern = rest.find(":/").map(|at| (at, "/")).into_iter();
        let pattern = pattern.chain(rest.find(":'/").map(|at| (at, "/'"))).min();
        let end = match pattern {
            // XML's selectors are paths.
            Some((at, close)) if at < bar && !rest[..at].ends_with("XML") => {
                let start = at + 1 + close.len();
                let mut ends = rest[start..]
                    .match_indices(close)
                    .map(|(end, _)| start + end + close.len());
                let closed = ends.find(|end| matches!(rest.as_bytes().get(*end), None | Some(b'|' | b',')));
                closed.unwrap_or(rest.len())
            }
            _ => bar,
        };
        parts.push(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or("");
    }
    parts
}

fn parse_selector(text: &str) -> Result<Selector, String> {
    let text = unquote(text);
    let inner = text.strip_prefix('/').and_then(|text| text.strip_suffix('/'));
    match inner {
        Some(pattern) if !pattern.is_empty() => Ok(Selector::Pattern(key_pattern(pattern)?)),
        _ => Ok(Selector::Key(text.to_ascii_lowercase())),
    }
}

fn key_pattern(pattern: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).case_insensitive(true).dot_matches_new_line(true);
    builder
        .build()
        .map_err(|error| format!("the pattern of a selector: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_targets() {
        let targets = parse("ARGS|!REQUEST_COOKIES:/__utm|x/|&REQUEST_HEADERS:Host|XML:/*|TX:'/^WEB/'").unwrap();
        assert_eq!(targets.include.len(), 5);
        assert!(targets.exclude[0].covers(Variable::RequestCookies, b"a__UTMz"));
        assert!(targets.include[2].is_count);
        assert!(targets.include[3].covers(Variable::Xml, b"/*"));
        assert!(targets.include[4].covers(Variable::Tx, b"web_attack"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse("ARGZ").is_err());
        assert!(parse("REQUEST_METHOD:x").is_err());
        assert!(parse("ARGS:/(/").is_err());
    }
}
