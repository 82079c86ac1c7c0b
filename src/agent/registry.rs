//! The agent's hold on the registry: follows the newest version, keeps the last one seen on the local disk, enrols this node,
//! and sends its heartbeat. Whatever becomes of the registry, the agent goes on with the last view.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use crate::base::{Health, Scope, Status};
use crate::config::Config;
use crate::registry::{
    self, Change, Error, Guard, Hearts, INTERVAL, Key, LastSeen, Node, NodeState, Publish, Record, Registry, View,
};

/// A node that starts needs so long until its storage serves; only then is it a fault that the registry does not answer.
const START: Duration = Duration::from_secs(30);
/// A heartbeat that took longer says nothing any more; the next one is tried.
const BEAT: Duration = Duration::from_secs(2);

/// What the agent knows of the registry.
pub struct Follower {
    view: watch::Sender<Option<Arc<View>>>,
    status: Mutex<Status>,
}

/// What runs once the files are open.
struct Open {
    publish: Publish,
    hearts: Arc<Hearts>,
    last_seen: LastSeen,
    name: String,
}

impl Follower {
    pub fn new() -> Arc<Self> {
        Arc::new(Follower {
            view: watch::Sender::new(None),
            status: Mutex::new(Status::good("")),
        })
    }

    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs until the scope drains; returns at once where there is no registry.
    pub async fn run(self: Arc<Self>, config: Arc<Config>, scope: Scope) {
        let started = Instant::now();
        let last_seen = LastSeen::new(&config.view());
        self.begin(&last_seen).await;
        let mut second = interval(INTERVAL);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open: Option<Open> = None;
        let mut is_well = false;
        loop {
            tokio::select! {
                () = scope.draining() => return,
                _ = second.tick() => {}
            }
            let looked = match &open {
                Some(open) => self.look(open).await,
                None => match self.open(&config).await {
                    Ok(None) => return,
                    Ok(Some(opened)) => {
                        scope.spawn(beat(opened.hearts.clone(), scope.clone()));
                        open = Some(opened);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match looked {
                Ok(detail) => {
                    if !is_well {
                        info!(%detail, "the registry is open");
                    }
                    self.report(Health::Good, detail);
                    is_well = true;
                }
                Err(error) => {
                    let detail = self.without(&error);
                    if is_well || started.elapsed() > START {
                        if self.status().health == Health::Good {
                            warn!(%error, "without the registry");
                        }
                        self.report(Health::Degraded, detail);
                        is_well = false;
                    }
                }
            }
        }
    }

    /// The last view seen holds until there is a newer one.
    async fn begin(&self, last_seen: &LastSeen) {
        match last_seen.load().await {
            Ok(view) => {
                self.view.send_replace(view);
            }
            Err(error) => warn!(%error, "the view on the local disk is not used"),
        }
    }

    async fn open(&self, config: &Config) -> Result<Option<Open>, Error> {
        let boot = registry::random()?;
        let Some(files) = registry::files(config, boot).await? else {
            return Ok(None);
        };
        let name = registry::author(config)?;
        let seen = self.view.borrow().clone();
        Ok(Some(Open {
            publish: Publish::new(files.clone(), &name, boot, seen.as_deref()),
            hearts: Arc::new(Hearts::new(files, name.clone(), boot)),
            last_seen: LastSeen::new(&config.view()),
            name,
        }))
    }

    /// One look at the registry; returns what there is to say.
    async fn look(&self, open: &Open) -> Result<String, Error> {
        let (mut view, mut image) = open.publish.newest().await?;
        if let Some(change) = enrolment(&view, &open.name) {
            match open.publish.commit(change).await {
                // Another change came first; the next look decides anew.
                Ok(_) | Err(Error::Stale(_)) => {}
                Err(error) => return Err(error),
            }
            (view, image) = open.publish.newest().await?;
        }
        let is_new = self.view.borrow().as_ref().is_none_or(|known| **known != *view);
        if is_new {
            if let Err(error) = open.last_seen.save(image).await {
                warn!(%error, "the view cannot be kept on the local disk");
            }
            self.view.send_replace(Some(view.clone()));
        }
        let nodes: Vec<String> = view.nodes().map(|node| node.name.clone()).collect();
        open.hearts.look(&nodes).await?;
        let silent = open.hearts.silent();
        Ok(match silent.as_slice() {
            [] => format!("registry version {}", view.revision),
            silent => format!("registry version {}, no sign of {}", view.revision, silent.join(", ")),
        })
    }

    /// What to say while the registry does not answer.
    fn without(&self, error: &Error) -> String {
        match &*self.view.borrow() {
            Some(view) => format!("{error}; going on with version {}", view.revision),
            None => error.to_string(),
        }
    }

    fn report(&self, health: Health, detail: String) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Status { health, detail };
    }
}

/// Heartbeats until the scope drains.
async fn beat(hearts: Arc<Hearts>, scope: Scope) {
    let mut second = interval(INTERVAL);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = second.tick() => {}
        }
        // The look at the registry says that it does not answer; here it is only noted.
        match timeout(BEAT, hearts.beat()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => debug!(%failure, "no heartbeat"),
            Err(_) => debug!("no heartbeat in time"),
        }
    }
}

/// What this node must write of itself, if anything. What the operator wrote stays.
fn enrolment(view: &View, name: &str) -> Option<Change> {
    let version = env!("CARGO_PKG_VERSION");
    let (node, guard) = match view.node(name) {
        Some(node) if node.version == version => return None,
        Some(node) => {
            let mut updated = node.clone();
            updated.version = version.to_string();
            (updated, Guard::Is(Record::Node(node.clone())))
        }
        None => {
            let node = Node {
                name: name.to_string(),
                address: String::new(),
                state: NodeState::Member,
                labels: Default::default(),
                version: version.to_string(),
            };
            (node, Guard::Absent(Key::Node(name.to_string())))
        }
    };
    Some(Change::put(Record::Node(node)).when(guard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::MemoryRegistry;

    #[tokio::test]
    async fn a_node_enrols_once_and_renews_only_its_version() {
        let registry = MemoryRegistry::new("n1");
        let view = registry
            .commit(enrolment(&View::default(), "n1").unwrap())
            .await
            .unwrap();
        assert_eq!(enrolment(&view, "n1"), None);
        let mut old = view.node("n1").unwrap().clone();
        old.version = "0.0.1".into();
        old.state = NodeState::Draining;
        let view = registry.commit(Change::put(Record::Node(old))).await.unwrap();
        let view = registry.commit(enrolment(&view, "n1").unwrap()).await.unwrap();
        let node = view.node("n1").unwrap();
        assert_eq!(
            (node.version.as_str(), node.state),
            (env!("CARGO_PKG_VERSION"), NodeState::Draining)
        );
    }
}
