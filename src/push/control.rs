//! The operator's door, a unix socket: one line is asked, lines are answered, then the connection ends.
//!
//! - `numbers`: the module's numbers as OpenMetrics text.
//! - `channels`: a JSON object for each address that somebody listens to.
//! - `tail [bodies] [ADDRESS]`: a JSON object for each message from now on, until the asker goes.
//!
//! Whoever knows a private channel's id could be mistaken for its owner: only its beginning is shown, and it is asked for by that.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tracing::debug;

use super::channel::Address;
use super::desk::Desk;
use super::message::{Message, Sender};
use super::tap::Told;
use crate::base::Scope;

/// For a question, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: u64 = 256;
/// Digits of a private id that are shown.
const SHOWN: usize = 8;

#[derive(Debug, PartialEq, Eq)]
enum Question<'a> {
    Numbers,
    Channels,
    Tail { of: Option<&'a str>, bodies: bool },
}

impl<'a> Question<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match *words.as_slice() {
            ["numbers"] => Some(Question::Numbers),
            ["channels"] => Some(Question::Channels),
            ["tail"] => Some(Question::Tail {
                of: None,
                bodies: false,
            }),
            ["tail", "bodies"] => Some(Question::Tail { of: None, bodies: true }),
            ["tail", "bodies", of] => Some(Question::Tail {
                of: Some(of),
                bodies: true,
            }),
            ["tail", of] => Some(Question::Tail {
                of: Some(of),
                bodies: false,
            }),
            _ => None,
        }
    }
}

/// Somebody listens there.
#[derive(Serialize)]
struct Listened {
    channel: String,
    connections: usize,
}

/// A message as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    mid: String,
    /// Unix milliseconds.
    time: u64,
    sender: String,
    channels: Vec<String>,
    /// What the portal calls it: module and command.
    what: String,
    bytes: usize,
    expiry: u32,
    reached: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
}

/// Answers one connection.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, desk: Arc<Desk>, scope: Scope) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let asked = timeout(PATIENCE, (&mut stream).take(LONGEST).read_line(&mut line)).await;
    if !matches!(asked, Ok(Ok(_))) {
        return;
    }
    let answered = match Question::parse(&line) {
        Some(Question::Numbers) => write(&mut stream, &desk.metrics.encode(desk.hub.numbers())).await,
        Some(Question::Channels) => write(&mut stream, &channels(&desk)).await,
        Some(Question::Tail { of, bodies }) => tail(&mut stream, &desk, &scope, of, bodies).await,
        None => write(&mut stream, "{\"error\":\"there is no such question\"}\n").await,
    };
    if let Err(error) = answered {
        debug!(%error, "an operator's connection broke off");
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, text: &str) -> std::io::Result<()> {
    match timeout(PATIENCE, stream.write_all(text.as_bytes())).await {
        Ok(written) => written,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

fn channels(desk: &Desk) -> String {
    let listened = desk.hub.listened().into_iter().map(|(address, connections)| Listened {
        channel: shown(address),
        connections,
    });
    listened.map(|one| line(&one)).collect()
}

async fn tail<S>(stream: &mut S, desk: &Desk, scope: &Scope, of: Option<&str>, bodies: bool) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut tap = desk.hub.follow();
    loop {
        let mut more = [0; 64];
        let told = tokio::select! {
            () = scope.draining() => return Ok(()),
            // It says nothing more, and ends when it has seen enough.
            read = stream.read(&mut more) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
            told = tap.recv() => told,
        };
        match told {
            Ok(told) if of.is_none_or(|of| told.receivers.iter().any(|address| is_named(*address, of))) => {
                write(stream, &line(&show(&told, bodies))).await?;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => write(stream, &format!("{{\"missed\":{missed}}}\n")).await?,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

fn show(told: &Told, bodies: bool) -> Shown<'_> {
    let message: &Message = &told.message;
    let mut channels: Vec<String> = told.receivers.iter().map(|address| shown(*address)).collect();
    channels.sort();
    channels.dedup();
    Shown {
        mid: message.mid.to_string(),
        time: u64::try_from(message.created.as_millis()).unwrap_or(u64::MAX),
        sender: match message.sender {
            Sender::Backend => "portal".into(),
            Sender::Client(id) => format!("public:{id}"),
            Sender::User(user) => format!("user:{user}"),
        },
        channels,
        what: what(message.body.as_str()),
        bytes: message.body.as_str().len(),
        expiry: message.expiry,
        reached: told.reached,
        body: match bodies {
            true => serde_json::from_str(message.body.as_str()).ok(),
            false => None,
        },
    }
}

/// `module.command` of a body that has them.
fn what(body: &str) -> String {
    #[derive(Deserialize)]
    struct Named {
        module_id: String,
        command: String,
    }
    match serde_json::from_str::<Named>(body) {
        Ok(named) => format!("{}.{}", named.module_id, named.command),
        Err(_) => "-".into(),
    }
}

/// An address for an operator's eyes.
fn shown(address: Address) -> String {
    match address {
        Address::Private(id) => format!("private:{}…", &id.to_string()[..SHOWN]),
        Address::Public(id) => format!("public:{id}"),
        Address::User(user) => format!("user:{user}"),
    }
}

/// Whether somebody means this address: `user:7`, an id with or without its kind, or the beginning of one.
fn is_named(address: Address, word: &str) -> bool {
    let word = word.trim_end_matches('…');
    let (kind, name) = match address {
        Address::Private(id) => ("private", id.to_string()),
        Address::Public(id) => ("public", id.to_string()),
        Address::User(user) => return word.strip_prefix("user:") == Some(&user.to_string()),
    };
    let word = word
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix(':'))
        .unwrap_or(word);
    word.len() >= SHOWN && name.starts_with(word)
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own structures have a form in JSON") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::channel::Id;

    #[test]
    fn questions_are_read() {
        for (line, question) in [
            ("numbers\n", Some(Question::Numbers)),
            (
                "tail",
                Some(Question::Tail {
                    of: None,
                    bodies: false,
                }),
            ),
            (
                "tail bodies user:7\r\n",
                Some(Question::Tail {
                    of: Some("user:7"),
                    bodies: true,
                }),
            ),
            ("", None),
            ("tail a b c", None),
        ] {
            assert_eq!(Question::parse(line), question, "{line:?}");
        }
    }

    #[test]
    fn a_private_id_is_not_shown_and_can_be_asked_for() {
        let id = Id::parse("0123456789abcdef0123456789abcdef").expect("an id");
        assert_eq!(shown(Address::Private(id)), "private:01234567…");
        for word in ["private:01234567…", "0123456789abcdef0123456789abcdef", "01234567"] {
            assert!(is_named(Address::Private(id), word), "{word}");
        }
        assert!(!is_named(Address::Public(id), "private:01234567…"));
        assert!(!is_named(Address::Private(id), "0123456"), "too little to mean one");
        assert!(is_named(Address::User(7), "user:7") && !is_named(Address::User(77), "user:7"));
    }

    #[test]
    fn a_body_tells_what_it_is() {
        assert_eq!(what(r#"{"command":"chat","module_id":"im","params":{}}"#), "im.chat");
        assert_eq!(what("[1]"), "-");
    }
}
