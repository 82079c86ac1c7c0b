//! What can go wrong between nodes, in the words a caller decides by: did the call happen or not?

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::identity::{self, Name};

/// Why a connection could not be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("the node has no known address")]
    NoAddress,
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("the other side does not speak TLS")]
    PlainText,
    #[error("the certificate is of another authority")]
    ForeignAuthority,
    #[error("the certificate has expired or is not valid yet")]
    Expired,
    #[error("the certificate is of cluster {found}, not of {wanted}")]
    WrongCluster { wanted: Name, found: Name },
    #[error("the certificate is of node {found}, not of {wanted}")]
    WrongNode { wanted: Name, found: Name },
    #[error("node {0} has left the cluster")]
    Left(Name),
    #[error("the certificate names no node: {0}")]
    NoIdentity(identity::Error),
    #[error("the other side showed no certificate")]
    NoCertificate,
    #[error("the other side refused our certificate or protocol ({0})")]
    Refused(String),
    #[error("both sides know no common protocol")]
    NoProtocol,
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    #[error("the connection ended at once: {0}")]
    Ended(Why),
}

/// Why a connection or a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// The last attempt to connect failed; the text says how.
    #[error("the node cannot be reached: {0}")]
    Unreachable(Arc<str>),
    #[error("the node has been silent for too long")]
    Silent,
    #[error("the node does not take what is sent to it")]
    Stalled,
    #[error("the connection was closed")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(Arc<str>),
    /// By its end of TLS: our certificate does not please.
    #[error("the node refused us: {0}")]
    Refused(Arc<str>),
    #[error("the node broke the protocol: {0}")]
    Violation(&'static str),
    #[error("the connection is being replaced")]
    Draining,
    #[error("this process is stopping")]
    Stopped,
    #[error("its time was up")]
    Deadline,
    #[error("the body is larger than the connection takes")]
    TooLarge,
    #[error("too many calls are under way")]
    Busy,
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// The call was not executed and will not be: it can be repeated, also elsewhere.
    #[error("not sent: {0}")]
    NotSent(Why),
    /// The call may have been executed, or may still be.
    #[error("outcome unknown: {0}")]
    Unknown(Why),
    /// The peer answered that it failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl CallError {
    /// Whether the call may have had an effect; if not, it may safely be made again.
    pub fn may_have_happened(&self) -> bool {
        match self {
            CallError::NotSent(_) => false,
            CallError::Unknown(_) => true,
            CallError::Fault(fault) => fault.may_have_happened(),
        }
    }
}

/// Why a byte stream was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    #[error("this is no authority of the form name:port")]
    Authority,
    #[error(transparent)]
    Call(#[from] CallError),
    /// The peer does not open it, and says so by a status of HTTP.
    #[error("the node refused to open it: {0}")]
    Refused(http::StatusCode),
}

/// The peer's answer to a call that it did not complete.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("the node is busy")]
    Busy,
    #[error("the node has no such service")]
    NoService,
    #[error("the node takes no more calls on this connection")]
    Draining,
    #[error("the service panicked")]
    Panicked,
    #[error("the reply is larger than the connection takes")]
    TooLarge,
    /// The service's own words. Services with richer errors put them into their replies.
    #[error("{0}")]
    Failed(String),
}

impl Fault {
    pub fn may_have_happened(&self) -> bool {
        !matches!(self, Fault::Busy | Fault::NoService | Fault::Draining)
    }

    /// The body of an Error frame: a code, then text for people.
    pub(super) fn encode(&self, limit: usize) -> Bytes {
        let (code, text) = match self {
            Fault::Busy => (1, ""),
            Fault::NoService => (2, ""),
            Fault::Draining => (3, ""),
            Fault::Panicked => (4, ""),
            Fault::TooLarge => (5, ""),
            Fault::Failed(text) => (6, text.as_str()),
        };
        let mut end = text.len().min(limit.saturating_sub(1));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut body = BytesMut::with_capacity(1 + end);
        body.put_u8(code);
        body.put_slice(text.as_bytes().get(..end).unwrap_or_default());
        body.freeze()
    }

    pub(super) fn decode(body: &[u8]) -> Self {
        let text = |rest: &[u8]| Fault::Failed(String::from_utf8_lossy(rest).into_owned());
        match body.split_first() {
            Some((1, _)) => Fault::Busy,
            Some((2, _)) => Fault::NoService,
            Some((3, _)) => Fault::Draining,
            Some((4, _)) => Fault::Panicked,
            Some((5, _)) => Fault::TooLarge,
            // A code of a later version: its text is all that can be told.
            Some((_, rest)) => text(rest),
            None => text(b""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_the_wire() {
        let failed = Fault::Failed("größer".into());
        for fault in [
            Fault::Busy,
            Fault::NoService,
            Fault::Draining,
            Fault::Panicked,
            Fault::TooLarge,
            failed.clone(),
        ] {
            assert_eq!(Fault::decode(&fault.encode(100)), fault);
        }
        assert_eq!(
            Fault::decode(&failed.encode(4)),
            Fault::Failed("gr".into()),
            "never cut inside a letter"
        );
        assert_eq!(Fault::decode(&[99, b'x']), Fault::Failed("x".into()));
        assert_eq!(Fault::decode(&[]), Fault::Failed(String::new()));
    }
}
