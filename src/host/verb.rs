//! The closed list of privileged acts that the agent may ask of the supervisor, one JSON line each over a pair of sockets that
//! nobody else holds. Every field is typed and bounded here: nothing that came from the network reaches root unparsed (I14).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio_util::codec::{Framed, LinesCodec};

/// A question with a certificate fits many times.
pub const LONGEST: usize = 256 << 10;
/// Longer than any act takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the means of an exclusive seat are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The floating address on the interface that has its network.
    Address(IpNet),
    /// The portal's jobs, every minute.
    Cron,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Verb {
    /// Begin the task, or go on with it. The supervisor ends it by itself at `until` (time since boot), so that an agent that
    /// hangs holds nothing; the agent says it again each second. A smaller epoch than was seen before is refused.
    Hold { task: Task, epoch: u64, until: Duration },
    /// End the task; answered when it has ended.
    Release { task: Task },
    /// Sign a node's certificate. `key`: its public key, SubjectPublicKeyInfo in DER.
    Sign { node: String, key: Vec<u8> },
    /// The secrets that every node of the cluster has, for one that joins.
    Secrets,
    /// This node's renewed certificate, as PEM.
    Renew { certificate: String },
    /// Replace this executable by the one with that BLAKE3 hash in the staging folder, if its signature holds, and start anew.
    Upgrade { hash: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    Done,
    /// PEM.
    Certificate {
        certificate: String,
    },
    Secrets(Secrets),
    /// Why not, and what to do.
    Refused {
        why: String,
    },
}

/// What the nodes of a cluster share and root alone keeps. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Secrets {
    /// Name of the file below the data folder → its content.
    pub files: Vec<(String, String)>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Secrets({} files)", self.files.len())
    }
}

/// The agent's end: one question at a time.
pub struct Supervisor {
    lines: Mutex<Framed<UnixStream, LinesCodec>>,
}

impl Supervisor {
    /// Must be called inside a runtime.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(end);
        stream.set_nonblocking(true)?;
        let lines = Framed::new(UnixStream::from_std(stream)?, LinesCodec::new_with_max_length(LONGEST));
        Ok(Supervisor {
            lines: Mutex::new(lines),
        })
    }

    /// Not cancel safe: after a dropped question the pair is out of step, and the agent must end.
    pub async fn ask(&self, verb: &Verb) -> io::Result<Answer> {
        let mut lines = self.lines.lock().await;
        let asked = async {
            let line = serde_json::to_string(verb).expect("verbs are plain data");
            lines.send(line).await.map_err(io::Error::other)?;
            let answer = lines.next().await.ok_or(io::ErrorKind::UnexpectedEof)?;
            serde_json::from_str(&answer.map_err(io::Error::other)?).map_err(io::Error::other)
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }
}
