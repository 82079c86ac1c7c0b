//! `@pm` and `@pmFromFile`: one of many phrases, whatever its case.

use std::fs;
use std::path::{Component, Path};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::Captures;

#[derive(Debug)]
pub struct Phrases {
    texts: Vec<Vec<u8>>,
    automaton: AhoCorasick,
}

impl Phrases {
    /// Words with blanks between; `|41 42|` within one are bytes.
    pub fn listed(text: &str) -> Result<Phrases, String> {
        let words = text.split_whitespace().map(|word| word.as_bytes().to_vec());
        Phrases::new(words.collect())
    }

    pub fn read(names: &str, folder: &Path) -> Result<Phrases, String> {
        let mut all = Vec::new();
        for name in names.split_whitespace() {
            all.extend(lines(name, folder)?.into_iter().map(String::into_bytes));
        }
        Phrases::new(all)
    }

    fn new(texts: Vec<Vec<u8>>) -> Result<Phrases, String> {
        if texts.iter().any(Vec::is_empty) || texts.is_empty() {
            return Err("an empty phrase is in every value".to_string());
        }
        // The small kind: many lists together must leave the processor's cache to others.
        let mut builder = AhoCorasick::builder();
        builder
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest);
        let automaton = builder.kind(Some(AhoCorasickKind::ContiguousNFA)).build(&texts);
        let automaton = automaton.map_err(|error| format!("the phrases: {error}"))?;
        Ok(Phrases { texts, automaton })
    }

    pub fn holds(&self, value: &[u8], captures: Option<&mut Captures>) -> bool {
        let Some(found) = self.automaton.find(value) else {
            return false;
        };
        if let Some(captures) = captures {
            *captures = vec![value[found.range()].to_vec()];
        }
        true
    }

    pub fn texts(&self) -> &[Vec<u8>] {
        &self.texts
    }
}

/// The lines of a file beside the rules; empty ones and comments are dropped.
pub fn lines(name: &str, folder: &Path) -> Result<Vec<String>, String> {
    let is_inside = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_inside {
        return Err(format!("{name} is not in the folder of the rules"));
    }
    let path = folder.join(name);
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().map(str::trim);
    let kept = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(kept.map(str::to_string).collect())
}
