//! The closed list of privileged acts that the agent may ask of the supervisor, one JSON document per message over a pair of sockets
//! that nobody else holds. Every field is typed and bounded here: nothing that came from the network reaches root unparsed (I14).
//!
//! Questions have numbers, so several can be asked at once, and an answer to an agent that died means nothing to its successor,
//! which finds it in the pair.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::pair::End;
use crate::base::BoxFuture;

/// A question or an answer with a certificate's chain fits many times, and the kernel takes it in one piece.
pub const LONGEST: usize = 96 << 10;
/// More nodes than a cluster has.
pub const GROUP: usize = 16;
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
    /// The database here takes writes.
    Writer,
}

/// How MariaDB is started as a node of a Galera cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Some of the others are there.
    Join,
    /// The same, with a copy of their data in the place of its own.
    Anew,
    /// With all others, from the last view that all of them were in.
    Restore,
    /// As the first one, from its own data.
    Bootstrap,
}

impl std::fmt::Display for Task {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Task::Address(address) => address.fmt(out),
            Task::Cron => out.write_str("cron"),
            Task::Writer => out.write_str("db"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Verb {
    /// Begin the task, or go on with it; answered when it has begun. The supervisor ends it by itself at `until` (time since boot),
    /// so that an agent that hangs holds nothing; the agent says it again each second. Refused: a smaller epoch than was seen
    /// before, an `until` that is past or more than 10 s away, an address that somebody else has, and all of them while the node
    /// is stopping. After a refusal to begin nothing of it is held.
    Hold { task: Task, epoch: u64, until: Duration },
    /// End the task; answered when it has ended, at the latest when its hold would have. What is not held has ended. `is_orderly`:
    /// the connections by an address may come to their end first, for two seconds.
    Release { task: Task, is_orderly: bool },
    /// Sign a node's certificate. `key`: its public key, SubjectPublicKeyInfo in DER, of the kind that `NodeKey` has. Whether the
    /// asker has the private one is the agent's to check, by the request's signature.
    Sign { node: String, key: Vec<u8> },
    /// The secrets that every node of the cluster has, for one that joins.
    Secrets,
    /// This node's renewed certificate, as PEM.
    Renew { certificate: String },
    /// Replace this executable by the one with that BLAKE3 hash in the staging folder, if its signature holds, and start anew.
    Upgrade { hash: String },
    /// What MariaDB's data folder says while MariaDB does not run, where it is a node of a Galera cluster.
    Database,
    /// Start it, once. Refused: when it is not at rest, when its data are not at `position`, and an `epoch` below that of its last start.
    /// `group`: where all of its nodes are, at most `GROUP`.
    Start {
        how: How,
        epoch: u64,
        position: String,
        group: Vec<IpAddr>,
    },
    /// Which nodes its group has now. Refused: it runs in none, or does not keep up. `weight`: how much it counts in the group from now on;
    /// at most 2.
    Group { weight: u8 },
    /// End it in order: it is of no use where it is. It is started again as after any other end.
    End,
    /// The executable that came by the last change does not serve: take the one before it back, and start anew. Refused unless that
    /// change came to its end within the last quarter of an hour: further back goes root alone.
    Revert,
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
    /// As `db::galera::State` is written.
    Database {
        state: String,
    },
    /// Names of the nodes.
    Group {
        nodes: Vec<String>,
    },
    /// Why not, and what to do.
    Refused {
        why: String,
    },
}

impl Answer {
    pub fn refused(why: impl std::fmt::Display) -> Self {
        Answer::Refused { why: why.to_string() }
    }
}

/// What the nodes of a cluster share and root alone keeps. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Secrets {
    /// Name of the file below the data folder → its content. In the order in which they must be written.
    pub files: Vec<(String, String)>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Secrets({} files)", self.files.len())
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    pub number: u64,
    pub verb: Verb,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// That of the question.
    pub number: u64,
    pub answer: Answer,
}

/// What only root does, asked for by an unprivileged agent.
pub trait Root: Send + Sync + 'static {
    /// Cancel safe; whether the act of a dropped question is done stays open.
    fn ask<'a>(&'a self, verb: &'a Verb) -> BoxFuture<'a, io::Result<Answer>>;
}

