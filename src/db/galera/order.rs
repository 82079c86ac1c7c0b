//! `Orders`: the server is started only by order, each time anew, from a look at its data that was made after its last end. So
//! nothing of an order outlives the start that it was for.

use std::ffi::OsString;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tracing::{info, warn};

use super::ground::{Ground, Order};
use crate::db::recovery::{Report, Uuid};

/// Before data that cannot be read are looked at again.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// How the server here does, for the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Its position is being read from its data.
    Looking,
    /// Somebody must look at it.
    Broken { why: String },
    /// It can be started.
    Down { report: Report },
    /// It was started; whether it serves is seen elsewhere. `history`: of its data, once it has some. `meets`: the others can come to it;
    /// a server that has left its group by itself may stay behind so, and be none any more.
    Started { history: Option<Uuid>, meets: bool },
}

const STARTED: State = State::Started {
    history: None,
    meets: true,
};

type Asked = (Order, oneshot::Sender<Result<(), String>>);

pub struct Orders {
    ground: Ground,
    state: watch::Sender<State>,
    sender: mpsc::Sender<Asked>,
    asked: Mutex<mpsc::Receiver<Asked>>,
    /// An orderly end is wanted.
    end: tokio::sync::Notify,
}

impl Orders {
    pub fn new(ground: Ground) -> Self {
        // One at a time; whoever asks meanwhile waits for its turn, and is refused then.
        let (sender, asked) = mpsc::channel(1);
        Orders {
            ground,
            state: watch::Sender::new(STARTED),
            sender,
            asked: Mutex::new(asked),
            end: tokio::sync::Notify::new(),
        }
    }

    pub fn state(&self) -> State {
        let state = self.state.borrow().clone();
        match state {
            State::Started { .. } => State::Started {
                history: self.ground.history(),
                meets: self.ground.meets(),
            },
            state => state,
        }
    }

    /// What is shown while it does not run.
    pub fn detail(&self) -> String {
        match &*self.state.borrow() {
            State::Looking => "reads its position from its data".into(),
            State::Broken { why } => why.clone(),
            State::Down { .. } | State::Started { .. } => "waits for the cluster's word".into(),
        }
    }

    /// The agent's order; answered when the start begins.
    pub async fn give(&self, order: Order) -> Result<(), String> {
        if !matches!(*self.state.borrow(), State::Down { .. }) {
            return Err("MariaDB is not at rest here".into());
        }
        let (told, answer) = oneshot::channel();
        self.sender
            .send((order, told))
            .await
            .map_err(|_| "this node is stopping")?;
        answer.await.unwrap_or_else(|_| Err("the order was overtaken".into()))
    }

    /// Asks a running server to end in order.
    pub fn end(&self) {
        self.end.notify_one();
    }

    /// Resolves when it shall. Cancel safe.
    pub async fn ended(&self) {
        self.end.notified().await;
    }

    /// The server does not run: looks, waits for an order, and returns what it is told at its start. Cancel safe.
    pub async fn next(&self, changed: impl Fn(&str)) -> Vec<OsString> {
        let mut asked = self.asked.lock().await;
        self.set(State::Looking, &changed);
        loop {
            let report = match self.ground.look().await {
                Ok(report) => report,
                Err(error) => {
                    let why = format!("{error:#}");
                    warn!(why, "the state of the database cannot be read");
                    self.set(State::Broken { why }, &changed);
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            info!(position = %report.position, epoch = report.epoch, "the database is at rest");
            self.set(State::Down { report: report.clone() }, &changed);
            let Some((order, told)) = asked.recv().await else {
                return std::future::pending().await;
            };
            match self.ground.prepare(&order, &report) {
                Ok(arguments) => {
                    info!(how = ?order.how, epoch = order.epoch, position = %order.position, "starts by order");
                    self.set(STARTED, &changed);
                    // What was wished of the last run is none of this one's.
                    let _ = self.end.notified().now_or_never();
                    let _ = told.send(Ok(()));
                    return arguments;
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    warn!(why, "the order is refused");
                    let _ = told.send(Err(why));
                }
            }
        }
    }

    fn set(&self, state: State, changed: impl Fn(&str)) {
        self.state.send_replace(state);
        changed(&self.detail());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::Scope;
    use crate::config::parse;
    use crate::db::recovery::{How, Position};
    use crate::host::account::Account;

    fn orders(folder: &std::path::Path) -> Arc<Orders> {
        let text = format!("[node]\ndata_dir = {folder:?}\nrun_dir = {folder:?}");
        let config = Arc::new(parse(&text, std::iter::empty()).unwrap().config);
        std::fs::create_dir_all(config.db_data()).unwrap();
        Arc::new(Orders::new(Ground {
            config,
            binary: "/bin/false".into(),
            defaults: folder.join("my.cnf"),
            account: Account {
                name: "nobody".into(),
                uid: 0,
                gid: 0,
            },
        }))
    }

    fn order(epoch: u64, seqno: i64) -> Order {
        Order {
            how: How::Bootstrap,
            epoch,
            position: Position {
                seqno,
                ..Position::NONE
            },
            group: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    #[tokio::test]
    async fn one_order_is_one_start() {
        let folder = tempfile::tempdir().unwrap();
        let (orders, scope) = (orders(folder.path()), Scope::new());
        orders.give(order(1, -1)).await.expect_err("nobody looked yet");
        let (kept, mut starts) = (orders.clone(), mpsc::channel(4));
        scope.spawn(async move {
            loop {
                let arguments = kept.next(|_| {}).await;
                if starts.0.send(arguments).await.is_err() {
                    return;
                }
            }
        });
        let mut state = orders.state.subscribe();
        let rest = |state: &State| matches!(state, State::Down { .. });
        state.wait_for(rest).await.unwrap();
        orders.give(order(1, 7)).await.expect_err("the data are elsewhere");
        orders.end();
        orders.give(order(1, -1)).await.unwrap();
        assert!(
            orders.ended().now_or_never().is_none(),
            "it ends none that starts later"
        );
        let arguments = starts.1.recv().await.unwrap();
        assert!(arguments.contains(&"--wsrep-new-cluster".into()), "{arguments:?}");
        // It has ended since; nothing starts it again by itself.
        state.wait_for(rest).await.unwrap();
        assert!(starts.1.try_recv().is_err());
        orders.give(order(0, -1)).await.expect_err("an election that is over");
        scope.stop(std::time::Duration::ZERO).await;
    }
}
