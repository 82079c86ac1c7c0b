//! `Files` whose user falls asleep at a chosen step, and wakes when the test says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bitrix_node::base::BoxFuture;
use bitrix_node::registry::{Failure, File, Files, Found, Link};
use bytes::Bytes;
use tokio::sync::Semaphore;

/// Where to fall asleep, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Never,
    BeforeLink,
    AfterLink,
}

pub struct Gated {
    inner: Arc<dyn Files>,
    step: Step,
    /// Temporary files of others stay, as if the sleeper's were written to again.
    keeps_temporaries: bool,
    has_slept: AtomicBool,
    asleep: Semaphore,
    awake: Semaphore,
    /// How each link ended.
    pub links: Mutex<Vec<Link>>,
}

impl Gated {
    pub fn new(inner: Arc<dyn Files>, step: Step, keeps_temporaries: bool) -> Arc<Self> {
        Arc::new(Gated {
            inner,
            step,
            keeps_temporaries,
            has_slept: AtomicBool::new(false),
            asleep: Semaphore::new(0),
            awake: Semaphore::new(0),
            links: Mutex::default(),
        })
    }

    /// Returns when the user sleeps.
    pub async fn fell_asleep(&self) {
        self.asleep.acquire().await.unwrap().forget();
    }

    pub fn wake(&self) {
        self.awake.add_permits(1);
    }

    async fn sleep_at(&self, step: Step) {
        if self.step == step && !self.has_slept.swap(true, Ordering::Relaxed) {
            self.asleep.add_permits(1);
            self.awake.acquire().await.unwrap().forget();
        }
    }
}

impl Files for Gated {
    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<File, Failure>> {
        self.inner.create(name, content)
    }

    fn link<'a>(&'a self, file: &'a File, name: &'a str) -> BoxFuture<'a, Result<Link, Failure>> {
        Box::pin(async move {
            self.sleep_at(Step::BeforeLink).await;
            let linked = self.inner.link(file, name).await;
            self.links.lock().unwrap().extend(linked.as_ref().ok());
            self.sleep_at(Step::AfterLink).await;
            linked
        })
    }

    fn look<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Found>, Failure>> {
        self.inner.look(name)
    }

    fn read<'a>(&'a self, name: &'a str, most: usize) -> BoxFuture<'a, Result<Option<Bytes>, Failure>> {
        self.inner.read(name, most)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        self.inner.list()
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        match self.keeps_temporaries && name.starts_with('t') {
            true => Box::pin(std::future::ready(Ok(()))),
            false => self.inner.remove(name),
        }
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        self.inner.rename(from, to)
    }

    fn overwrite<'a>(&'a self, name: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), Failure>> {
        self.inner.overwrite(name, content)
    }
}
