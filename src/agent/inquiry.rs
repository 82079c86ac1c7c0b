//! Asks the agents of all nodes how they do, at once and for a second, and makes one document of what they say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::board::Board;
use super::overview::{Answer, Cluster, HeardOf, Overview, Seen, assemble};
use super::ports::Reach;
use crate::base::{BoxFuture, Scope, clock};
use crate::cluster::{Snapshot, Snapshots};
use crate::registry::SILENCE;

/// People wait for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Handshakes with everybody take longer.
const PORTS: Duration = Duration::from_secs(4);

/// The agents of the other nodes.
pub trait Others: Send + Sync {
    /// What a node says of itself.
    fn overview<'a>(&'a self, node: &'a str) -> BoxFuture<'a, anyhow::Result<Overview>>;
    /// Which ports of the other nodes that node reaches; `None`: this one. Takes seconds.
    fn ports<'a>(&'a self, node: Option<&'a str>) -> BoxFuture<'a, anyhow::Result<Vec<Reach>>>;
}

pub struct Inquiry {
    board: Arc<Board>,
    snapshots: Snapshots,
    silences: Arc<Mutex<Silences>>,
    agents: Option<Arc<dyn Others>>,
}

impl Inquiry {
    /// Notes until the scope drains since when a heart is silent. Without `agents` a node is judged by its heart alone.
    pub fn new(board: Arc<Board>, snapshots: Snapshots, agents: Option<Arc<dyn Others>>, scope: &Scope) -> Self {
        let silences = Arc::new(Mutex::new(Silences::default()));
        let (noted, mut followed, owner) = (silences.clone(), snapshots.clone(), scope.clone());
        scope.spawn(async move {
            loop {
                let snapshot = followed.borrow_and_update().clone();
                see(&noted, &snapshot);
                tokio::select! {
                    () = owner.draining() => return,
                    changed = followed.changed() => if changed.is_err() { return },
                }
            }
        });
        Inquiry {
            board,
            snapshots,
            silences,
            agents,
        }
    }

    /// Takes `PATIENCE` at most.
    pub async fn cluster(&self) -> Cluster {
        let snapshot = self.snapshots.borrow().clone();
        let own = self.board.overview();
        let others = snapshot.nodes.iter().filter(|node| node.name != own.node);
        let answers = match &self.agents {
            Some(agents) => join_all(others.map(|node| inquire(agents.as_ref(), &node.name))).await,
            None => Vec::new(),
        };
        let silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let others: BTreeMap<String, HeardOf> = answers
            .into_iter()
            .map(|(name, answer)| {
                let silent = silences.of(&name, Instant::now());
                (name, HeardOf { answer, silent })
            })
            .collect();
        assemble(&Seen {
            snapshot: &snapshot,
            fit: self.board.fit(&own),
            own: &own,
            others: &others,
            now: clock::unix().as_secs(),
        })
    }

    /// Which ports of the others each node reaches. Who does not answer is left out; takes `PORTS` at most.
    pub async fn ports(&self) -> Vec<Reach> {
        let Some(agents) = &self.agents else { return Vec::new() };
        let snapshot = self.snapshots.borrow().clone();
        let others = snapshot
            .nodes
            .iter()
            .filter(|node| node.name != snapshot.own && node.is_live);
        let asked = std::iter::once(None).chain(others.map(|node| Some(node.name.as_str())));
        let tried = asked.map(|node| timeout(PORTS, agents.ports(node)));
        let tried = join_all(tried).await.into_iter();
        tried.filter_map(|tried| tried.ok()?.ok()).flatten().collect()
    }
}

fn see(silences: &Mutex<Silences>, snapshot: &Snapshot) {
    let mut silences = silences.lock().unwrap_or_else(PoisonError::into_inner);
    silences.see(snapshot, Instant::now());
}

async fn inquire(agents: &dyn Others, name: &str) -> (String, Answer) {
    let before = clock::unix();
    let asked = timeout(PATIENCE, agents.overview(name)).await;
    let answer = match asked {
        Ok(Ok(overview)) => Answer::Came {
            skew: skew(before, clock::unix(), overview.facts.clock),
            overview: Box::new(overview),
        },
        Ok(Err(error)) => Answer::Missing(format!("{error:#}")),
        Err(_) => Answer::Missing(format!("no answer within {PATIENCE:?}")),
    };
    (name.to_string(), answer)
}

/// How far a clock is ahead that showed `theirs` (milliseconds) somewhen between two moments of ours, and by how much that may be wrong.
fn skew(before: Duration, after: Duration, theirs: u64) -> (i64, i64) {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (before, after) = (millis(before), millis(after));
    let half = (after - before).max(0) / 2;
    let theirs = i64::try_from(theirs).unwrap_or(i64::MAX);
    (theirs.saturating_sub(before + half), half)
}

