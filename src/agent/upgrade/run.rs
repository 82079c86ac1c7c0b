//! Looks each second, decides, and does it: commits to the registry, and one question to the supervisor.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::decide::{Act, Attempt, Node as Row, Plan, Sight, decide};
use super::parcel::{Parcel, Target};
use super::turn::Turn;
use super::{BUILD, DONE, DOWNTIME, RUNNING, STATE, TARGET, TURN, setting};
use crate::agent::registry::Follower;
use crate::base::file::{Access, replace};
use crate::base::{Scope, clock};
use crate::cluster::{Fit, Member, Role, Snapshot, Standing};
use crate::config::{Config, Engine};
use crate::host::upgrade::{Record as Change, Stage};
use crate::host::verb::{Answer, Root, Verb};
use crate::registry::{self, Error, Guard, Key, Node, NodeState, Record, Registry, View, Write};

const PACE: Duration = Duration::from_secs(1);
/// Digits of the hash that tell one executable from another.
const DIGITS: usize = 16;
/// This very executable, also when another file has taken its name.
const RUNNING_FILE: &str = "/proc/self/exe";

struct Roller {
    config: Arc<Config>,
    follower: Arc<Follower>,
    root: Arc<dyn Root>,
    /// Of this executable.
    build: String,
    well_since: Option<Instant>,
    /// What this node could not do, and for which turn.
    failed: Option<(Turn, String)>,
}

/// Takes this node's turns until the scope drains.
pub async fn keep(config: Arc<Config>, follower: Arc<Follower>, root: Arc<dyn Root>, scope: Scope) {
    let build = match std::fs::read(RUNNING_FILE) {
        Ok(content) => blake3::hash(&content).to_hex().chars().take(DIGITS).collect(),
        Err(error) => {
            warn!(%error, "this executable cannot be read; this node takes no turn");
            return;
        }
    };
    let mut roller = Roller {
        config,
        follower,
        root,
        build,
        well_since: None,
        failed: None,
    };
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = pace.tick() => {}
        }
        // A wish of the supervisor's that we end is not waited for here.
        let step = tokio::select! {
            () = scope.draining() => return,
            step = roller.step() => step,
        };
        match step {
            // Another change came first; the next look decides anew.
            Ok(()) | Err(Error::Stale(_)) => {}
            Err(error) => warn!(%error, "the roll of another version waits"),
        }
    }
}

impl Roller {
    async fn step(&mut self) -> Result<(), Error> {
        let (view, snapshot) = (self.follower.views(), self.follower.snapshots());
        let (view, snapshot) = (view.borrow().clone(), snapshot.borrow().clone());
        let (Some(view), Some(registry)) = (view, self.follower.registry()) else {
            return Ok(());
        };
        let Some(own) = view.node(&snapshot.own).cloned() else {
            return Ok(());
        };
        if snapshot.is_stale {
            return Ok(());
        }
        if own.labels.get(BUILD) != Some(&self.build) {
            return label(&*registry, own, &self.build).await;
        }
        let target = view.setting(TARGET).and_then(Target::parse);
        let Some(target) = target else { return Ok(()) };
        let sight = self.sight(&view, &snapshot, &target, clock::boot());
        match decide(&sight) {
            Act::Wait(_) => Ok(()),
            Act::Begin => self.begin(&*registry, &view, own).await,
            Act::Replace => {
                let turn = view.setting(TURN).and_then(Turn::parse);
                self.replace(&target, turn).await;
                Ok(())
            }
            Act::Finish => finish(&*registry, &view, own, None).await,
            Act::Fail(why) => finish(&*registry, &view, own, Some(why)).await,
            Act::GoBack(why) => {
                // First: whoever runs here afterwards must not try again.
                finish(&*registry, &view, own, Some(why)).await?;
                self.go_back().await;
                Ok(())
            }
            Act::Complete => self.complete(&*registry, &view, &target).await,
        }
    }

