//! The end of an HTTP/1 connection whose module drains.
//!
//! hyper closes a connection at once on which nothing is asked, also one that has just been accepted: its client's request may be
//! under way, and would be lost. The successor listens on the same socket but never sees it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode};
use tokio::time::timeout;

use crate::base::Scope;

/// How long a client may still ask after the drain began.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Serves until the client is done or, when `scope` drains, until its last chance has passed and what it asked is answered: then
/// `shut_down`, hyper's. Answers given meanwhile go through [`mark_last`].
pub async fn serve_to_last_chance<C: Future>(connection: C, shut_down: fn(Pin<&mut C>), scope: &Scope) -> C::Output {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = scope.draining() => {}
    }
    if let Ok(ended) = timeout(LAST_CHANCE, connection.as_mut()).await {
        return ended;
    }
    shut_down(connection.as_mut());
    connection.await
}

/// The client of an answer given while `scope` drains is not to ask on this connection again.
pub fn mark_last<B>(answer: &mut Response<B>, scope: &Scope) {
    if scope.is_draining() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
