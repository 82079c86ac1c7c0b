//! Defaults, file, environment: in that order, each key by itself, so that every mistake is reported at once
//! with its key, its line and what to do. The only reader of environment variables.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml_edit::{Document, DocumentMut, Item, Table};

use super::{Config, check};

/// All keys with their defaults, commented.
pub const DEFAULTS: &str = include_str!("../../assets/config/bitrix-node.toml");

const ENVIRONMENT_PREFIX: &str = "BITRIX_NODE_";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { line: usize },
    Environment,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(out, "default"),
            Origin::File { line } => write!(out, "file, line {line}"),
            Origin::Environment => write!(out, "environment"),
        }
    }
}

/// One mistake in the configuration and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`; empty when the file as a whole cannot be read.
    pub key: String,
    pub origin: Origin,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.as_str()) {
            (Origin::File { line }, "") => write!(out, "line {line}: {}", self.message),
            (Origin::File { line }, key) => write!(out, "line {line}: {key}: {}", self.message),
            (Origin::Environment, key) => write!(out, "environment: {key}: {}", self.message),
            (Origin::Default, key) => write!(out, "{key}: {}", self.message),
        }
    }
}

/// A valid configuration with the story of each key.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// `section.key` → value as TOML, origin.
    pub keys: BTreeMap<String, (String, Origin)>,
}

/// Environment variable, for the few that are not configuration keys.
pub fn var(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods)]
    std::env::var(name).ok()
}

/// Reads the file (absent is fine when it is the default one) and the environment, and checks the result.
pub fn load(path: &Path, must_exist: bool) -> Result<Loaded, Vec<Problem>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => String::new(),
        Err(error) => {
            let message = format!(
                "cannot read {}: {error}; give another file with --config",
                path.display()
            );
            return Err(vec![Problem {
                key: String::new(),
                origin: Origin::Default,
                message,
            }]);
        }
    };
    read(&text)
}

/// Like `load`, from the text of a file.
pub fn read(text: &str) -> Result<Loaded, Vec<Problem>> {
    #[allow(clippy::disallowed_methods)]
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let value = value.into_string().ok()?;
        Some((name, value))
    });
    parse(text, environment)
}

/// Like `load`, from text and given variables. Pure.
pub fn parse(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Loaded, Vec<Problem>> {
    let mut merge = Merge::new();
    match Document::parse(text) {
        Ok(file) => merge.file(text, file.as_table()),
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            merge.problems.push(Problem {
                key: String::new(),
                origin: Origin::File { line },
                message: error.message().to_string(),
            });
        }
    }
    merge.environment(environment);
    merge.finish()
}

/// The defaults, on which accepted keys are laid one by one: a key is accepted when the whole still deserializes.
struct Merge {
    document: DocumentMut,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Merge {
    fn new() -> Self {
        let document: DocumentMut = DEFAULTS
            .parse()
            .expect("the embedded defaults are TOML; a test reads them");
        let origins = leaves(document.as_table())
            .map(|(key, _)| (key, Origin::Default))
            .collect();
        Merge {
            document,
            origins,
            problems: Vec::new(),
        }
    }

    fn file(&mut self, text: &str, table: &Table) {
        for (section, item) in table.iter() {
            let Some(keys) = item.as_table() else {
                let line = item.span().map_or(1, |span| line_of(text, span.start));
                self.reject(section, Origin::File { line }, self.unknown(section));
                continue;
            };
            for (key, item) in keys.iter() {
                let span = keys.key(key).and_then(|key| key.span()).or_else(|| item.span());
                let line = span
                    .or_else(|| first_table_span(item))
                    .map_or(1, |span| line_of(text, span.start));
                self.lay(&format!("{section}.{key}"), item.clone(), Origin::File { line });
            }
        }
    }

    fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let mut found: Vec<(String, String)> = variables
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_ascii_lowercase();
                // Names without `__` belong to the install script.
                key.contains("__").then(|| (key.replacen("__", ".", 1), value))
            })
            .collect();
        found.sort();
        for (key, value) in found {
            // A value is TOML where it can be (numbers, lists), else a string.
            let item = value
                .parse::<toml_edit::Value>()
                .map_or_else(|_| toml_edit::value(value.clone()), Item::Value);
            let as_text = toml_edit::value(value);
            if self.try_lay(&key, item, Origin::Environment).is_err() {
                self.lay(&key, as_text, Origin::Environment);
            }
        }
    }

    fn lay(&mut self, key: &str, item: Item, origin: Origin) {
        if let Err(message) = self.try_lay(key, item, origin.clone()) {
            self.reject(key, origin, message);
        }
    }

    fn try_lay(&mut self, key: &str, item: Item, origin: Origin) -> Result<(), String> {
        let Some((section, name)) = key.split_once('.').filter(|_| self.origins.contains_key(key)) else {
            return Err(self.unknown(key));
        };
        let mut trial = self.document.clone();
        trial[section][name] = item;
        match toml_edit::de::from_document::<Config>(trial.clone()) {
            Ok(_) => {
                self.document = trial;
                self.origins.insert(key.to_string(), origin);
                Ok(())
            }
            Err(error) => Err(error.message().to_string()),
        }
    }

    fn unknown(&self, key: &str) -> String {
        let near = self.origins.keys().map(|known| (distance(known, key), known)).min();
        match near {
            Some((steps, known)) if steps <= 3 => format!("unknown key; did you mean {known}?"),
            _ => "unknown key; `bitrix-node config show --default` lists all keys".to_string(),
        }
    }

    fn reject(&mut self, key: &str, origin: Origin, message: String) {
        self.problems.push(Problem {
            key: key.to_string(),
            origin,
            message,
        });
    }

    fn finish(mut self) -> Result<Loaded, Vec<Problem>> {
        let keys: BTreeMap<String, (String, Origin)> = leaves(self.document.as_table())
            .map(|(key, item)| {
                let origin = self.origins.get(&key).cloned().unwrap_or(Origin::Default);
                (key, (item.to_string().trim().to_string(), origin))
            })
            .collect();
        let config: Config = toml_edit::de::from_document(self.document).expect("each key was accepted by a trial");
        for (key, message) in check(&config) {
            let origin = keys.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
            self.problems.push(Problem {
                key: key.to_string(),
                origin,
                message,
            });
        }
        if self.problems.is_empty() {
            Ok(Loaded { config, keys })
        } else {
            Err(self.problems)
        }
    }
}

