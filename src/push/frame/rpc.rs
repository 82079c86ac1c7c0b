//! Generation 5: JSON-RPC 2.0 in text. Messages are requests of the server that nobody answers; clients say `mack:<mid>` instead.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::protobuf::kind;
use crate::push::channel;
use crate::push::channel::Id;
use crate::push::message::{Message, Sender};

/// Requests in one batch.
pub const BATCH: usize = 100;

/// JSON-RPC 2.0 §5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Parse = -32700,
    Request = -32600,
    Method = -32601,
    Params = -32602,
    /// Of the server's own: no hub orders messages just now.
    Unavailable = -32000,
}

impl Fault {
    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Parse => "rpc_parse",
            Fault::Request => "rpc_request",
            Fault::Method => "rpc_method",
            Fault::Params => "rpc_params",
            Fault::Unavailable => "unavailable",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Fault::Parse => "Parse error",
            Fault::Request => "Invalid Request",
            Fault::Method => "Method not found",
            Fault::Params => "Invalid params",
            Fault::Unavailable => "Try again later",
        }
    }
}

/// A call; one without an id wants no answer.
#[derive(Debug, Deserialize)]
pub struct Call<'a> {
    pub jsonrpc: &'a str,
    pub method: &'a str,
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
}

/// One call or several.
pub struct Calls<'a> {
    pub calls: Vec<Result<Call<'a>, Fault>>,
    /// Its answers stand in a list.
    pub is_batch: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    #[serde(default)]
    pub user_list: Vec<Number>,
    #[serde(default)]
    pub channel_list: Vec<Receiver>,
    pub body: Box<RawValue>,
    #[serde(default)]
    pub expiry: Option<u32>,
    #[serde(default, rename = "user_params")]
    user_params: Option<Box<RawValue>>,
    #[serde(default)]
    dictionary: Option<Box<RawValue>>,
}

impl Publish {
    /// What is said to single users.
    pub fn user_params(&self) -> Result<BTreeMap<u64, Box<RawValue>>, Fault> {
        let Some(params) = object(self.user_params.as_deref()) else {
            return Ok(BTreeMap::new());
        };
        let params: BTreeMap<String, Box<RawValue>> = serde_json::from_str(params.get()).map_err(|_| Fault::Params)?;
        let params = params.into_iter();
        params
            .map(|(user, params)| Ok((user.parse().map_err(|_| Fault::Params)?, params)))
            .collect()
    }

    pub fn dictionary(&self) -> Option<Box<RawValue>> {
        object(self.dictionary.as_deref()).map(ToOwned::to_owned)
    }
}

/// PHP writes an empty object as an empty list.
fn object(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get().starts_with('{'))
}

/// PHP writes numbers as it has them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    pub fn get(&self) -> Option<u64> {
        match self {
            Number::Number(number) => Some(*number),
            Number::Text(text) => text.parse().ok(),
        }
    }
}

/// A channel id alone, `pub.sig`, or the two apart.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Receiver {
    Text(String),
    #[serde(rename_all = "camelCase")]
    Apart {
        public_id: String,
        signature: String,
    },
}

impl Receiver {
    /// As what the portal itself names: an id.
    pub fn id(&self) -> Option<Id> {
        match self {
            Receiver::Text(text) => Id::parse(text),
            Receiver::Apart { public_id, .. } => Id::parse(public_id),
        }
    }

    pub fn signed(&self) -> Option<(Id, Vec<u8>)> {
        let (public, signature) = match self {
            Receiver::Text(text) => text.split_once('.')?,
            Receiver::Apart { public_id, signature } => (public_id.as_str(), signature.as_str()),
        };
        channel::receiver(public, signature)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserList {
    pub user_list: Vec<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserId {
    pub user_id: Number,
}

/// The calls of a text.
pub fn calls(text: &str) -> Result<Calls<'_>, Fault> {
    if text.trim_start().starts_with('[') {
        let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Fault::Parse)?;
        if parts.is_empty() || parts.len() > BATCH {
            return Err(Fault::Request);
        }
        let calls = parts.into_iter().map(|part| call(part.get())).collect();
        return Ok(Calls { calls, is_batch: true });
    }
    serde_json::from_str::<&RawValue>(text).map_err(|_| Fault::Parse)?;
    let calls = vec![call(text)];
    Ok(Calls { calls, is_batch: false })
}

fn call(text: &str) -> Result<Call<'_>, Fault> {
    let call: Call = serde_json::from_str(text).map_err(|_| Fault::Request)?;
    if call.jsonrpc == "2.0" {
        Ok(call)
    } else {
        Err(Fault::Request)
    }
}

/// The parameters of a call.
pub fn params<'a, T: Deserialize<'a>>(call: &Call<'a>) -> Result<T, Fault> {
    let params = call.params.ok_or(Fault::Params)?;
    serde_json::from_str(params.get()).map_err(|_| Fault::Params)
}

