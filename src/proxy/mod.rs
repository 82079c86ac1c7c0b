//! The web front: accept → TLS → HTTP/1 or 2 → phases → target.
//!
//! Phases of a request, in this order: limits (`limit`, `guard`, `request_body`) → route (`route`, `deny`) → target (`static_file`, `fastcgi`,
//! `forward`) → headers → log (`record`, `access_log`). Whatever goes wrong is an `Error` and leaves through `answer`.
//!
//! Nothing ambiguous gets further than `framing`. Every wait for a client has a bound (`guard`; for HTTP/2
//! `request_body` and `http`). A panic ends its request, or its connection.
//! With `portal.domain` set, requests for another name are answered 421; an address as host is answered, because that is how health
//! checks and balancers ask.

mod access_log;
mod answer;
mod connection;
mod deny;
pub mod error;
pub mod exchange;
mod framing;
mod guard;
mod host;
#[cfg(test)]
#[allow(dead_code)]
#[path = "../../tests/support/hostile.rs"]
mod hostile;
mod http;
mod intake;
mod limit;
mod metrics;
mod module;
pub mod path;
mod record;
mod request_body;
mod route;
mod service;
mod setup;
mod targets_stub;

pub use error::{Error, Kind};
pub use exchange::{Body, Exchange, Target};
pub use module::Proxy;
use targets_stub::{fastcgi, forward, headers, static_file};
