//! Serves whatever mount the supervisor hands over, and passes the leader's recalls on to it.

use std::sync::{Arc, Mutex};

use anyhow::Context;

use super::door::Door;
use crate::base::{BoxFuture, Scope};
use crate::host::mount::Heir;
use crate::storage::client::{Client, Way};
use crate::storage::operation::Place;
use crate::storage::promise::{Heed, Recalls};

/// The mount that is served now.
#[derive(Default)]
struct Hearer(Mutex<Option<Arc<Door>>>);

impl Hearer {
    fn door(&self) -> Option<Arc<Door>> {
        self.0.lock().expect("no holder of this lock panics").clone()
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
}

/// Serves until it fails: because the supervisor is gone, or a mount cannot be served. What was written and is not with the leader
/// when this process ends is brought by the next one.
pub async fn serve(heir: Heir, way: Arc<dyn Way>, place: Place, scope: Scope) -> anyhow::Result<()> {
    let hearer = Arc::new(Hearer::default());
    let client = Arc::new(Client::start_door(way, place, &scope, hearer.clone()));
    loop {
        let handed = heir.handed().await.context("the supervisor's end")?;
        let door = Door::start(handed, client.clone(), &scope)?;
        *hearer.0.lock().expect("no holder of this lock panics") = Some(door);
    }
}