fn leaves(table: &Table) -> impl Iterator<Item = (String, &Item)> {
    table.iter().flat_map(|(section, item)| {
        let keys = item.as_table().into_iter().flat_map(|table| table.iter());
        keys.map(move |(key, item)| (format!("{section}.{key}"), item))
    })
}

fn first_table_span(item: &Item) -> Option<std::ops::Range<usize>> {
    item.as_array_of_tables()?.iter().next()?.span()
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Levenshtein distance, for "did you mean".
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = parse(text, std::iter::empty()).expect_err("has mistakes");
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_are_complete_and_valid() {
        let loaded = parse("", std::iter::empty()).expect("defaults are valid");
        assert_eq!(loaded.config.proxy.max_headers, 100);
        assert!(loaded.keys.values().all(|(_, origin)| *origin == Origin::Default));
    }

    #[test]
    fn every_default_key_has_a_comment_above() {
        let lines: Vec<&str> = DEFAULTS.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if line.starts_with('#') || line.starts_with('[') || !line.contains(" = ") {
                continue;
            }
            let block = lines[..index]
                .iter()
                .rev()
                .take_while(|line| !line.is_empty() && !line.starts_with('['));
            assert!(
                block.into_iter().any(|line| line.starts_with('#')),
                "no comment above: {line}"
            );
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_line_and_remedy() {
        let text = "[proxy]\nworker = 2\nmax_headers = \"many\"\nmax_body_size = \"1 GB\"\n\n[nodes]\nname = \"a\"\n";
        let found = problems(text);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(
            found[0],
            "line 2: proxy.worker: unknown key; did you mean proxy.workers?"
        );
        assert!(found[1].starts_with("line 3: proxy.max_headers: "), "{}", found[1]);
        assert!(
            found[2].starts_with("line 4: proxy.max_body_size: \"1 GB\" is not a size"),
            "{}",
            found[2]
        );
        assert_eq!(found[3], "line 7: nodes.name: unknown key; did you mean node.name?");
    }

    #[test]
    fn broken_toml_names_its_line() {
        assert!(problems("[node]\nname = \n")[0].starts_with("line 2: "));
    }

    #[test]
    fn environment_wins_over_the_file() {
        let variables = [
            ("BITRIX_NODE_PROXY__WORKERS", "3"),
            ("BITRIX_NODE_NODE__NAME", "7"),
            ("BITRIX_NODE_URL", "x"),
        ];
        let variables = variables.map(|(name, value)| (name.to_string(), value.to_string()));
        let loaded = parse("[proxy]\nworkers = 2\n", variables.into_iter()).expect("valid");
        assert_eq!(loaded.config.proxy.workers, 3);
        assert_eq!(loaded.config.node.name, "7", "a number is a fine string too");
        assert_eq!(loaded.keys["proxy.workers"].1, Origin::Environment);
    }

    #[test]
    fn rates_codings_and_proxies_are_refused_with_a_remedy() {
        for (line, key, remedy) in [
            (
                "limit_address = \"20\"",
                "proxy.limit_address",
                "write it like \"20/s, 200\"",
            ),
            ("compress = [\"deflate\"]", "proxy.compress", "expected one of"),
            ("compress = [\"gzip\", \"br\", \"gzip\"]", "proxy.compress", "twice"),
            ("trusted = [\"10.0.0\"]", "proxy.trusted", "invalid IP address"),
            (
                "trusted = [\"0.0.0.0/0\"]",
                "proxy.trusted",
                "list the proxies' own addresses",
            ),
            ("proxy_protocol = true", "proxy.proxy_protocol", "list them there"),
        ] {
            let found = problems(&format!("[proxy]\n{line}\n"));
            assert!(found[0].contains(key) && found[0].contains(remedy), "{line}: {found:?}");
        }
    }

    #[test]
    fn routes_are_a_list_of_tables() {
        let text = "[[proxy.routes]]\nprefix = \"/app/\"\nupstream = \"http://127.0.0.1:9000\"\n";
        let loaded = parse(text, std::iter::empty()).expect("valid");
        assert_eq!(loaded.config.proxy.routes[0].prefix, "/app/");
        let wrong = text.replace("prefix", "prefx");
        assert!(problems(&wrong)[0].contains("prefx"), "{:?}", problems(&wrong));
    }
}