    /// `now`: on the boot clock.
    fn sight(&mut self, view: &View, snapshot: &Snapshot, target: &Target, now: Duration) -> Sight {
        let is_new = |name: &str| {
            let build = view.node(name).and_then(|node| node.labels.get(BUILD));
            build.is_some_and(|build| target.hash.starts_with(build.as_str()))
        };
        let nodes = snapshot.nodes.iter().filter(|node| node.standing != Standing::Joining);
        let nodes: Vec<Row> = nodes
            .map(|node| Row {
                name: node.name.clone(),
                is_live: node.is_live,
                is_well: self.is_well(node),
                is_new: is_new(&node.name),
                is_draining: node.standing == Standing::Draining,
                seats: movable(snapshot, &node.name),
                leads: node.fit.has(Fit::LEADER),
            })
            .collect();
        let is_well = nodes.iter().any(|node| node.name == snapshot.own && node.is_well);
        let since = self.well_since.filter(|_| is_well).or(is_well.then(Instant::now));
        self.well_since = since;
        let turn = view.setting(TURN).and_then(Turn::parse);
        let attempt = turn.as_ref().map(|turn| self.attempt(turn, target, now));
        Sight {
            own: snapshot.own.clone(),
            nodes,
            plan: match view.setting(STATE) {
                Some(RUNNING) => Plan::Running,
                Some(DONE) | None => Plan::Nothing,
                Some(_) => Plan::Paused,
            },
            attempt: attempt.unwrap_or_default(),
            waited: turn.as_ref().map(|turn| turn.waited(now)).unwrap_or_default(),
            turn: turn.map(|turn| turn.node),
            settled: since.map(|since| since.elapsed()).unwrap_or_default(),
            may_stop: view.setting(DOWNTIME) == Some("allowed"),
        }
    }

    fn is_well(&self, node: &Member) -> bool {
        let files = match self.config.storage.engine {
            Engine::Replicated => Fit::FILES,
            _ => Fit::NONE,
        };
        node.fit.has(Fit::FRONT.with(Fit::WEB).with(files))
    }

    /// How this node's own attempt of this turn went.
    fn attempt(&self, turn: &Turn, target: &Target, now: Duration) -> Attempt {
        if let Some((known, why)) = &self.failed
            && known == turn
        {
            return Attempt::Failed(why.clone());
        }
        let is_of =
            |change: &Change| turn.covers(Duration::from_millis(change.begun), now) && change.hash == target.hash;
        match Change::read(&self.config).filter(is_of) {
            Some(change) if change.stage == Stage::Trial => Attempt::UnderWay,
            Some(change) if change.stage == Stage::Failed => Attempt::Failed(change.detail),
            _ => Attempt::None,
        }
    }

    async fn begin(&self, registry: &dyn Registry, view: &View, own: Node) -> Result<(), Error> {
        let turn = Turn {
            node: own.name.clone(),
            begun: clock::boot(),
            is_drained: own.state == NodeState::Draining,
        };
        let guard = match view.setting(TURN) {
            Some(free) => Guard::Is(setting(TURN, free)),
            None => Guard::Absent(Key::Setting(TURN.to_owned())),
        };
        let event = Write::Event(format!("upgrade: {} takes its turn and drains", own.name));
        let mut drained = own.clone();
        drained.state = NodeState::Draining;
        let change = registry::Change::put(setting(TURN, &turn.to_string()))
            .and(Write::Put(Record::Node(drained)))
            .and(event)
            .when(guard)
            .when(Guard::Is(Record::Node(own)))
            .when(Guard::Is(setting(STATE, RUNNING)));
        registry.commit(change).await.map(drop)
    }

