//! What a front's cache is asked, by an operator or by another front, in one line of text; and what it answers. Codec, no I/O.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::store::Counts;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What is kept, and how often it served.
    Status,
    /// Remove what lies at addresses that begin so.
    Prefix(String),
    /// Remove what its maker named so.
    Tag(String),
    All,
}

/// There is no such question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl FromStr for Question {
    type Err = Unknown;

    fn from_str(line: &str) -> Result<Self, Unknown> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match *words.as_slice() {
            ["status"] => Ok(Question::Status),
            ["purge", "prefix", prefix] => Ok(Question::Prefix(prefix.into())),
            ["purge", "tag", tag] => Ok(Question::Tag(tag.into())),
            ["purge", "all"] => Ok(Question::All),
            _ => Err(Unknown),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Status => f.write_str("status"),
            Question::Prefix(prefix) => write!(f, "purge prefix {prefix}"),
            Question::Tag(tag) => write!(f, "purge tag {tag}"),
            Question::All => f.write_str("purge all"),
        }
    }
}

/// What one front says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    Removed {
        removed: u64,
    },
    /// Without `counts` nothing is kept there.
    Kept {
        is_on: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        counts: Option<Counts>,
    },
    /// It did not answer, and why.
    Failed {
        error: String,
    },
}

/// What the front of one node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub node: String,
    #[serde(flatten)]
    pub said: Said,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_as_they_are_written() {
        for line in ["status", "purge prefix /news/", "purge tag a", "purge all"] {
            let question: Question = line.parse().expect("known");
            assert_eq!(question.to_string(), line);
        }
        for line in [
            "",
            "purge",
            "purge prefix",
            "purge prefix a b",
            "purge everything",
            "status all",
        ] {
            assert_eq!(line.parse::<Question>(), Err(Unknown), "{line}");
        }
    }

    #[test]
    fn answers_are_read_as_they_are_written() {
        let counts = Counts {
            addresses: 1,
            bytes: 2,
            capacity: 3,
            hits: 4,
            misses: 5,
            sent: 6,
            purged: 7,
        };
        for (said, part) in [
            (Said::Removed { removed: 3 }, r#""removed":3"#),
            (
                Said::Kept {
                    is_on: false,
                    counts: None,
                },
                r#""is_on":false"#,
            ),
            (
                Said::Kept {
                    is_on: true,
                    counts: Some(counts),
                },
                r#""hits":4"#,
            ),
            (Said::Failed { error: "away".into() }, r#""error":"away""#),
        ] {
            let answer = Answer {
                node: "n1".into(),
                said,
            };
            let text = serde_json::to_string(&answer).expect("plain data");
            assert!(text.contains(part) && text.contains(r#""node":"n1""#), "{text}");
            assert_eq!(serde_json::from_str::<Answer>(&text).expect("ours"), answer);
        }
    }
}
