//! The operator's door, a unix socket: one line with a `Question`, one line of JSON with the answers of all nodes, then the connection
//! ends.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::question::{Answer, Question};

/// For a question, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// As long as an address may be.
const LONGEST: u64 = 32 << 10;

/// Answers one connection by what `ask` brings.
pub async fn serve<S>(stream: S, ask: impl AsyncFnOnce(&Question) -> Vec<Answer>) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    match timeout(PATIENCE, (&mut stream).take(LONGEST).read_line(&mut line)).await {
        Ok(read) => read?,
        Err(_) => return Ok(()),
    };
    let answer = match line.parse() {
        Ok(question) => json!({ "nodes": ask(&question).await }),
        Err(_) => json!({ "error": "there is no such question" }),
    };
    let written = timeout(PATIENCE, stream.write_all(format!("{answer}\n").as_bytes())).await;
    written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::edge::question::Said;

    #[tokio::test]
    async fn questions_are_answered_by_all_and_others_are_refused() {
        let ask = async |question: &Question| {
            let removed = u64::from(*question == Question::All);
            let answer = |node: &str| Answer {
                node: node.into(),
                said: Said::Removed { removed },
            };
            vec![answer("n1"), answer("n2")]
        };
        for (line, expected) in [
            (
                "purge all\n",
                json!({ "nodes": [{ "node": "n1", "removed": 1 }, { "node": "n2", "removed": 1 }] }),
            ),
            ("purge\n", json!({ "error": "there is no such question" })),
        ] {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(line.as_bytes()).await.expect("written");
            serve(server, ask).await.expect("served");
            let mut text = String::new();
            client.read_to_string(&mut text).await.expect("read");
            assert!(text.ends_with('\n'));
            let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(answer, expected, "{line}");
        }
    }
}
