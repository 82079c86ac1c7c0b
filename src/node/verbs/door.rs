//! The supervisor's end of the pair with the agents, which come one after another. A message is a question or it is nothing:
//! what an agent sent before it died is done and answered like any other, and its successor knows the answer as not its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::Acts;
use crate::base::Scope;
use crate::host::pair::End;
use crate::host::verb::{Answer, LONGEST, Question, Reply};

/// Acts under way. The agent says each of its few seats again every second; more questions wait in the pair.
const AT_ONCE: usize = 64;

pub struct Door {
    acts: Arc<Acts>,
    ours: Arc<End>,
}

impl Door {
    /// The agents' end must stay open elsewhere. Must be called inside a runtime.
    pub fn new(acts: Acts, ours: OwnedFd) -> io::Result<Self> {
        Ok(Door {
            acts: Arc::new(acts),
            ours: Arc::new(End::new(ours)?),
        })
    }

    /// Until the scope is killed.
    pub async fn run(self, scope: Scope) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            let message = match self.ours.receive(LONGEST).await {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    warn!(%error, "the agent's question is refused");
                    continue;
                }
                Err(error) => {
                    warn!(%error, "the agent cannot be heard any more");
                    return;
                }
            };
            let question: Question = match serde_json::from_slice(&message) {
                Ok(question) => question,
                Err(error) => {
                    warn!(%error, "the agent's question is none");
                    continue;
                }
            };
            let (acts, ours) = (self.acts.clone(), self.ours.clone());
            scope.spawn(async move {
                let answer = acts.perform(question.verb).await;
                if let Err(error) = reply(&ours, question.number, answer).await {
                    debug!(%error, "the agent is not answered");
                }
                drop(permit);
            });
        }
    }
}

async fn reply(ours: &End, number: u64, answer: Answer) -> io::Result<()> {
    let encode = |answer| serde_json::to_vec(&Reply { number, answer }).expect("answers are plain data");
    let mut message = encode(answer);
    if message.len() > LONGEST {
        message = encode(Answer::refused("the answer is too long"));
    }
    ours.send(&message).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::account::Account;
    use crate::host::address::farewell::Doors;
    use crate::host::verb::{Root, Supervisor, Task, Verb};
    use crate::node::leftover;
    use crate::node::output::Output;
    use crate::node::verbs::{Parts, Verbs};
    use rustix::net::SendFlags;
    use std::path::Path;
    use std::time::Duration;

    #[tokio::test]
    async fn what_a_dead_agent_left_does_not_confuse_its_successor() {
        let folder = tempfile::tempdir().expect("temp dir");
        let text = format!("[node]\nrun_dir = {:?}\n", folder.path());
        let config = crate::config::parse(&text, std::iter::empty()).expect("valid").config;
        let user = Account {
            name: "nobody".into(),
            uid: 65534,
            gid: 65534,
        };
        let (verbs, end) = Verbs::start(Parts {
            config: &Arc::new(config),
            executable: Path::new("/nonexistent"),
            user: &user,
            output: Output::journal(),
            leftover: Arc::new(leftover::Note::new(folder.path())),
            doors: Doors::default(),
            period: Duration::from_secs(60),
            past: None,
            upgrade: None,
            orders: None,
            renewed: tokio::sync::watch::Sender::new(()),
        })
        .expect("started");
        // Nothing, half a question, too much, and a whole question whose answer nobody takes.
        let long = vec![b' '; LONGEST + 1];
        let verb = Verb::Secrets;
        let whole = serde_json::to_vec(&Question { number: 7, verb }).expect("plain data");
        for left in [&b""[..], b"{\"number\":7,\"verb\":", &long, &whole] {
            rustix::net::send(&end, left, SendFlags::NOSIGNAL).expect("sent");
        }
        let successor = Supervisor::new(end).expect("an end");
        let verb = Verb::Sign {
            node: "No Name".into(),
            key: Vec::new(),
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), successor.ask(&verb))
            .await
            .expect("in time");
        let Ok(Answer::Refused { why }) = answer else {
            panic!("{answer:?}")
        };
        assert!(why.contains("is no name"), "{why}");
        verbs.let_go().await;
        let hold = Verb::Hold {
            task: Task::Cron,
            epoch: 1,
            until: crate::base::clock::boot() + Duration::from_secs(3),
        };
        let answer = successor.ask(&hold).await.expect("answered");
        assert_eq!(answer, Answer::refused("this node is stopping"));
        verbs.stop().await;
    }
}
