//! An agent as far as the election needs one: heartbeats, looks, and the election itself. It can be killed, and made to stand still.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::world::{NAMES, PATIENCE, Reach, World};
use crate::agent::outlook;
use crate::agent::role::{Election, Hands, Look, Seen};
use crate::base::Scope;
use crate::cluster::Fit;
use crate::registry::{Hearts, INTERVAL, Registry};

/// A task that can be made to stand still.
pub struct Freezable {
    pub inner: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub frost: Arc<Mutex<Frost>>,
}

#[derive(Default)]
pub struct Frost {
    pub is_frozen: bool,
    pub sleepers: Vec<Waker>,
}

impl Future for Freezable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut frost = self.frost.lock().unwrap();
            if frost.is_frozen {
                frost.sleepers.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        self.inner.as_mut().poll(cx)
    }
}

/// An agent.
pub struct Agent {
    pub world: Arc<World>,
    pub node: usize,
    pub tasks: Vec<JoinHandle<Option<()>>>,
    pub frost: Arc<Mutex<Frost>>,
    pub fit: Arc<Mutex<Fit>>,
    pub scope: Scope,
}

impl Agent {
    pub fn new(world: &Arc<World>, node: usize) -> Self {
        Agent {
            world: world.clone(),
            node,
            tasks: Vec::new(),
            frost: Arc::default(),
            fit: Arc::new(Mutex::new(Fit::EDGE.with(Fit::CRON))),
            scope: Scope::new(),
        }
    }

    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let (inner, frost) = (Box::pin(task), self.frost.clone());
        self.tasks.push(self.scope.spawn(Freezable { inner, frost }));
    }

    pub fn is_dead(&self) -> bool {
        self.tasks.is_empty()
    }

    pub fn start(&mut self) {
        self.scope = Scope::new();
        let reach = Arc::new(Reach {
            world: self.world.clone(),
            node: self.node,
        });
        let (clock, boot) = (reach.clone(), self.world.below(u64::MAX));
        let hearts = Hearts::new(reach.clone(), NAMES[self.node].into(), boot).with_clock(move || clock.now());
        let hearts = Arc::new(hearts);
        let (looks, seen) = watch::channel(Arc::<Look>::default());
        let wake = Arc::new(Notify::new());
        let election = Election {
            own: Default::default(),
            hands: reach.clone(),
            registry: reach.clone(),
            hearts: hearts.clone(),
            looks: seen,
            wake: wake.clone(),
        };
        self.spawn(beat(hearts.clone(), self.fit.clone()));
        self.spawn(look(reach, hearts, self.fit.clone(), looks, wake));
        let scope = self.scope.clone();
        self.spawn(election.run(scope));
    }

    pub fn kill(&mut self) {
        self.thaw();
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    /// As its supervisor stops it.
    pub fn stop(&mut self) {
        self.thaw();
        self.scope.drain();
        // It may say goodbye; the other tasks end with it.
        self.tasks.truncate(3);
    }

    pub fn freeze(&self) {
        self.frost.lock().unwrap().is_frozen = true;
    }

    pub fn thaw(&self) {
        let mut frost = self.frost.lock().unwrap();
        frost.is_frozen = false;
        frost.sleepers.drain(..).for_each(Waker::wake);
    }
}

pub async fn beat(hearts: Arc<Hearts>, fit: Arc<Mutex<Fit>>) {
    let mut second = interval(INTERVAL);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        let bits = fit.lock().unwrap().0;
        let _ = timeout(PATIENCE, hearts.beat(bits)).await;
    }
}

/// What `Follower::look` does, over the simulated registry.
pub async fn look(
    reach: Arc<Reach>,
    hearts: Arc<Hearts>,
    fit: Arc<Mutex<Fit>>,
    looks: watch::Sender<Arc<Look>>,
    wake: Arc<Notify>,
) {
    let mut pace = interval(Duration::from_millis(250));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = wake.notified() => {}
            _ = pace.tick() => {}
        }
        let asked = reach.now();
        let Ok(view) = Registry::read(&*reach).await else {
            continue;
        };
        if hearts.look(&NAMES.map(str::to_string)).await.is_err() {
            continue;
        }
        let fit = *fit.lock().unwrap();
        let seen = Seen {
            snapshot: outlook::snapshot(&view, NAMES[reach.node], fit, &hearts.others()),
            silent: hearts.silent().into_iter().collect(),
            ..Seen::default()
        };
        looks.send_replace(Arc::new(Look { seen, asked }));
    }
}
