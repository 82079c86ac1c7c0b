//! The acts of one supervisor, in a thread of its own that may be in a namespace, be killed, or stand still.

use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bitrix_node::base::clock;
use bitrix_node::config::{Config, parse};
use bitrix_node::host::account;
use bitrix_node::host::address::farewell::Doors;
use bitrix_node::host::verb::{Answer, Root, Supervisor, Task, Verb};
use bitrix_node::node::leftover::Note;
use bitrix_node::node::output::Output;
use bitrix_node::node::verbs::{Parts, Verbs};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use crate::support::command::EXECUTABLE;
use crate::support::eventually::eventually;
use crate::support::netns;

/// How the thread goes on.
enum Turn {
    /// Everything ends in order.
    Stop,
    /// Everything ends where it stands.
    Kill,
    /// Nothing is done for a while.
    Freeze(Duration),
}

pub struct Machine {
    pub config: Arc<Config>,
    pub folder: Arc<TempDir>,
    agent: Arc<Supervisor>,
    turns: mpsc::Sender<Turn>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Must be called inside a runtime.
    pub fn new(namespace: Option<RawFd>, period: Duration) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::again(namespace, period, folder)
    }

    /// With a front that listens on these sockets.
    pub fn with_front(namespace: RawFd, period: Duration, doors: Doors) -> Self {
        Self::start(Some(namespace), period, doors, Arc::new(tempfile::tempdir().unwrap()))
    }

    /// With the folders of another one.
    pub fn again(namespace: Option<RawFd>, period: Duration, folder: Arc<TempDir>) -> Self {
        Self::start(namespace, period, Doors::default(), folder)
    }

    fn start(namespace: Option<RawFd>, period: Duration, doors: Doors, folder: Arc<TempDir>) -> Self {
        // Users other than root must reach their files inside.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let text = format!(
            "[node]\nname = \"n1\"\nuser = \"nobody\"\ndata_dir = {0:?}\nrun_dir = {0:?}\nlog_dir = {0:?}\n\
             [portal]\nuser = \"www-data\"\nroot = \"{1}/portal\"\n[php]\nmemory_limit = \"77MiB\"\n",
            folder.path(),
            folder.path().display()
        );
        let config = Arc::new(parse(&text, std::iter::empty()).unwrap().config);
        let (turns, receiver) = mpsc::channel(4);
        let (sender, end) = std::sync::mpsc::channel();
        let own = config.clone();
        let thread = std::thread::spawn(move || {
            if let Some(namespace) = namespace {
                netns::enter(namespace).unwrap();
            }
            supervise(&own, (period, doors), &sender, receiver);
        });
        let agent = Supervisor::new(end.recv().unwrap()).unwrap();
        Machine {
            config,
            folder,
            agent: Arc::new(agent),
            turns,
            thread: Some(thread),
        }
    }

    pub async fn hold(&self, task: &Task, epoch: u64, length: Duration) -> Answer {
        let verb = Verb::Hold {
            task: task.clone(),
            epoch,
            until: clock::boot() + length,
        };
        self.agent.ask(&verb).await.unwrap()
    }

    pub async fn must_hold(&self, task: &Task, epoch: u64, length: Duration) {
        // Only a hold that is just ending is asked for again.
        eventually("it is held", async || match self.hold(task, epoch, length).await {
            Answer::Done => Ok(()),
            Answer::Refused { why } if why.contains("just ending") => Err(why),
            other => panic!("{task}: {other:?}"),
        })
        .await;
    }

    pub async fn release(&self, task: &Task) {
        self.let_go(task, false).await;
    }

    pub async fn let_go(&self, task: &Task, is_orderly: bool) {
        let task = task.clone();
        let verb = Verb::Release { task, is_orderly };
        assert_eq!(self.agent.ask(&verb).await.unwrap(), Answer::Done);
    }

    pub async fn freeze(&self, length: Duration) {
        self.turns.send(Turn::Freeze(length)).await.unwrap();
    }

    pub fn kill(mut self) {
        self.end(Turn::Kill);
    }

    fn end(&mut self, turn: Turn) {
        if let Some(thread) = self.thread.take() {
            // A thread that has ended hears nothing.
            let _ = self.turns.try_send(turn);
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the supervisor panicked");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end(Turn::Stop);
    }
}

fn supervise(
    config: &Arc<Config>,
    (period, doors): (Duration, Doors),
    sender: &std::sync::mpsc::Sender<OwnedFd>,
    mut turns: mpsc::Receiver<Turn>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (verbs, end) = Verbs::start(Parts {
            config,
            executable: Path::new(EXECUTABLE),
            user: &account::require(&config.node.user).unwrap(),
            output: Output::file(&config.node_log()).unwrap(),
            leftover: Arc::new(Note::new(&config.node.run_dir)),
            doors,
            period,
            past: None,
            upgrade: None,
            orders: None,
            renewed: watch::Sender::new(()),
        })
        .unwrap();
        sender.send(end).unwrap();
        loop {
            match turns.recv().await {
                Some(Turn::Freeze(length)) => std::thread::sleep(length),
                Some(Turn::Kill) => return,
                Some(Turn::Stop) | None => break,
            }
        }
        verbs.let_go().await;
        verbs.stop().await;
    });
}