/// The agent's end.
pub struct Supervisor {
    end: End,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// Whoever has it reads for all that wait.
    reading: tokio::sync::Mutex<()>,
}

impl Supervisor {
    /// Must be called inside a runtime.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        let mut first = [0; 8];
        getrandom::fill(&mut first).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Supervisor {
            end: End::new(end)?,
            // No number of an agent before this one.
            next: AtomicU64::new(u64::from_le_bytes(first)),
            waiting: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        })
    }

    async fn answer(&self, verb: &Verb) -> io::Result<Answer> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(number, sender);
        let _forgotten = Forget { of: self, number };
        tokio::time::timeout(PATIENCE, self.exchange(number, verb, receiver))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn exchange(&self, number: u64, verb: &Verb, mut answer: oneshot::Receiver<Answer>) -> io::Result<Answer> {
        let question = Question {
            number,
            verb: verb.clone(),
        };
        let question = serde_json::to_vec(&question).map_err(io::Error::other)?;
        self.end.send(&question).await?;
        let _turn = tokio::select! {
            biased;
            answer = &mut answer => return answer.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            turn = self.reading.lock() => turn,
        };
        loop {
            // The one who read before us may have found it.
            if let Ok(answer) = answer.try_recv() {
                return Ok(answer);
            }
            let message = self.end.receive(LONGEST).await?;
            if message.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let reply: Reply = serde_json::from_slice(&message).map_err(io::Error::other)?;
            if let Some(waiting) = self.waiting().remove(&reply.number) {
                // One that waits no more needs no answer.
                let _ = waiting.send(reply.answer);
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().expect("nothing panics under this lock")
    }
}

impl Root for Supervisor {
    fn ask<'a>(&'a self, verb: &'a Verb) -> BoxFuture<'a, io::Result<Answer>> {
        Box::pin(self.answer(verb))
    }
}

/// A question that is answered or dropped waits no more.
struct Forget<'a> {
    of: &'a Supervisor,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.of.waiting().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::pair::pair;

    async fn heard(end: &End) -> Question {
        serde_json::from_slice(&end.receive(LONGEST).await.expect("received")).expect("a question")
    }

    async fn answer(end: &End, number: u64, answer: Answer) {
        let reply = serde_json::to_vec(&Reply { number, answer }).expect("plain data");
        end.send(&reply).await.expect("sent");
    }

    fn release() -> Verb {
        Verb::Release {
            task: Task::Cron,
            is_orderly: false,
        }
    }

    #[tokio::test]
    async fn answers_find_their_questions_in_any_order() {
        let (agent, supervisor) = pair().expect("made");
        let (agent, supervisor) = (
            Supervisor::new(agent).expect("an end"),
            End::new(supervisor).expect("an end"),
        );
        let (first, second) = (Verb::Secrets, release());
        let (first, second, ()) = tokio::join!(agent.ask(&first), agent.ask(&second), async {
            let (one, two) = (heard(&supervisor).await, heard(&supervisor).await);
            for question in [two, one] {
                let told = match question.verb {
                    Verb::Secrets => Answer::refused("no"),
                    _ => Answer::Done,
                };
                answer(&supervisor, question.number, told).await;
            }
        });
        assert_eq!(first.expect("answered"), Answer::refused("no"));
        assert_eq!(second.expect("answered"), Answer::Done);
        assert!(agent.waiting().is_empty());
    }

    #[tokio::test]
    async fn an_answer_to_a_dead_agent_is_none_for_its_successor() {
        let (theirs, ours) = pair().expect("made");
        let supervisor = End::new(ours).expect("an end");
        let first = Supervisor::new(theirs.try_clone().expect("copied")).expect("an end");
        let question = tokio::select! {
            biased;
            _ = first.ask(&Verb::Secrets) => panic!("nobody answers"),
            question = heard(&supervisor) => question,
        };
        drop(first);
        answer(&supervisor, question.number, Answer::refused("for the dead one")).await;
        let second = Supervisor::new(theirs).expect("an end");
        let verb = release();
        let (told, ()) = tokio::join!(second.ask(&verb), async {
            let question = heard(&supervisor).await;
            answer(&supervisor, question.number, Answer::Done).await;
        });
        assert_eq!(told.expect("answered"), Answer::Done);
    }
}
