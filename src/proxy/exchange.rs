//! `Exchange`: one request's whole story, passed by `&mut` through the phases.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body_util::combinators::UnsyncBoxBody;

use super::error::Error;
use super::id::Id;
use super::path::Path;

/// A body in either direction: streamed, with data frames that are never copied on the way.
pub type Body = UnsyncBoxBody<Bytes, Error>;

/// What answers a request; a label of metrics and of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Not routed: refused before.
    None,
    Static,
    Php,
    /// Another node's front.
    Peer,
    Upstream,
}

/// On an answer with a file's content that is not by `Target::Static`: PHP handed it over, or another node served it. It is for the one
/// client that may have it now, so nobody keeps it for others.
#[derive(Clone, Copy, Debug)]
pub struct FromFile;

/// Everything known of one request but its body.
pub struct Exchange {
    /// Method, target, version, header fields, as the client sent them.
    pub request: Parts,
    /// Decoded and normalised path of the target.
    pub path: Path,
    /// The client, as far as it is known: who connected, or whom a trusted proxy names.
    pub peer: SocketAddr,
    /// The address that the client reached.
    pub local: SocketAddr,
    /// Protocol version, like `TLSv1.3`; `None`: plain.
    pub tls: Option<&'static str>,
    /// The client's own connection is by TLS, here or at a trusted proxy.
    pub is_secure: bool,
    /// Another node's front sent it, so it is answered here and nowhere else. Only the mesh's door sets this.
    pub is_hop: bool,
    /// Host name of the request in lower case, without port.
    pub host: String,
    /// Goes to PHP, to upstreams, to the client and to the log.
    pub id: Id,
    pub started: Instant,
    pub target: Target,
}

impl Exchange {
    /// Whether no program made this answer, here or on another node.
    pub fn is_file(&self, answer: &Response<Body>) -> bool {
        self.target == Target::Static || answer.extensions().get::<FromFile>().is_some()
    }
}
