//! Changes of the operator's file by a command: only the keys that differ, comments and everything else as they are. Pure.

use toml_edit::{DocumentMut, Item, Table, Value};

use super::{Loaded, Origin};

/// A key that will read otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// `section.key`.
    pub key: &'static str,
    /// As TOML.
    pub from: String,
    pub to: String,
    /// Whose value is replaced.
    pub origin: Origin,
}

/// The file with the wanted values, and what that changes. A value from the environment cannot be changed by the file: an error
/// says which. `text` is what `loaded` was read from.
pub fn edit(text: &str, loaded: &Loaded, wanted: Vec<(&'static str, Value)>) -> Result<(String, Vec<Edit>), String> {
    let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
    let mut edits = Vec::new();
    for (key, value) in wanted {
        let (now, origin) = loaded.keys.get(key).ok_or_else(|| format!("there is no key {key}"))?;
        let to = value.to_string();
        if now.trim() == to.trim() {
            continue;
        }
        if *origin == Origin::Environment {
            return Err(format!(
                "{key} is set to {now} by the environment, and must be {to}; unset it there"
            ));
        }
        let (section, name) = key.split_once('.').ok_or_else(|| format!("{key} has no section"))?;
        let section = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
        let table = section
            .as_table_like_mut()
            .ok_or_else(|| format!("the section of {key} is no table"))?;
        table.insert(name, Item::Value(value));
        edits.push(Edit {
            key,
            from: now.trim().to_string(),
            to,
            origin: origin.clone(),
        });
    }
    Ok((document.to_string(), edits))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn wanted() -> Vec<(&'static str, Value)> {
        vec![
            ("node.name", "n1".into()),
            ("cluster.address", "10.0.0.1".into()),
            ("db.run", false.into()),
        ]
    }

    #[test]
    fn only_what_differs_is_written_and_the_rest_stays_as_it_is() {
        let text = "# mine\n[node]\nname = \"n1\" # kept\n\n[cluster]\naddress = \"10.0.0.9\"\n";
        let loaded = parse(text, std::iter::empty()).unwrap();
        let (edited, edits) = edit(text, &loaded, wanted()).unwrap();
        let keys: Vec<_> = edits
            .iter()
            .map(|edit| (edit.key, edit.from.as_str(), edit.to.trim()))
            .collect();
        assert_eq!(
            keys,
            [
                ("cluster.address", "\"10.0.0.9\"", "\"10.0.0.1\""),
                ("db.run", "true", "false")
            ]
        );
        assert_eq!(edits[0].origin, Origin::File { line: 6 });
        assert!(edited.starts_with("# mine\n[node]\nname = \"n1\" # kept\n"), "{edited}");
        assert!(edited.contains("[db]\nrun = false\n"), "{edited}");
        // The file of a cluster must make sense as a whole.
        let whole = edited + "[storage]\nengine = \"replicated\"\n";
        let loaded = parse(&whole, std::iter::empty()).unwrap();
        assert_eq!(edit(&whole, &loaded, wanted()).unwrap().1, []);
        assert!(!loaded.config.db.run && loaded.config.cluster.address == "10.0.0.1");
    }

    #[test]
    fn what_the_environment_says_is_not_hidden() {
        let variable = ("BITRIX_NODE_NODE__NAME".to_string(), "other".to_string());
        let loaded = parse("", [variable].into_iter()).unwrap();
        let refused = edit("", &loaded, wanted()).unwrap_err();
        assert!(refused.contains("node.name") && refused.contains("unset"), "{refused}");
    }
}
