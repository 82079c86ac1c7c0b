//! This node's heartbeat on the files, and a look at those of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::beat::{Beat, LENGTH, Pulse, may_hold};
use super::files::{Failure, Files};
use super::names;
use crate::base::clock;

pub struct Hearts {
    files: Arc<dyn Files>,
    node: String,
    boot: u64,
    /// Time since boot.
    clock: Clock,
    state: Mutex<State>,
}

type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

#[derive(Default)]
struct State {
    count: u64,
    /// When the last acknowledged heartbeat was sent, since boot.
    sent: Option<Duration>,
    others: BTreeMap<String, Pulse>,
}

impl Hearts {
    /// `boot`: random, of this start of the module.
    pub fn new(files: Arc<dyn Files>, node: String, boot: u64) -> Self {
        Hearts {
            files,
            node,
            boot,
            clock: Box::new(clock::boot),
            state: Mutex::default(),
        }
    }

    /// A simulation has its own clocks.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Hearts {
            clock: Box::new(clock),
            ..self
        }
    }

    /// Sends one that says what the node is fit for; returns when the files have it. One at a time.
    pub async fn beat(&self, fit: u32) -> Result<(), Failure> {
        let (beat, sent) = {
            let mut state = self.lock();
            state.count += 1;
            let count = state.count;
            let boot = self.boot;
            (Beat { boot, count, fit }, (self.clock)())
        };
        let content = beat.encode().into_bytes().into();
        self.files.overwrite(&names::heart(&self.node), content).await?;
        self.lock().sent = Some(sent);
        Ok(())
    }

    /// Looks at these nodes once. Those not named are forgotten.
    pub async fn look(&self, nodes: &[String]) -> Result<(), Failure> {
        self.lock().others.retain(|node, _| nodes.contains(node));
        for node in nodes.iter().filter(|node| **node != self.node) {
            let asked = (self.clock)();
            let read = self.files.read(&names::heart(node), LENGTH).await;
            let answered = (self.clock)();
            let mut state = self.lock();
            let pulse = state.others.entry(node.clone()).or_default();
            match read {
                Ok(content) => pulse.saw(content.and_then(|content| Beat::parse(&content)), asked, answered),
                Err(failure) => {
                    state.others.values_mut().for_each(Pulse::saw_nothing);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Nodes whose roles others may take.
    pub fn silent(&self) -> Vec<String> {
        let state = self.lock();
        let silent = state.others.iter().filter(|(_, pulse)| pulse.is_silent());
        silent.map(|(node, _)| node.clone()).collect()
    }

    /// Each other node: whether its heart beats, and what it says that it is fit for.
    pub fn others(&self) -> BTreeMap<String, (bool, u32)> {
        let state = self.lock();
        let others = state.others.iter();
        others
            .map(|(node, pulse)| (node.clone(), (!pulse.is_silent(), pulse.fit())))
            .collect()
    }

    /// When the last acknowledged heartbeat was sent, since boot.
    pub fn sent(&self) -> Option<Duration> {
        self.lock().sent
    }

    /// Whether this node may act in its exclusive roles now.
    pub fn may_hold(&self) -> bool {
        may_hold(self.lock().sent, (self.clock)())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
