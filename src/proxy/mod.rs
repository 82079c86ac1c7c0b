//! The web front: accept → TLS → HTTP/1 or 2, or QUIC → HTTP/3 (`http3`) → phases → target.
//!
//! Phases of a request, in this order: limits (`limit`, `guard`, `origin`, `flood`, `request_body`) → firewall (`firewall`, `waf`) → what
//! is kept of it (`edge`) → route (`visit`, `route`, `deny`, `dav`) → target (`static_file`, a stored page instead of PHP by `composite`,
//! `fastcgi` here or on another node by `balance`, what PHP hands over by `accel`, `forward`) → headers → `cdn` → `compress` → log (`record`,
//! `access_log`, `log_line`). Whatever goes
//! wrong is an `Error` and leaves through `answer`.
//!
//! Nothing ambiguous gets further than `framing`. Every wait for a client has a bound (`guard`; for HTTP/2 and 3
//! `request_body` and `watch`). A panic ends its request, or its connection.
//! The process opens what `grounds` names, and nothing else. Who the client is, `origin` decides once; limits, log and targets go by that.
//! Certificates come from files, and from the cluster by name (`cert`); what a directory of certificates asks for is answered before
//! all phases.
//! By its host a request belongs to a `site`. With `portal.domain` set, requests for another name are answered 421; an address as host is answered, because that is how health
//! checks and balancers ask.

mod accel;
mod access_log;
mod alternative;
mod answer;
mod balance;
pub mod cdn;
mod cert;
mod composite;
mod compress;
mod conditional;
mod connection;
mod content_type;
mod dav;
mod deny;
mod digits;
mod edge;
pub mod error;
pub mod exchange;
mod fastcgi;
pub mod firewall;
#[cfg(test)]
mod fixture;
mod flood;
mod forward;
mod frame;
mod framing;
mod gathered;
mod grounds;
mod guard;
mod headers;
mod host;
#[cfg(test)]
#[allow(dead_code)]
#[path = "../../tests/support/hostile.rs"]
mod hostile;
mod http;
mod http3;
mod id;
mod intake;
mod leaving;
mod limit;
mod log_line;
mod metrics;
mod module;
mod origin;
pub mod path;
mod range;
mod record;
mod request_body;
mod route;
mod secure;
mod service;
mod setup;
mod silence;
mod site;
mod static_file;
mod visit;
pub mod waf;
mod watch;
mod websocket;

pub use error::{Error, Kind};
pub use exchange::{Body, Exchange, Target};
pub use grounds::grounds;
pub use module::Proxy;
