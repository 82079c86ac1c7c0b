//! Requests of clients and of the portal, carried out: read, decided by `publish`, done by the hub, answered. Without a socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::frame::protobuf;
use super::frame::rpc::{self, Call, Fault};
use super::hub::{Hub, Subscription, private};
use super::key::Key;
use super::message::{Publication, Sender};
use super::metrics::Metrics;
use super::publish::{self, Asked, By, Wish};
use super::refusal::Refusal;
use crate::base::clock;

/// Users that can be asked about at once.
const ASKED: usize = 10_000;

pub struct Desk {
    pub hub: Arc<Hub>,
    pub key: Key,
    pub metrics: Arc<Metrics>,
}

/// A process as `/server-stat/` shows it, in the names that the portal's pages look for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerStat {
    pid: u32,
    /// Unix milliseconds.
    date: u64,
    cluster_mode: bool,
    channels: usize,
    messages: usize,
    websockets: i64,
    pollings: i64,
}

impl Desk {
    /// A request of generation 4; what is to be answered, if anything.
    pub async fn binary(&self, request: Bytes, by: By) -> Result<Option<Vec<u8>>, Refusal> {
        let command = protobuf::request(request)?;
        match publish::command(command, by, &self.key)? {
            Wish::Publish(publications) => {
                self.enter(publications).await?;
                Ok(None)
            }
            Wish::Stats(asked) => {
                let addresses: Vec<_> = asked.iter().map(|asked| asked.address()).collect();
                let online = asked.iter().zip(self.hub.online(&addresses));
                let answers = online.map(|(asked, is_online)| asked.answer(is_online));
                Ok(Some(protobuf::stats(answers.collect())))
            }
            Wish::ServerStats => Ok(Some(protobuf::server_stats(self.stat()))),
        }
    }

    /// The portal's message in plain text.
    pub async fn text(&self, channels: &str, body: String, expiry: u32) -> Result<(), Refusal> {
        let publication = publish::text(channels, body, expiry, &self.key)?;
        self.enter(vec![publication]).await?;
        Ok(())
    }

    /// Which of the portal's channels are online, as JSON.
    pub fn online(&self, channels: &str) -> Result<String, Refusal> {
        #[derive(Serialize)]
        struct Infos {
            infos: Vec<Info>,
        }
        #[derive(Serialize)]
        struct Info {
            channel: String,
            subscribers: u8,
        }
        let ids = publish::channels(channels, &self.key)?;
        let asked = ids.into_iter().map(|id| Asked { id, is_private: true });
        let asked: Vec<Asked> = asked.collect();
        let addresses: Vec<_> = asked.iter().map(|asked| asked.address()).collect();
        let online = asked.iter().zip(self.hub.online(&addresses));
        let infos = online.filter(|(_, is_online)| *is_online).map(|(asked, _)| Info {
            channel: asked.id.to_string(),
            subscribers: 1,
        });
        Ok(json(&Infos { infos: infos.collect() }))
    }

    /// Calls of generation 5. `None`: nothing is to be answered.
    pub async fn calls(&self, text: &str, by: By, mut of: Option<&mut Subscription>) -> Option<String> {
        let calls = match rpc::calls(text) {
            Ok(calls) => calls,
            Err(fault) => return Some(rpc::fault(None, fault)),
        };
        let mut answers = Vec::new();
        for call in &calls.calls {
            let answer = match call {
                Ok(call) => self.call(call, by, of.as_deref_mut()).await,
                Err(fault) => Some(rpc::fault(None, *fault)),
            };
            answers.extend(answer);
        }
        match calls.is_batch {
            true if answers.is_empty() => None,
            true => Some(format!("[{}]", answers.join(","))),
            false => answers.pop(),
        }
    }

    async fn call(&self, call: &Call<'_>, by: By, of: Option<&mut Subscription>) -> Option<String> {
        let done = self.perform(call, by, of).await;
        if let Err(fault) = &done {
            self.metrics.refused(fault.name());
        }
        let id = call.id?;
        Some(match done {
            Ok(result) => rpc::result(id, &result),
            Err(fault) => rpc::fault(Some(id), fault),
        })
    }

    async fn perform(&self, call: &Call<'_>, by: By, of: Option<&mut Subscription>) -> Result<Box<RawValue>, Fault> {
        match (call.method, of) {
            ("publish", _) => {
                let publication = publish::call(rpc::params(call)?, by, &self.key)?;
                let entered = self.enter(vec![publication]).await;
                entered.map_err(|_| Fault::Unavailable)?;
                Ok(raw(&true))
            }
            ("getUsersLastSeen", _) => {
                let list: rpc::UserList = rpc::params(call)?;
                let users: Option<Vec<u64>> = list.user_list.iter().map(rpc::Number::get).collect();
                let users = users.filter(|users| users.len() <= ASKED).ok_or(Fault::Params)?;
                let seen = self.hub.last_seen(&users).into_iter();
                let seconds: BTreeMap<String, u64> =
                    seen.map(|(user, ago)| (user.to_string(), ago.as_secs())).collect();
                Ok(raw(&seconds))
            }
            ("ping", _) => Ok(raw(&"pong")),
            ("listChannels", Some(of)) => {
                let ids: Vec<String> = private(of.addresses()).map(|id| id.to_string()).collect();
                Ok(raw(&ids))
            }
            ("subscribeStatusChange", Some(of)) => {
                let params: rpc::UserId = rpc::params(call)?;
                let user = params.user_id.get().ok_or(Fault::Params)?;
                match of.follow(user) {
                    true => Ok(raw(&true)),
                    false => Err(Fault::Params),
                }
            }
            ("unsubscribeStatusChange", Some(of)) => {
                let params: rpc::UserId = rpc::params(call)?;
                of.unfollow(params.user_id.get().ok_or(Fault::Params)?);
                Ok(raw(&true))
            }
            _ => Err(Fault::Method),
        }
    }

    /// The server's own numbers, as JSON.
    pub fn stat(&self) -> String {
        let numbers = self.hub.numbers();
        let (websockets, pollings) = self.metrics.open();
        json(&[ServerStat {
            pid: std::process::id(),
            date: clock::unix_millis(),
            cluster_mode: self.hub.has_others(),
            channels: numbers.channels,
            messages: numbers.kept,
            websockets,
            pollings,
        }])
    }

    async fn enter(&self, publications: Vec<Publication>) -> Result<(), Refusal> {
        for publication in &publications {
            self.metrics.published(match publication.sender {
                Sender::Backend => "portal",
                Sender::Client(_) | Sender::User(_) => "client",
            });
        }
        self.hub.enter(publications).await.map_err(|_| Refusal::Unavailable)
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own structures have a form in JSON")
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    RawValue::from_string(json(value)).expect("it was just written")
}
