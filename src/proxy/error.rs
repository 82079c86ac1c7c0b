//! What went wrong with a request: kind, whose fault, and whether another attempt is safe.
//! `answer.rs` turns it into the response; nothing decides by the text.

use std::fmt;
use std::io;

/// Decides the status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Malformed or ambiguous: 400.
    Malformed,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    Method,
    /// The client was silent for too long: 408.
    Slow,
    /// A length is needed: 411.
    Length,
    /// 413.
    TooLarge,
    /// 414.
    TargetTooLong,
    /// 416, with the whole length.
    Range(u64),
    /// Expectation other than 100-continue: 417.
    Expectation,
    /// 421: not a host of ours.
    Misdirected,
    /// 429.
    TooMany,
    /// More requests than a limit allows; may come back after so many seconds: 429.
    Limited(u32),
    /// More REST calls than a limit allows: 503, in the portal's own words.
    RestLimited(u32),
    /// 431.
    HeaderTooLarge,
    /// Our fault: 500.
    Internal,
    /// Method or transfer coding that we do not know: 501.
    NotImplemented,
    /// PHP or an upstream broke the protocol or the connection: 502.
    Upstream,
    /// No upstream can be reached, or no capacity: 503.
    Unavailable,
    /// PHP or an upstream was silent for too long: 504.
    UpstreamSlow,
    /// HTTP/2.0-in-1.x preface or a version that we do not speak: 505.
    Version,
    /// The client is gone; nobody reads an answer. Logged as 499.
    ClientGone,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Upstream,
    Us,
}

#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    /// What exactly, for the log. Never shown to the client.
    pub detail: String,
    pub source: Option<io::Error>,
    /// The target took nothing of the request, so another one may have it.
    pub is_unsent: bool,
}

impl Error {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Error {
            kind,
            detail: detail.into(),
            source: None,
            is_unsent: false,
        }
    }

    pub fn with(kind: Kind, detail: impl Into<String>, source: io::Error) -> Self {
        Error {
            kind,
            detail: detail.into(),
            source: Some(source),
            is_unsent: false,
        }
    }

    /// The target took nothing of the request.
    pub fn unsent(mut self) -> Self {
        self.is_unsent = true;
        self
    }

    pub fn side(&self) -> Side {
        match self.kind {
            Kind::Internal => Side::Us,
            Kind::Upstream | Kind::Unavailable | Kind::UpstreamSlow => Side::Upstream,
            _ => Side::Client,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
