//! The operator's door, a unix socket: one line is asked, one line of JSON is answered, then the connection ends.
//!
//! - `status`: what is kept, and how often it served.
//! - `purge prefix TEXT`, `purge tag TEXT`, `purge all`: removes it on this node. What other nodes keep is asked of them by whoever asks here.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::Edge;

/// For a question, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// As long as an address may be.
const LONGEST: u64 = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
enum Question<'a> {
    Status,
    Prefix(&'a str),
    Tag(&'a str),
    All,
}

impl<'a> Question<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match *words.as_slice() {
            ["status"] => Some(Question::Status),
            ["purge", "prefix", prefix] => Some(Question::Prefix(prefix)),
            ["purge", "tag", tag] => Some(Question::Tag(tag)),
            ["purge", "all"] => Some(Question::All),
            _ => None,
        }
    }
}

/// Answers one connection. `edge`: `None` where nothing is kept.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, edge: Option<&Edge>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    match timeout(PATIENCE, (&mut stream).take(LONGEST).read_line(&mut line)).await {
        Ok(read) => read?,
        Err(_) => return Ok(()),
    };
    let answer = answer(&line, edge);
    let written = timeout(PATIENCE, stream.write_all(format!("{answer}\n").as_bytes())).await;
    written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

fn answer(line: &str, edge: Option<&Edge>) -> serde_json::Value {
    let Some(question) = Question::parse(line) else {
        return json!({ "error": "there is no such question" });
    };
    let Some(edge) = edge else {
        return match question {
            Question::Status => json!({ "is_on": false }),
            _ => json!({ "removed": 0 }),
        };
    };
    match question {
        Question::Status => json!({ "is_on": true, "counts": edge.counts() }),
        Question::Prefix(prefix) => json!({ "removed": edge.purge_prefix(prefix) }),
        Question::Tag(tag) => json!({ "removed": edge.purge_tag(tag) }),
        Question::All => json!({ "removed": edge.purge_prefix("") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_are_answered() {
        let edge = Edge::new(1 << 20, 1 << 10);
        for (edge, line, part) in [
            (Some(&edge), "status\n", "\"is_on\":true"),
            (None, "status\n", "\"is_on\":false"),
            (Some(&edge), "purge prefix /news/\n", "\"removed\":0"),
            (Some(&edge), "purge tag a\n", "\"removed\":0"),
            (Some(&edge), "purge all\n", "\"removed\":0"),
            (Some(&edge), "purge\n", "no such question"),
        ] {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(line.as_bytes()).await.expect("written");
            serve(server, edge).await.expect("served");
            let mut text = String::new();
            client.read_to_string(&mut text).await.expect("read");
            assert!(text.contains(part) && text.ends_with('\n'), "{line}: {text}");
        }
    }
}
