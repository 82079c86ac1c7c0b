//! Long polling: a request that is answered when there is something to say, or with 304 after a while. Clients ask again at once.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::time::timeout;

use super::desk::Desk;
use super::door::{Answer, typed, with_origin};
use super::frame::{self, Framed};
use super::metrics::Transport;
use super::queue::Ended;
use super::refusal::Refusal;
use super::visitor::Visitor;
use crate::base::Scope;

/// How long a client waits in vain.
const WAIT: Duration = Duration::from_secs(40);
/// The id to ask with next time.
const LAST_MESSAGE_ID: HeaderName = HeaderName::from_static("last-message-id");
/// Of an answer without a message: long past, so that nobody keeps it.
const EXPIRES: &str = "Thu, 01 Jan 1973 11:11:01 GMT";

pub async fn wait(desk: &Desk, visitor: Visitor, scope: &Scope) -> Answer {
    let _listening = desk.metrics.listens(Transport::Poll);
    let dialect = visitor.dialect;
    let subscription = desk.hub.subscribe(visitor.wanted.clone());
    let taken = tokio::select! {
        taken = timeout(WAIT, subscription.queue().take()) => taken.ok(),
        () = scope.draining() => None,
    };
    match taken {
        Some(Ok(messages)) => {
            let frames = frame::frames(messages, dialect, subscription.user());
            let payloads: Vec<Bytes> = frames.iter().map(Framed::payload).collect();
            let body = match payloads.as_slice() {
                [one] => one.clone(),
                some => some.concat().into(),
            };
            typed(StatusCode::OK, dialect.content_type(), body)
        }
        Some(Err(Ended::Crowded | Ended::Slow)) => {
            desk.metrics.cut("crowded");
            let refusal = Refusal::TooManyConnections;
            super::door::plain(refusal.status(), &refusal.to_string())
        }
        None => {
            // Without an id of its own the client gets the one at which it began to listen, or it would miss what comes before it asks again.
            let last = visitor.wanted.after.unwrap_or(subscription.since);
            nothing(&last.to_string())
        }
    }
}

fn nothing(last: &str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = answer.headers_mut();
    headers.insert(LAST_MESSAGE_ID, HeaderValue::from_str(last).expect("digits"));
    headers.insert(header::EXPIRES, HeaderValue::from_static(EXPIRES));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Last-Message-Id"),
    );
    answer
}

/// What a browser asks before it lets a page of another origin poll.
pub fn options() -> Answer {
    let mut answer = with_origin(Response::new(Full::default()));
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "If-Modified-Since, If-None-Match"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
