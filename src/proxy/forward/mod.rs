//! Reverse proxy to an HTTP/1.1 upstream: `Upstream` sends it requests over kept connections and streams both ways.
//!
//! - The path, `Host` and all end-to-end fields pass unchanged; what only the front knows (`X-Forwarded-*`, `X-Real-IP`, `X-Request-Id`) is set here;
//!   a store of somebody else is not told it.
//! - A reused connection that dies before the answer is replaced once: when the request was not sent yet,
//!   or when it may run twice (RFC 9110 §9.2.2) and has no body.
//! - WebSocket passes through (`websocket`); every other `Upgrade` is dropped, so that nobody tunnels past the front's rules.
//! - Failures: cannot connect `Unavailable`, silence `UpstreamSlow`, broken protocol or connection `Upstream`.

mod body;
#[cfg(test)]
mod forward_tests;
mod motor;
mod pool;
mod rewrite;
mod upstream;

pub use body::{Upload, Watch};
pub use upstream::Upstream;