pub fn result(id: &RawValue, result: &impl Serialize) -> String {
    let result = serde_json::to_string(result).expect("our own structures have a form in JSON");
    format!("{{\"jsonrpc\":\"2.0\",\"result\":{result},\"id\":{}}}", id.get())
}

/// `id`: `None` when the request was too broken to have one.
pub fn fault(id: Option<&RawValue>, fault: Fault) -> String {
    let id = id.map_or("null", RawValue::get);
    let (code, text) = (fault as i32, fault.text());
    format!("{{\"jsonrpc\":\"2.0\",\"error\":{{\"code\":{code},\"message\":\"{text}\"}},\"id\":{id}}}")
}

/// One message; `own`: what it says to this user alone.
pub fn message(message: &Message, own: Option<&RawValue>) -> String {
    let mut text = format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"incoming.message\",\"params\":{{\"mid\":\"{}\",\"body\":{},\"sender\":{{\"type\":{}",
        message.mid,
        message.body.as_str(),
        kind(message.sender),
    );
    let written = match message.sender {
        Sender::Backend => Ok(()),
        Sender::Client(id) => write!(text, ",\"id\":\"{id}\""),
        Sender::User(id) => write!(text, ",\"id\":{id}"),
    };
    written.expect("a string takes everything");
    text.push('}');
    let dictionary = message.extras.as_ref().and_then(|extras| extras.dictionary.as_deref());
    for (name, value) in [("user_params", own), ("dictionary", dictionary)] {
        if let Some(value) = value {
            write!(text, ",\"{name}\":{}", value.get()).expect("a string takes everything");
        }
    }
    text.push_str("}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::message::sample;
    use serde_json::{Value, json};

    fn value(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn a_message_is_a_request_without_an_id() {
        let own = RawValue::from_string("{\"b\":2}".into()).expect("JSON");
        let text = message(&sample(r#"{"a":1}"#), Some(&own));
        let params = json!({"mid": "17012345670000000000000042", "body": {"a": 1}, "sender": {"type": 2}, "user_params": {"b": 2}});
        assert_eq!(
            value(&text),
            json!({"jsonrpc": "2.0", "method": "incoming.message", "params": params})
        );
    }

    #[test]
    fn single_calls_and_batches_are_read() {
        let one = calls(r#" {"jsonrpc":"2.0","method":"ping","params":{},"id":1}"#).expect("a call");
        assert!(!one.is_batch);
        let call = one.calls[0].as_ref().expect("well formed");
        assert_eq!((call.method, call.id.expect("an id").get()), ("ping", "1"));
        let two = calls(r#" [{"jsonrpc":"2.0","method":"a"},7]"#).expect("a batch");
        assert!(two.is_batch && two.calls[0].is_ok());
        assert_eq!(two.calls[1].as_ref().err(), Some(&Fault::Request));
        for (text, fault) in [
            ("", Fault::Parse),
            ("{", Fault::Parse),
            ("[", Fault::Parse),
            ("[]", Fault::Request),
        ] {
            assert_eq!(calls(text).err(), Some(fault), "{text}");
        }
        for text in [
            "7",
            "{}",
            r#"{"jsonrpc":"1.0","method":"a"}"#,
            r#"{"jsonrpc":"2.0","method":7}"#,
        ] {
            let read = calls(text).expect("JSON");
            assert_eq!(read.calls[0].as_ref().err(), Some(&Fault::Request), "{text}");
        }
        let many = format!("[{}1]", "1,".repeat(BATCH));
        assert_eq!(calls(&many).err(), Some(Fault::Request));
    }

    #[test]
    fn receivers_come_in_three_forms() {
        let public = "fedcba9876543210fedcba9876543210";
        let text = format!(
            r#"{{"userList":["3",4],"channelList":["{public}","{public}.00ff",{{"publicId":"{public}","signature":"00ff"}}],"body":{{}},"expiry":5}}"#
        );
        let publish: Publish = serde_json::from_str(&text).expect("well formed");
        assert_eq!(
            publish.user_list.iter().filter_map(Number::get).collect::<Vec<_>>(),
            [3, 4]
        );
        assert!(publish.channel_list[0].id().is_some() && publish.channel_list[0].signed().is_none());
        for signed in &publish.channel_list[1..] {
            assert_eq!(signed.signed(), Id::parse(public).map(|id| (id, vec![0, 0xff])));
        }
    }

    #[test]
    fn answers_carry_the_id_of_their_call() {
        let id = RawValue::from_string("\"a\"".into()).expect("JSON");
        assert_eq!(
            value(&result(&id, &true)),
            json!({"jsonrpc": "2.0", "result": true, "id": "a"})
        );
        let refused = value(&fault(None, Fault::Parse));
        assert_eq!(refused["error"]["code"], -32700);
        assert_eq!(refused["id"], Value::Null);
    }
}
