//! HTTP/3 (RFC 9114) by h3, over QUIC (`net::quic`), beside HTTP/1 and 2: accept → limit → handshake → requests, each by the same phases.
//!
//! ```text
//! quinn ─► wire (streams as h3 wants them) ─ frames (codec) ─► h3 ─► connection ─► stream ─► Front::answer
//!                                                                                   └ message (pure), upload (the body)
//! ```
//!
//! What HTTP/1 and 2 have, this has: limits of connections, headers, bodies and silence, a bound of streams and of those that are given
//! up, and an end in order. Clients hear of it by Alt-Svc (`alternative`); one that cannot reach it goes on with HTTP/2, which is
//! also what a client does while a front is replaced: its new connections are refused until its successor has the socket.

mod connection;
mod door;
mod frames;
mod message;
mod stream;
mod upload;
mod wire;

pub use door::accept;
pub use upload::Upload;
