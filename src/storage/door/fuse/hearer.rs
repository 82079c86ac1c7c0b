//! Serves whatever mount the supervisor hands over, and passes the leader's recalls on to it.

use std::sync::{Arc, Mutex, Weak};

use anyhow::Context;

use super::door::Door;
use crate::base::{BoxFuture, Scope};
use crate::host::mount::Heir;
use crate::storage::client::{Client, Way};
use crate::storage::operation::Place;
use crate::storage::promise::{Heed, Recalls};

/// The mount that is served now. Its readers own it, and end with it.
#[derive(Default)]
struct Hearer(Mutex<Weak<Door>>);

impl Hearer {
    fn door(&self) -> Option<Arc<Door>> {
        self.0.lock().expect("no holder of this lock panics").upgrade()
    }
}

impl Heed for Hearer {
    fn recalled<'a>(&'a self, recalls: &'a Recalls) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(door) = self.door() {
                door.recalled(recalls).await;
            }
        })
    }

    fn let_go(&self) {
        self.door().iter().for_each(|door| door.let_go());
    }

    fn begun(&self, has_nothing: bool) {
        self.door().iter().for_each(|door| door.locks.begun(has_nothing));
    }

    fn lost(&self) {
        self.door().iter().for_each(|door| door.locks.lost());
    }
}

/// Leaves the mount to the next process when it is dropped: before the replica stops, for its errors are no answers.
struct Leave(Arc<Hearer>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.door().iter().for_each(|door| door.device.close());
    }
}

/// Serves until it fails: because the supervisor is gone, or a mount cannot be served. What was written and is not with the leader
/// when this process ends is brought by the next one.
pub async fn serve(heir: Heir, way: Arc<dyn Way>, place: Place, scope: Scope) -> anyhow::Result<()> {
    let hearer = Arc::new(Hearer::default());
    let client = Arc::new(Client::start_door(way, place, &scope, hearer.clone()));
    let _leave = Leave(hearer.clone());
    let mut served = None;
    loop {
        let handed = heir.handed().await.context("the supervisor's end")?;
        // It may come twice: one was on its way when this process asked.
        if served.replace(handed.mount) == Some(handed.mount) {
            continue;
        }
        client.hold();
        let door = Door::start(handed, client.clone(), &scope)?;
        *hearer.0.lock().expect("no holder of this lock panics") = Arc::downgrade(&door);
        // What another mount had locked and open nobody has any more.
        client.go(door.is_new());
    }
}
