//! A message on its way: what a publisher gave, the id that it got, and its form in each dialect, made once for all who get it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::value::RawValue;

use super::channel::{Address, Id};
use super::frame::{self, Dialect, Framed};
use super::mid::Mid;
use super::refusal::Refusal;

/// Longest body, and longest request.
pub const BODY_MAX: usize = 1 << 20;
/// No message is kept for longer, in seconds.
pub const EXPIRY_MAX: u32 = 86_400;
/// What a message occupies besides its texts.
const OVERHEAD: usize = 400;
/// The text, and the form in which most clients of a portal take it.
const COPIES: usize = 2;

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The portal itself.
    Backend,
    /// A client, by its public id.
    Client(Id),
    /// A client of generation 5.
    User(u64),
}

/// JSON text that stands on one line and cannot be taken for a frame's border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(String);

/// Where a text frame begins and ends.
const BORDER: &str = "#!NGINXNM";
/// Where the `.` of a browser's regular expression stops.
const LINE_ENDS: [char; 4] = ['\n', '\r', '\u{2028}', '\u{2029}'];

impl Body {
    /// Refuses what is not one JSON value: it would break the frames that it is laid into.
    pub fn new(text: String) -> Result<Self, Refusal> {
        serde_json::from_str::<&RawValue>(&text).map_err(|_| Refusal::WrongData)?;
        if !text.contains(LINE_ENDS) && !text.contains(BORDER) {
            return Ok(Body(text));
        }
        // Outside strings JSON has none of these but ASCII line ends; inside, an escape means the same.
        let text = text
            .replace(['\n', '\r'], " ")
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029")
            .replace(BORDER, "\\u0023!NGINXNM");
        Ok(Body(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What generation 5 lets a message say differently to each user.
#[derive(Debug, Default)]
pub struct Extras {
    pub user_params: BTreeMap<u64, Box<RawValue>>,
    pub dictionary: Option<Box<RawValue>>,
}

/// What somebody wants to be told to others.
#[derive(Debug)]
pub struct Publication {
    pub receivers: Vec<Address>,
    pub sender: Sender,
    pub body: Body,
    /// Seconds for which it is kept for those who come back. 0: it reaches only who is there.
    pub expiry: u32,
    pub extras: Option<Arc<Extras>>,
}

/// A publication with its id.
#[derive(Debug)]
pub struct Message {
    pub mid: Mid,
    pub sender: Sender,
    pub body: Body,
    pub expiry: u32,
    pub extras: Option<Arc<Extras>>,
    /// Time since 1970, for people.
    pub created: Duration,
    frames: [OnceLock<Framed>; Dialect::ALL.len()],
}

impl Message {
    pub fn new(mid: Mid, created: Duration, publication: &Publication) -> Self {
        Message {
            mid,
            sender: publication.sender,
            body: publication.body.clone(),
            expiry: publication.expiry,
            extras: publication.extras.clone(),
            created,
            frames: Default::default(),
        }
    }

    /// Bytes that it is charged for while it is kept or waits: never less than it has on the wire to another hub.
    pub fn cost(&self) -> usize {
        let (of_users, of_all) = self.extras.as_ref().map_or((0, 0), |extras| {
            let of_users = extras.user_params.values().map(|text| text.get().len() + 64).sum();
            (of_users, extras.dictionary.as_ref().map_or(0, |text| text.get().len()))
        });
        OVERHEAD + COPIES * (self.body.as_str().len() + of_all) + of_users
    }

    /// As `user` shall see it in this dialect.
    pub fn frame(&self, dialect: Dialect, user: Option<u64>) -> Framed {
        let own = self.extras.as_ref().zip(user);
        let own = own.and_then(|(extras, user)| extras.user_params.get(&user));
        if dialect == Dialect::Rpc
            && let Some(own) = own
        {
            return Framed::new(dialect, frame::rpc::message(self, Some(own)).as_bytes());
        }
        let made = self.frames[dialect.index()].get_or_init(|| match dialect {
            Dialect::Text => Framed::new(dialect, frame::text::message(self).as_bytes()),
            Dialect::Protobuf => Framed::new(dialect, &frame::protobuf::message(self)),
            Dialect::Rpc => Framed::new(dialect, frame::rpc::message(self, None).as_bytes()),
        });
        made.clone()
    }
}

#[cfg(test)]
pub fn sample(body: &str) -> Message {
    let publication = Publication {
        receivers: Vec::new(),
        sender: Sender::Backend,
        body: Body::new(body.into()).expect("JSON"),
        expiry: 60,
        extras: None,
    };
    let mid = Mid::parse("17012345670000000000000042").expect("26 digits");
    Message::new(mid, Duration::from_millis(1_701_234_567_089), &publication)
}

/// To a user, with the longest dictionary.
#[cfg(test)]
pub fn with_dictionary(user: u64) -> Publication {
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(BODY_MAX));
    let extras = Extras {
        dictionary: Some(RawValue::from_string(text).expect("JSON")),
        ..Extras::default()
    };
    Publication {
        receivers: vec![Address::User(user)],
        sender: Sender::Backend,
        body: Body::new("{}".into()).expect("JSON"),
        expiry: 60,
        extras: Some(Arc::new(extras)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_one_json_value_on_one_line() {
        for bad in ["", "x", "{", "{}{}", "{} x", "\u{feff}{}", "{\"a\":\"\n\"}"] {
            assert_eq!(Body::new(bad.into()), Err(Refusal::WrongData), "{bad:?}");
        }
        let odd = "{\n\"a\":\"#!NGINXNME!#\u{2028}\"\r\n}";
        let body = Body::new(odd.into()).expect("JSON");
        assert!(!body.as_str().contains(LINE_ENDS) && !body.as_str().contains(BORDER));
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(read(body.as_str()), read(odd));
    }

    #[test]
    fn a_frame_is_made_once() {
        let message = sample("1");
        for dialect in Dialect::ALL {
            let (first, second) = (message.frame(dialect, None), message.frame(dialect, Some(7)));
            assert_eq!(first.websocket().as_ptr(), second.websocket().as_ptr());
        }
    }
}
