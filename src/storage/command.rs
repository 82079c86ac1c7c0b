//! Commands to a node's storage: from the operator over the unix socket, and between nodes over the mesh. JSON, for they are few
//! and grow with every version.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::charter::Shared;
use super::mesh::{COMMANDS, Links};
use super::network::Unreached;
use super::types::{NodeId, Peer};
use super::{scrub, transfer};
use crate::net::mesh::{Caller, Class};

/// A command is answered when it is done; the longest waits for a change of the membership.
const DEADLINE: Duration = Duration::from_secs(20);

/// A node that has just started is met at the next attempt to connect, at most 2 s later.
const JUST_STARTED: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Answered with a `Report`.
    Status,
    /// What a node that shall join has. Answered with a `Hello`.
    Hello,
    /// Be a replica of this group. Answered with the `StoreId`.
    Invite(Invitation),
    /// Take a node in; address of its storage on the mesh.
    Add {
        name: String,
        address: String,
        witness: bool,
    },
    /// Let a member go.
    Remove { name: String },
    /// Go on alone without the members named: they are lost for good.
    Recover { lost: Vec<String>, accepts_loss: bool },
    /// Compare this node's contents with the other copies now.
    Scrub,
    /// A member is met elsewhere.
    Readdress {
        number: NodeId,
        name: String,
        address: String,
    },
}

impl Command {
    /// Whether only the leader can carry it out.
    pub fn is_leaders(&self) -> bool {
        matches!(
            self,
            Command::Add { .. } | Command::Remove { .. } | Command::Readdress { .. }
        )
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// `None`: it has no store yet.
    pub number: Option<NodeId>,
    /// Its store took part in a group.
    pub was_member: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invitation {
    pub number: NodeId,
    pub witness: bool,
    pub shared: Shared,
}

/// How a replica and its group do, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub node: String,
    pub role: Role,
    pub leader: Option<String>,
    pub term: u64,
    /// Data replicas that have all that was acknowledged, and how many are wanted.
    pub copies: usize,
    pub wanted: usize,
    pub members: Vec<Member>,
    pub log_bytes: u64,
    pub free_bytes: u64,
    pub is_full: bool,
    /// The store here is not the one that the group knows as this member's: it was set back to an older image.
    pub is_set_back: bool,
    /// Requests per second in the last second.
    pub requests: u64,
    /// Of the state that this node sends or receives, or did last.
    pub transfer: transfer::Counts,
    pub scrub: scrub::Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Waits to be taken in by a group.
    #[default]
    Waiting,
    Leader,
    Follower,
    Learner,
    Witness,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub number: NodeId,
    pub address: String,
    pub votes: bool,
    pub witness: bool,
    pub in_sync: bool,
    /// Entries behind the leader; `None` where this node does not lead.
    pub lag: Option<u64>,
}

/// What a command is answered with: JSON of its result, or why not.
type Answer = Result<Value, String>;

pub fn answer<T: Serialize>(result: anyhow::Result<T>) -> Bytes {
    let answer: Answer = match result {
        Ok(value) => serde_json::to_value(value).map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    serde_json::to_vec(&answer).expect("JSON of JSON").into()
}

pub fn encode(command: &Command) -> Bytes {
    serde_json::to_vec(command)
        .expect("plain structs always serialise")
        .into()
}

pub fn decode(bytes: &[u8]) -> anyhow::Result<Command> {
    serde_json::from_slice(bytes).context("this version does not know the command")
}

/// The result of a command as it came back.
pub fn result<T: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<T> {
    let answer: Answer = serde_json::from_slice(bytes).context("the answer cannot be read")?;
    match answer {
        Ok(value) => serde_json::from_value(value).context("the answer cannot be read"),
        Err(why) => bail!(why),
    }
}

/// Asks this node's storage over its unix socket.
pub async fn ask<T: DeserializeOwned>(caller: &Caller, command: &Command) -> anyhow::Result<T> {
    let deadline = Instant::now() + DEADLINE;
    let answer = caller.call(COMMANDS, encode(command), deadline).await?;
    result(&answer)
}

/// Sends a command to another node.
pub async fn send<T: DeserializeOwned>(links: &Links, peer: &Peer, command: &Command) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let called = links
            .call(peer, (Class::Calls, COMMANDS), encode(command), DEADLINE)
            .await;
        match called {
            // It was not sent, so it may be sent again.
            Err(Unreached::Refused(_)) if start.elapsed() < JUST_STARTED => tokio::time::sleep(AGAIN).await,
            called => return result(&called?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_come_back() {
        let add = Command::Remove { name: "n2".into() };
        assert!(matches!(decode(&encode(&add)).unwrap(), Command::Remove { name } if name == "n2"));
        assert!(decode(b"{\"dance\":1}").is_err());
        let report = Report::default();
        assert_eq!(result::<Report>(&answer(Ok(&report))).unwrap(), report);
        let why = anyhow::anyhow!("inner").context("outer");
        let failed = result::<Report>(&answer::<Report>(Err(why))).unwrap_err();
        assert_eq!(failed.to_string(), "outer: inner");
    }
}
