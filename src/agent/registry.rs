//! The agent's hold on the registry: follows the newest version, keeps the last one seen on the local disk, enrols this node,
//! and sends its heartbeat. Whatever becomes of the registry, the agent goes on with the last view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use super::board::Board;
use super::role::{Election, Hands, Look, Seen, Tenures};
use super::{join, outlook};
use crate::base::{Health, Scope, Status, clock};
use crate::cluster::{Fit, Place, Snapshot, Snapshots};
use crate::config::{Config, Port};
use crate::registry::{
    self, Change, Error, Guard, Hearts, INTERVAL, Key, LastSeen, Node, NodeState, Publish, Record, Registry, View,
    Write,
};

/// A node that starts needs so long until its storage serves; only then is it a fault that the registry does not answer.
const START: Duration = Duration::from_secs(30);
/// Between two looks: what a fail-over must wait for beyond the silence.
const LOOK: Duration = Duration::from_millis(250);
/// A heartbeat that took longer says nothing any more; the next one is tried.
const BEAT: Duration = Duration::from_secs(2);

/// What the agent knows of the registry.
pub struct Follower {
    board: Arc<Board>,
    view: watch::Sender<Option<Arc<View>>>,
    /// Once it is open.
    registry: watch::Sender<Option<Arc<dyn Registry>>>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    look: watch::Sender<Arc<Look>>,
    tenures: watch::Sender<Tenures>,
    /// There is something new in the registry.
    wake: Arc<Notify>,
    status: Mutex<Status>,
}

/// What runs once the files are open.
struct Open {
    publish: Arc<Publish>,
    hearts: Arc<Hearts>,
    last_seen: LastSeen,
    name: String,
    /// Where other nodes reach this one's agent; empty: there are none.
    address: String,
}

impl Follower {
    pub fn new(board: Arc<Board>) -> Arc<Self> {
        Arc::new(Follower {
            board,
            view: watch::Sender::new(None),
            registry: watch::Sender::new(None),
            snapshot: watch::Sender::default(),
            look: watch::Sender::default(),
            tenures: watch::Sender::default(),
            wake: Arc::default(),
            status: Mutex::new(Status::good("")),
        })
    }

    /// One whose registry is open.
    #[cfg(test)]
    pub fn over(board: Arc<Board>, registry: Arc<dyn Registry>) -> Arc<Self> {
        let follower = Follower::new(board);
        follower.registry.send_replace(Some(registry));
        follower
    }

    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To read and to commit; `None`: it is not open yet.
    pub fn registry(&self) -> Option<Arc<dyn Registry>> {
        self.registry.borrow().clone()
    }

    /// The newest version that was seen.
    pub fn views(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// What the modules get.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshot.subscribe()
    }

    /// Whether this node has the seat now, whose work the agent does itself.
    pub fn has(&self, place: &Place) -> bool {
        self.tenures
            .borrow()
            .get(place)
            .is_some_and(|until| clock::boot() < *until)
    }