    /// Returns only when it did not happen.
    async fn replace(&mut self, target: &Target, turn: Option<Turn>) {
        let why = match self.stage(target).await {
            Ok(()) => {
                info!(version = target.version, "asks for another version of this executable");
                let verb = Verb::Upgrade {
                    hash: target.hash.clone(),
                };
                match self.root.ask(&verb).await {
                    Ok(Answer::Refused { why }) => why,
                    Ok(other) => format!("the supervisor said {other:?}"),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error,
        };
        warn!(why, "this node does not run the other version");
        self.failed = turn.map(|turn| (turn, why));
    }

    /// Returns only when it did not happen.
    async fn go_back(&self) {
        let answer = self.root.ask(&Verb::Revert).await;
        warn!(?answer, "this node keeps the new version");
    }

    async fn stage(&self, target: &Target) -> Result<(), String> {
        let boot = registry::random().map_err(|error| error.to_string())?;
        let files = registry::files(&self.config, boot)
            .await
            .map_err(|error| error.to_string())?;
        let files = files.ok_or("there are no shared files")?;
        let parcel = Parcel::fetch(&*files, target)
            .await
            .map_err(|error| error.to_string())?;
        let path = self.config.staging().join(&target.hash);
        let left = std::fs::read_dir(self.config.staging()).into_iter().flatten().flatten();
        for former in left {
            let _ = std::fs::remove_file(former.path());
        }
        let lay = |path: &std::path::Path, content: &[u8]| {
            replace(path, content, Access::mode(0o600)).map_err(|error| format!("{}: {error}", path.display()))
        };
        lay(&path.with_extension("sig"), &parcel.signature)?;
        lay(&path, &parcel.content)
    }

    async fn complete(&self, registry: &dyn Registry, view: &View, target: &Target) -> Result<(), Error> {
        let old = view.setting(STATE).unwrap_or_default();
        let change = registry::Change::put(setting(STATE, DONE))
            .and(Write::Event(format!(
                "upgrade: all nodes that live run version {}",
                target.version
            )))
            .when(Guard::Is(setting(STATE, old)));
        registry.commit(change).await.map(drop)
    }
}

/// Exclusive seats that another node can take; the database and the first cache stay where they are.
fn movable(snapshot: &Snapshot, node: &str) -> usize {
    let seats = snapshot
        .seats
        .iter()
        .filter(|seat| seat.holder.as_deref() == Some(node));
    seats
        .filter(|seat| matches!(seat.role, Role::Edge | Role::Cron))
        .count()
}

async fn label(registry: &dyn Registry, own: Node, build: &str) -> Result<(), Error> {
    let mut labelled = own.clone();
    labelled.labels.insert(BUILD.to_owned(), build.to_owned());
    let change = registry::Change::put(Record::Node(labelled)).when(Guard::Is(Record::Node(own)));
    registry.commit(change).await.map(drop)
}

/// The turn is over: this node takes work again, unless the operator wants it drained. `failed`: nobody else takes a turn.
async fn finish(registry: &dyn Registry, view: &View, own: Node, failed: Option<String>) -> Result<(), Error> {
    let turn = view.setting(TURN).unwrap_or_default();
    let mut back = own.clone();
    // Who has undrained it meanwhile wants it at work.
    let stays = own.state == NodeState::Draining && Turn::parse(turn).is_some_and(|turn| turn.is_drained);
    if !stays {
        back.state = NodeState::Member;
    }
    let how = match &failed {
        Some(why) => format!("fails: {why}"),
        None if stays => "is done, and stays drained".to_owned(),
        None => "takes work again".to_owned(),
    };
    let event: String = format!("upgrade: {} {how}", own.name).chars().take(200).collect();
    let mut change = registry::Change::put(setting(TURN, ""))
        .and(Write::Put(Record::Node(back)))
        .and(Write::Event(event))
        .when(Guard::Is(setting(TURN, turn)))
        .when(Guard::Is(Record::Node(own.clone())));
    if let Some(why) = failed {
        let line: String = format!("failed: {} {why}", own.name).chars().take(400).collect();
        change = change.and(Write::Put(setting(STATE, &line.replace(char::is_control, " "))));
    }
    registry.commit(change).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::agent::board::Board;
    use crate::base::BoxFuture;
    use crate::registry::MemoryRegistry;

    /// A supervisor that is asked for nothing here.
    struct Nobody;

    impl Root for Nobody {
        fn ask<'a>(&'a self, verb: &'a Verb) -> BoxFuture<'a, io::Result<Answer>> {
            panic!("nobody asks for {verb:?} here")
        }
    }

    fn roller(folder: &tempfile::TempDir) -> Roller {
        let text = format!("[node]\ndata_dir = {:?}\n", folder.path());
        let config = Arc::new(crate::config::parse(&text, std::iter::empty()).unwrap().config);
        Roller {
            follower: Follower::new(Arc::new(Board::new(config.clone()))),
            config,
            root: Arc::new(Nobody),
            build: String::new(),
            well_since: None,
            failed: None,
        }
    }

    fn node(state: NodeState) -> Node {
        Node {
            name: "n1".into(),
            address: String::new(),
            state,
            labels: Default::default(),
            version: String::new(),
        }
    }

    #[test]
    fn a_turn_that_began_before_a_reboot_ends_all_the_same() {
        const NOW: Duration = Duration::from_secs(400);
        const BEGUN: u64 = 9_999_999_999_999;
        let folder = tempfile::tempdir().unwrap();
        let mut roller = roller(&folder);
        let target = Target::parse(&format!("0.2.0 {} 1 1", "ab".repeat(32))).unwrap();
        let snapshot = Snapshot {
            own: "n1".into(),
            nodes: vec![Member {
                name: "n1".into(),
                address: None,
                standing: Standing::Draining,
                is_live: true,
                fit: Fit::NONE,
            }],
            ..Snapshot::default()
        };
        let mut own = node(NodeState::Draining);
        let view = |own: &Node| {
            let turn = setting(TURN, &format!("n1 {BEGUN}"));
            View::from_records([turn, setting(STATE, RUNNING), Record::Node(own.clone())])
        };
        let mut attempt = |begun, stage| {
            let change = Change {
                begun,
                stage,
                detail: "it ended".into(),
                ..Change::begin("0.2.0", target.hash.clone())
            };
            change.write(&roller.config).unwrap();
            roller.sight(&view(&own), &snapshot, &target, NOW).attempt
        };
        let failed = Attempt::Failed("it ended".into());
        assert_eq!(attempt(200_000, Stage::Failed), failed, "since the reboot");
        assert_eq!(attempt(BEGUN + 1, Stage::Failed), failed, "before it");
        assert_eq!(attempt(BEGUN - 1, Stage::Failed), Attempt::None, "before this turn");
        assert_eq!(attempt(200_000, Stage::Trial), Attempt::UnderWay);
        // It is of the new version, and not well.
        own.labels.insert(BUILD.to_owned(), target.hash[..DIGITS].to_owned());
        let sight = roller.sight(&view(&own), &snapshot, &target, NOW);
        assert!(matches!(decide(&sight), Act::GoBack(_)), "{sight:?}");
    }

    #[tokio::test]
    async fn a_node_that_the_operator_had_drained_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let roller = roller(&folder);
        let (member, drained) = (NodeState::Member, NodeState::Draining);
        for (before, meanwhile, after) in [
            (member, drained, member),
            (drained, drained, drained),
            // Undrained during its turn.
            (drained, member, member),
        ] {
            let registry = MemoryRegistry::new("n1");
            let start = registry::Change::put(setting(STATE, RUNNING)).and(Write::Put(Record::Node(node(before))));
            let view = registry.commit(start).await.unwrap();
            roller.begin(&registry, &view, node(before)).await.unwrap();
            let view = registry.read().await.unwrap();
            assert_eq!(view.node("n1"), Some(&node(drained)));
            let put = registry::Change::put(Record::Node(node(meanwhile)));
            let view = registry.commit(put).await.unwrap();
            finish(&registry, &view, node(meanwhile), None).await.unwrap();
            let view = registry.read().await.unwrap();
            assert_eq!(
                (view.node("n1"), view.setting(TURN)),
                (Some(&node(after)), Some("")),
                "{before:?}, {meanwhile:?}"
            );
        }
    }
}
