//! A query as PHP reads it, as far as a page's name depends on it. Pure.

/// More than the portal's own links have; such a request is PHP's business.
const MOST: usize = 64;

/// Names and values, in order. `None`: PHP would make more of it than names and texts.
pub struct Query<'a> {
    raw: &'a str,
    /// Decoded; the name as a PHP variable has it.
    fields: Vec<(String, String)>,
}

impl<'a> Query<'a> {
    pub fn read(raw: &'a str) -> Option<Self> {
        let fields: Vec<(String, String)> = form_urlencoded::parse(raw.as_bytes())
            .take(MOST + 1)
            .map(|(name, value)| (variable(&name), value.into_owned()))
            .collect();
        // What is not UTF-8 was replaced on reading, and is not what PHP sees.
        let is_plain = |text: &String| !text.contains('\u{fffd}');
        let all_plain = fields.iter().all(|(name, value)| is_plain(name) && is_plain(value));
        (fields.len() <= MOST && all_plain).then_some(Query { raw, fields })
    }

    /// Whether there is a parameter of this name, or an array of it.
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(known, _)| base(known) == name)
    }

    /// The query as it is part of a page's name: without what is ignored, and then written anew. `None`: arrays, which are
    /// written in PHP's own way.
    pub fn without(&self, ignored: &[String]) -> Option<String> {
        if self.fields.is_empty() || ignored.is_empty() {
            return Some(self.raw.to_string());
        }
        let mut left: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.fields {
            if name.is_empty() {
                // PHP forgets it.
                continue;
            }
            if name.contains(['[', ']']) {
                return None;
            }
            // An array's key that is a number is no text any more.
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            match left.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = value,
                None => left.push((name, value)),
            }
        }
        left.retain(|(name, _)| !ignored.iter().any(|ignored| ignored.eq_ignore_ascii_case(name)));
        let fields: Vec<String> = left
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        Some(fields.join("&"))
    }

    /// Whether all parameters but the ignored ones are among these.
    pub fn is_within(&self, only: &[String], ignored: &[String]) -> bool {
        let mut names = self.fields.iter().map(|(name, _)| base(name));
        names.all(|name| {
            let is_ignored = ignored.iter().any(|ignored| ignored.eq_ignore_ascii_case(name));
            is_ignored || only.iter().any(|only| only == name)
        })
    }
}

/// A name as PHP makes a variable of it.
pub fn variable(name: &str) -> String {
    let name = name.trim_start_matches(' ');
    let end = name.find('[').unwrap_or(name.len());
    let (base, rest) = name.split_at(end);
    format!("{}{rest}", base.replace(['.', ' '], "_"))
}

fn base(name: &str) -> &str {
    name.split('[').next().unwrap_or_default()
}

/// As PHP's `http_build_query` writes it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b' ' => out.push('+'),
            _ if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(raw: &str) -> Option<String> {
        Query::read(raw)?.without(&["utm_source".into(), "from".into()])
    }

    #[test]
    fn names_are_those_of_php() {
        // Compared with PHP 8.2: parse_str and http_build_query.
        for (raw, expected) in [
            ("", Some("")),
            ("a=1&b=2", Some("a=1&b=2")),
            ("a=1&utm_source=x&b=2", Some("a=1&b=2")),
            ("UTM_Source=x", Some("")),
            ("a", Some("a=")),
            ("a=1&a=2", Some("a=2")),
            ("a=x%20y~*", Some("a=x+y%7E%2A")),
            ("a.b=1", Some("a_b=1")),
            ("q=%D1%84", Some("q=%D1%84")),
            ("=1&a=2", Some("a=2")),
            ("a[]=1", None),
            ("7=1", None),
            ("a=%ff", None),
        ] {
            assert_eq!(without(raw).as_deref(), expected, "{raw}");
        }
        let many = "a=1&".repeat(MOST + 1);
        assert_eq!(without(&many), None);
    }

    #[test]
    fn parameters_are_found_in_every_form() {
        for raw in ["ncc", "ncc=1", "a=1&ncc[]=2", "%6ecc=1", " ncc=", "ncc[x]=1"] {
            assert!(Query::read(raw).is_some_and(|query| query.has("ncc")), "{raw}");
        }
        assert!(Query::read("ncco=1").is_some_and(|query| !query.has("ncc")));
        let only = ["id".to_string()];
        for (raw, expected) in [("", true), ("id=1&from=x", true), ("id[]=1", true), ("x=1", false)] {
            let query = Query::read(raw).expect("plain");
            assert_eq!(query.is_within(&only, &["from".into()]), expected, "{raw}");
        }
    }
}
