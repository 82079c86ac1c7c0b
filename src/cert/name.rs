//! Names that certificates are for.

/// Names of one entry, in the form that is compared: lower case, each once, the first stays first.
pub fn normal(names: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The same names in any order have the same key. Names of settings are shorter than names of hosts can be.
pub fn key(names: &[String]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let hash = blake3::hash(sorted.join("\0").as_bytes());
    data_encoding::HEXLOWER.encode(hash.as_bytes().get(..8).unwrap_or_default())
}

/// Whether a certificate with the names `held` is one for `name`. A wildcard stands for one label.
pub fn is_covered(held: &[String], name: &str) -> bool {
    let has = |wanted: &str| held.iter().any(|held| held.eq_ignore_ascii_case(wanted));
    has(name)
        || name
            .split_once('.')
            .is_some_and(|(_, parent)| has(&format!("*.{parent}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_set_in_any_order_and_case() {
        let names = normal(["B.Example.", "a.example", "b.example", ""]);
        assert_eq!(names, ["b.example", "a.example"]);
        assert_eq!(key(&names), key(&normal(["a.example", "b.example"])));
        assert_ne!(key(&names), key(&normal(["a.example"])));
        assert_eq!(key(&names).len(), 16);
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let held = ["*.a.example".to_string(), "b.example".to_string()];
        assert!(is_covered(&held, "x.a.example") && is_covered(&held, "b.example"));
        assert!(!is_covered(&held, "x.y.a.example") && !is_covered(&held, "a.example"));
    }
}