    /// Somebody has changed the registry: it is looked at soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    fn fit(&self) -> Fit {
        self.board.fit(&self.board.overview())
    }

    /// Runs until the scope drains; returns at once where there is no registry. Without `hands` this node holds no seat.
    pub async fn run(self: Arc<Self>, config: Arc<Config>, hands: Option<Arc<dyn Hands>>, scope: Scope) {
        let started = Instant::now();
        let last_seen = LastSeen::new(&config.view());
        self.begin(&last_seen, &registry::author(&config).unwrap_or_default())
            .await;
        let mut pace = interval(LOOK);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open: Option<Open> = None;
        let mut is_well = false;
        loop {
            tokio::select! {
                () = scope.draining() => return,
                () = self.wake.notified() => {}
                _ = pace.tick() => {}
            }
            let looked = match &open {
                Some(open) => self.look(open).await,
                None => match self.open(&config).await {
                    Ok(None) => return,
                    Ok(Some(opened)) => {
                        self.registry.send_replace(Some(opened.publish.clone()));
                        scope.spawn(beat(self.clone(), opened.hearts.clone(), scope.clone()));
                        if let Some(hands) = &hands {
                            scope.spawn(self.election(&opened, hands.clone()).run(scope.clone()));
                        }
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
                    // Apart from `tell`: the guard of `borrow` shuts it out.
                    let stale = Snapshot {
                        is_stale: true,
                        ..Snapshot::clone(&self.snapshot.borrow())
                    };
                    self.tell(stale);
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
    async fn begin(&self, last_seen: &LastSeen, own: &str) {
        match last_seen.load().await {
            Ok(view) => {
                if let Some(view) = &view {
                    let snapshot = outlook::snapshot(view, own, self.fit(), &BTreeMap::new());
                    self.snapshot.send_replace(Arc::new(snapshot));
                }
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
            publish: Arc::new(Publish::new(files.clone(), &name, boot, seen.as_deref())),
            hearts: Arc::new(Hearts::new(files, name.clone(), boot)),
            last_seen: LastSeen::new(&config.view()),
            name,
            address: config
                .mesh(Port::Agent)
                .map(|address| address.to_string())
                .unwrap_or_default(),
        }))
    }

    fn election(&self, open: &Open, hands: Arc<dyn Hands>) -> Election {
        Election {
            hands,
            registry: open.publish.clone(),
            hearts: open.hearts.clone(),
            looks: self.look.subscribe(),
            wake: self.wake.clone(),
            own: self.tenures.clone(),
        }
    }

    /// One look at the registry; returns what there is to say. First the view, then the heartbeats: the election counts on it.
    async fn look(&self, open: &Open) -> Result<String, Error> {
        let asked = clock::boot();
        let (mut view, mut image) = open.publish.newest().await?;
        if let Some(change) = enrolment(&view, &open.name, &open.address) {
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
        open.hearts.look(&heard(&view)).await?;
        let silent = open.hearts.silent();
        let snapshot = outlook::snapshot(&view, &open.name, self.fit(), &open.hearts.others());
        let seen = Seen {
            snapshot: snapshot.clone(),
            silent: silent.iter().cloned().collect(),
            group: self.board.group(),
        };
        self.look.send_replace(Arc::new(Look { seen, asked }));
        self.tell(snapshot);
        Ok(match silent.as_slice() {
            [] => format!("registry version {}", view.revision),
            silent => format!("registry version {}, no sign of {}", view.revision, silent.join(", ")),
        })
    }

    /// The modules hear at once how the database here does, whatever becomes of the registry.
    pub fn renew(&self) {
        let fit = self.fit();
        self.snapshot
            .send_if_modified(|known| outlook::renew(Arc::make_mut(known), fit));
    }

    fn tell(&self, snapshot: Snapshot) {
        self.snapshot.send_if_modified(|known| {
            let is_new = **known != snapshot;
            *known = Arc::new(snapshot);
            is_new
        });
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

/// Whose hearts must be listened to: also those of nodes that left, while they hold something.
fn heard(view: &View) -> Vec<String> {
    let nodes = view.nodes().map(|node| node.name.clone());
    let holders = view.roles().filter_map(|role| role.holder.clone());
    nodes.chain(holders).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Heartbeats until the scope drains.
async fn beat(follower: Arc<Follower>, hearts: Arc<Hearts>, scope: Scope) {
    let mut second = interval(INTERVAL);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = second.tick() => {}
        }
        // The look at the registry says that it does not answer; here it is only noted.
        match timeout(BEAT, hearts.beat(follower.fit().0)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => debug!(%failure, "no heartbeat"),
            Err(_) => debug!("no heartbeat in time"),
        }
    }
}

/// What this node must write of itself, if anything. What the operator wrote stays.
fn enrolment(view: &View, name: &str, address: &str) -> Option<Change> {
    let version = env!("CARGO_PKG_VERSION");
    let (node, guard) = match view.node(name) {
        // It was removed, and must not come back by itself.
        Some(node) if node.state == NodeState::Left => return None,
        Some(node) if node.state == NodeState::Joining => return Some(arrival(node, address)),
        Some(node) if node.version == version && node.address == address => return None,
        Some(node) => {
            let mut updated = node.clone();
            updated.version = version.to_string();
            updated.address = address.to_string();
            (updated, Guard::Is(Record::Node(node.clone())))
        }
        None => {
            let node = Node {
                name: name.to_string(),
                address: address.to_string(),
                state: NodeState::Member,
                labels: Default::default(),
                version: version.to_string(),
            };
            (node, Guard::Absent(Key::Node(name.to_string())))
        }
    };
    Some(Change::put(Record::Node(node)).when(guard))
}

/// A node that was let in has all that it needs: it is a member, and the token is used up.
fn arrival(node: &Node, address: &str) -> Change {
    let mut member = node.clone();
    member.state = NodeState::Member;
    member.version = env!("CARGO_PKG_VERSION").to_string();
    member.address = address.to_string();
    let token = member.labels.remove(join::TOKEN);
    let event = format!("{} has joined", node.name);
    let mut change = Change::put(Record::Node(member)).and(Write::Event(event));
    if let Some(token) = token {
        change = change.and(Write::Remove(Key::Token(token)));
    }
    change.when(Guard::Is(Record::Node(node.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{MemoryRegistry, Token};

    #[tokio::test]
    async fn a_joined_node_becomes_a_member_and_uses_its_token_up_and_one_that_left_stays_away() {
        let registry = MemoryRegistry::new("n2");
        let mut node = Node {
            name: "n2".into(),
            address: "10.0.0.2:7400".into(),
            state: NodeState::Joining,
            labels: [(join::TOKEN, "t1"), (join::KEY, "k")]
                .map(|(label, value)| (label.to_string(), value.to_string()))
                .into(),
            version: String::new(),
        };
        let token = |id: &str| {
            Write::Put(Record::Token(Token {
                id: id.into(),
                hash: [7; 32],
                expires: 0,
            }))
        };
        let change = Change::put(Record::Node(node.clone()))
            .and(token("t1"))
            .and(token("t2"));
        let view = registry.commit(change).await.unwrap();
        let change = enrolment(&view, "n2", "10.0.0.2:7400").unwrap();
        let view = registry.commit(change).await.unwrap();
        let joined = view.node("n2").unwrap();
        assert_eq!(joined.state, NodeState::Member);
        assert_eq!(joined.labels.keys().collect::<Vec<_>>(), [join::KEY]);
        assert_eq!(view.tokens().map(|token| token.id.as_str()).collect::<Vec<_>>(), ["t2"]);
        assert_eq!(enrolment(&view, "n2", "10.0.0.2:7400"), None);
        node.state = NodeState::Left;
        let view = registry.commit(Change::put(Record::Node(node))).await.unwrap();
        assert_eq!(enrolment(&view, "n2", "10.0.0.9:7400"), None);
    }

    #[tokio::test]
    async fn a_node_enrols_once_and_renews_only_its_version() {
        let registry = MemoryRegistry::new("n1");
        let view = registry
            .commit(enrolment(&View::default(), "n1", "10.0.0.1:7400").unwrap())
            .await
            .unwrap();
        assert_eq!(enrolment(&view, "n1", "10.0.0.1:7400"), None);
        let mut old = view.node("n1").unwrap().clone();
        old.version = "0.0.1".into();
        old.state = NodeState::Draining;
        let view = registry.commit(Change::put(Record::Node(old))).await.unwrap();
        let view = registry
            .commit(enrolment(&view, "n1", "10.0.0.1:7400").unwrap())
            .await
            .unwrap();
        let node = view.node("n1").unwrap();
        assert_eq!(
            (node.version.as_str(), node.state),
            (env!("CARGO_PKG_VERSION"), NodeState::Draining)
        );
    }
}
