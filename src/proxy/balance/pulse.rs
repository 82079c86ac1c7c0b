//! The pulse of a peer: once a second its front is asked how its PHP does. That also keeps a connection to it open.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::{MissedTickBehavior, interval};

use super::hop::{self, Load};
use super::target::Target;
use crate::base::Scope;
use crate::net::mesh::{self, Peer, empty};

/// How often, and how long an answer may take.
const PULSE: Duration = Duration::from_secs(1);

/// Feels the pulse until the scope drains.
pub async fn feel(target: Arc<Target>, peer: Peer, scope: Scope) {
    let mut beat = interval(PULSE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = beat.tick() => {}
        }
        let answer = tokio::select! {
            () = scope.draining() => return,
            answer = peer.request(question(), PULSE) => answer,
        };
        match answer.ok().and_then(|answer| Load::read(answer.headers())) {
            Some(load) => target.reported(load),
            None => target.missed(),
        }
    }
}

fn question() -> Request<mesh::Body> {
    let mut request = Request::new(empty());
    request.headers_mut().insert(hop::PULSE, HeaderValue::from_static("1"));
    request
}

/// The answer to it.
pub fn answer(load: Load) -> Response<mesh::Body> {
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    load.write(answer.headers_mut());
    answer
}