/// Since when hearts are silent.
#[derive(Clone, Default)]
struct Silences(BTreeMap<String, Instant>);

impl Silences {
    fn see(&mut self, snapshot: &Snapshot, now: Instant) {
        // Without the registry no heart is seen; what was known stays.
        if snapshot.is_stale {
            return;
        }
        let silent = |name: &String| snapshot.node(name).is_some_and(|node| !node.is_live);
        self.0.retain(|name, _| silent(name));
        for node in snapshot.nodes.iter().filter(|node| !node.is_live) {
            self.0.entry(node.name.clone()).or_insert(now);
        }
    }

    /// Seconds.
    fn of(&self, name: &str, now: Instant) -> Option<u64> {
        let since = self.0.get(name)?;
        Some((now.saturating_duration_since(*since) + SILENCE).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Fit, Member, Standing};

    #[test]
    fn a_silence_is_counted_from_its_begin_and_forgotten_at_its_end() {
        let snapshot = |is_live, is_stale| Snapshot {
            nodes: vec![Member {
                name: "n2".into(),
                address: None,
                standing: Standing::Member,
                is_live,
                fit: Fit::NONE,
            }],
            is_stale,
            ..Snapshot::default()
        };
        let (start, mut silences) = (Instant::now(), Silences::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        silences.see(&snapshot(false, false), at(0));
        silences.see(&snapshot(false, false), at(3));
        assert_eq!((silences.of("n2", at(8)), silences.of("n1", at(8))), (Some(11), None));
        silences.see(&snapshot(true, true), at(9));
        assert_eq!(silences.of("n2", at(9)), Some(12));
        silences.see(&snapshot(true, false), at(10));
        assert_eq!(silences.of("n2", at(10)), None);
    }

    /// n2 answers, n3 hangs, n4 refuses.
    struct Mixed(Overview);

    impl Others for Mixed {
        fn overview<'a>(&'a self, node: &'a str) -> BoxFuture<'a, anyhow::Result<Overview>> {
            Box::pin(async move {
                match node {
                    "n2" => Ok(self.0.clone()),
                    "n3" => std::future::pending().await,
                    node => anyhow::bail!("{node} refuses"),
                }
            })
        }

        fn ports<'a>(&'a self, node: Option<&'a str>) -> BoxFuture<'a, anyhow::Result<Vec<Reach>>> {
            Box::pin(async move {
                match node {
                    None | Some("n2") => Ok(vec![Reach {
                        from: node.unwrap_or("n1").into(),
                        to: "n3".into(),
                        module: "agent".into(),
                        address: String::new(),
                        error: None,
                    }]),
                    Some("n3") => std::future::pending().await,
                    Some(node) => anyhow::bail!("{node} refuses"),
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_asked_at_once_and_who_hangs_holds_up_nobody() {
        let config = crate::config::parse("[node]\nname = \"n1\"", std::iter::empty());
        let board = Arc::new(Board::new(Arc::new(config.unwrap().config)));
        let (overview, scope) = (board.overview(), Scope::new());
        let member = |name: &str| Member {
            name: name.into(),
            address: None,
            standing: Standing::Member,
            is_live: true,
            fit: Fit::NONE,
        };
        let snapshot = Snapshot {
            own: "n1".into(),
            nodes: ["n1", "n2", "n3", "n4"].map(member).into(),
            ..Snapshot::default()
        };
        let newest = tokio::sync::watch::Sender::new(Arc::new(snapshot));
        let agents = Arc::new(Mixed(overview));
        let inquiry = Inquiry::new(board, newest.subscribe(), Some(agents), &scope);
        let start = Instant::now();
        let cluster = inquiry.cluster().await;
        assert_eq!(start.elapsed(), PATIENCE);
        let said: Vec<(bool, &str)> = cluster
            .nodes
            .iter()
            .map(|node| (node.overview.is_some(), node.unanswered.as_str()))
            .collect();
        let expected = [
            (true, ""),
            (true, ""),
            (false, "no answer within 1s"),
            (false, "n4 refuses"),
        ];
        assert_eq!(said, expected);
        let tried: Vec<String> = inquiry.ports().await.into_iter().map(|reach| reach.from).collect();
        assert_eq!(tried, ["n1", "n2"]);
        scope.stop(Duration::ZERO).await;
    }

    #[test]
    fn a_clock_is_compared_with_the_middle_of_question_and_answer() {
        let ms = Duration::from_millis;
        assert_eq!(skew(ms(1000), ms(1200), 1100), (0, 100));
        assert_eq!(skew(ms(1000), ms(1010), 4005), (3000, 5));
        assert_eq!(
            skew(ms(1000), ms(900), 400),
            (-600, 0),
            "a clock that was set back meanwhile"
        );
    }
}
