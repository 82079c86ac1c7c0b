//! The inner protocol: what a door's session asks of the replica that leads, and the answers. Both doors speak it, within the process
//! or over the mesh.
//!
//! On the wire: a version, then postcard's encoding. Variants are numbered by their order in the source. No I/O.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::call::{self, Caller, Mutation, Query, Reply};
use super::door::RequestKey;
use super::operation::{Place, Session};
use super::promise::Recalls;
use super::types::NodeId;

const VERSION: u8 = 2;

pub type Answer = Result<Reply, call::Error>;

// Most requests are mutations or queries: a box would cost an allocation each.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Begins a session at a place, or finds it begun. Answered with `Reply::Begun`.
    Begin {
        session: Session,
        place: Place,
        adopts: bool,
    },
    /// The session lives.
    Renew { session: Session },
    /// The session is over: its locks and opens go.
    End { session: Session },
    /// The session's lease of what it was promised, and what of it is true no longer. Answered with `Listened`, in a while if
    /// there is nothing to say.
    Listen {
        session: Session,
        epoch: u64,
        /// All recalls up to this one were heeded.
        confirmed: u64,
    },
    Query {
        session: Session,
        caller: Caller,
        query: Query,
    },
    Mutate {
        session: Session,
        sequence: u64,
        /// All replies up to this one have arrived.
        acknowledged: u64,
        key: Option<RequestKey>,
        caller: Caller,
        mutation: Mutation,
    },
}

impl Request {
    pub fn session(&self) -> Session {
        match self {
            Request::Begin { session, .. }
            | Request::Renew { session }
            | Request::End { session }
            | Request::Listen { session, .. }
            | Request::Query { session, .. }
            | Request::Mutate { session, .. } => *session,
        }
    }

    /// Bytes that it carries beside its head.
    pub fn weight(&self) -> usize {
        match self {
            Request::Mutate {
                mutation: Mutation::Write { data, .. } | Mutation::Append { data, .. },
                ..
            } => data.len(),
            Request::Query {
                query: Query::Read { count, .. },
                ..
            } => usize::try_from(*count).unwrap_or(usize::MAX),
            _ => 0,
        }
    }
}

#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Answer(Answer),
    /// The session hears when this is true no longer.
    Promised {
        answer: Answer,
        epoch: u64,
    },
    /// The answer to a change, which this session must not doubt by what it was promised before.
    Changed {
        answer: Answer,
        recalls: Recalls,
    },
    Listened {
        recalls: Recalls,
        /// From when the `Listen` was sent.
        lease: Duration,
    },
    /// Nothing was done here.
    NotLeader {
        leader: Option<NodeId>,
    },
    /// It may have been done or may still be; the same request again settles that.
    Unknown,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("a message of unknown version {0:?}")]
    Version(Option<u8>),
    #[error("a message that cannot be read: {0}")]
    Body(postcard::Error),
    #[error("a message has {0} bytes too many")]
    Trailing(usize),
}

pub fn encode(message: &impl Serialize) -> Bytes {
    let encoded = postcard::to_extend(message, vec![VERSION]);
    encoded.expect("a vector takes all, and lengths are known").into()
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let Some((&VERSION, body)) = bytes.split_first() else {
        return Err(Malformed::Version(bytes.first().copied()));
    };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(Malformed::Trailing(rest.len())),
        Err(error) => Err(Malformed::Body(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::{DATA_MAX, PORTAL};

    fn write(data: Bytes) -> Request {
        Request::Mutate {
            session: Session(1),
            sequence: 2,
            acknowledged: 1,
            key: None,
            caller: Caller {
                uid: 33,
                gid: 33,
                groups: vec![33],
            },
            mutation: Mutation::Write {
                inode: PORTAL,
                offset: 0,
                data,
            },
        }
    }

    #[test]
    fn messages_come_back_and_what_is_cut_or_longer_is_refused() {
        let request = write(Bytes::from_static(b"data"));
        let bytes = encode(&request);
        assert_eq!(decode::<Request>(&bytes), Ok(request));
        for cut in 0..bytes.len() {
            assert!(decode::<Request>(&bytes[..cut]).is_err(), "{cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode::<Request>(&longer), Err(Malformed::Trailing(1)));
        assert_eq!(decode::<Request>(&[9, 0]), Err(Malformed::Version(Some(9))));
        let response = Response::Answer(Err(call::Error::NoSession));
        assert_eq!(decode(&encode(&response)), Ok(response));
    }

    #[test]
    fn the_largest_write_fits_a_frame() {
        let bytes = encode(&write(vec![0; DATA_MAX].into()));
        assert!(bytes.len() < 2 << 20);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Response>(&bytes);
        }
    }
}
