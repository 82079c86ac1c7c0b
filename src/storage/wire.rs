//! What replicas say to each other, as bytes. A request opens with who sends it and to which store, so that a node whose
//! disk was lost is never taken for the one it was.
//!
//! Request: `version u8, kind u8, from u64, sender's store 16 bytes, receiver's store 16 bytes, body`.
//! Answer: `0` and a body, or `1` and a text. Appends are binary, the few small others JSON.

use bytes::{Buf, BufMut, Bytes};
use openraft::raft::AppendEntriesRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::entry::{self, Malformed};
use super::types::{Entry, LogId, NodeId, StoreId, Types, Vote, log_id};
use crate::base::Pieces;

const VERSION: u8 = 1;
/// Bytes of an envelope, and at most of an append without its entries.
const ENVELOPE: usize = 1 + 1 + 8 + 16 + 16;
const APPEND: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Append = 1,
    Vote = 2,
    Standing = 3,
    Checkpoint = 4,
    /// The receiver's store lacks what it had.
    SetBack = 5,
}

/// Who sends, and to which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub kind: Kind,
    pub from: NodeId,
    pub from_store: StoreId,
    pub to_store: StoreId,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Bad {
    #[error("a message of unknown version {0}")]
    Version(u8),
    #[error("a message of unknown kind {0}")]
    Kind(u8),
    #[error("a message is shorter than it says")]
    Short,
    #[error(transparent)]
    Entry(#[from] Malformed),
    #[error("a message cannot be read: {0}")]
    Json(String),
    #[error("the other node refuses: {0}")]
    Refused(String),
}

impl From<bytes::TryGetError> for Bad {
    fn from(_: bytes::TryGetError) -> Self {
        Bad::Short
    }
}

impl Envelope {
    pub fn seal(&self, body: &[u8]) -> Bytes {
        let mut out = self.opening(body.len());
        out.put_slice(body);
        out.into()
    }

    /// A request that holds these entries; what is large in them is shared with them.
    pub fn seal_append(&self, request: &AppendEntriesRequest<Types>) -> Pieces {
        encode_append(request, self.opening(APPEND))
    }

    /// What stands before a body, and room for one.
    fn opening(&self, expected: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE + expected);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u64_le(self.from);
        out.put_slice(&self.from_store.0);
        out.put_slice(&self.to_store.0);
        out
    }

    /// Splits a request into its envelope and body.
    pub fn open(mut request: Bytes) -> Result<(Self, Bytes), Bad> {
        match request.try_get_u8()? {
            VERSION => {}
            version => return Err(Bad::Version(version)),
        }
        let kind = match request.try_get_u8()? {
            1 => Kind::Append,
            2 => Kind::Vote,
            3 => Kind::Standing,
            4 => Kind::Checkpoint,
            5 => Kind::SetBack,
            kind => return Err(Bad::Kind(kind)),
        };
        let mut envelope = Envelope {
            kind,
            from: request.try_get_u64_le()?,
            from_store: StoreId::default(),
            to_store: StoreId::default(),
        };
        request.try_copy_to_slice(&mut envelope.from_store.0)?;
        request.try_copy_to_slice(&mut envelope.to_store.0)?;
        Ok((envelope, request))
    }
}

pub fn accept(body: &[u8]) -> Bytes {
    [&[0], body].concat().into()
}

pub fn refuse(why: &str) -> Bytes {
    [&[1], why.as_bytes()].concat().into()
}

/// The body of an answer.
pub fn answer(mut answer: Bytes) -> Result<Bytes, Bad> {
    match answer.try_get_u8()? {
        0 => Ok(answer),
        _ => Err(Bad::Refused(String::from_utf8_lossy(&answer).into_owned())),
    }
}

pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs always serialise")
}

pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Bad> {
    serde_json::from_slice(bytes).map_err(|error| Bad::Json(error.to_string()))
}

fn encode_append(request: &AppendEntriesRequest<Types>, mut out: Vec<u8>) -> Pieces {
    let mut pieces = Pieces::default();
    out.put_u64_le(request.vote.leader_id.term);
    out.put_u64_le(request.vote.leader_id.node_id);
    out.put_u8(u8::from(request.vote.committed));
    put_id(request.prev_log_id, &mut out);
    put_id(request.leader_commit, &mut out);
    for entry in &request.entries {
        put_id(Some(entry.log_id), &mut out);
        let (kind, length) = entry::measure(&entry.payload);
        out.put_u8(kind);
        out.put_u32_le(u32::try_from(length).expect("an entry is short"));
        entry::encode_shared(&entry.payload, &mut out, &mut pieces);
    }
    pieces.push(out.into());
    pieces
}

pub fn decode_append(mut body: Bytes) -> Result<AppendEntriesRequest<Types>, Bad> {
    let (term, node) = (body.try_get_u64_le()?, body.try_get_u64_le()?);
    let vote = match body.try_get_u8()? {
        0 => Vote::new(term, node),
        _ => Vote::new_committed(term, node),
    };
    let prev_log_id = take_id(&mut body)?;
    let leader_commit = take_id(&mut body)?;
    let mut entries = Vec::new();
    while body.has_remaining() {
        let log_id = take_id(&mut body)?.ok_or(Bad::Short)?;
        let kind = body.try_get_u8()?;
        let length = body.try_get_u32_le()? as usize;
        if length > body.remaining() {
            return Err(Bad::Short);
        }
        let payload = entry::decode(kind, body.split_to(length))?;
        entries.push(Entry { log_id, payload });
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn put_id(id: Option<LogId>, out: &mut Vec<u8>) {
    out.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        out.put_u64_le(id.leader_id.term);
        out.put_u64_le(id.leader_id.node_id);
        out.put_u64_le(id.index);
    }
}

fn take_id(body: &mut Bytes) -> Result<Option<LogId>, Bad> {
    if body.try_get_u8()? == 0 {
        return Ok(None);
    }
    let (term, node) = (body.try_get_u64_le()?, body.try_get_u64_le()?);
    Ok(Some(log_id(term, node, body.try_get_u64_le()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::entry::Body;
    use openraft::EntryPayload;

    #[test]
    fn an_append_survives_the_round_trip_and_no_cut() {
        let operations = vec!["one".into(), Pieces::default()];
        let entries = [EntryPayload::Blank, EntryPayload::Normal(Body::Operations(operations))];
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(log_id(2, 1, 7)),
            leader_commit: None,
            entries: (8..)
                .zip(entries)
                .map(|(index, payload)| Entry {
                    log_id: log_id(3, 2, index),
                    payload,
                })
                .collect(),
        };
        let envelope = Envelope {
            kind: Kind::Append,
            from: 2,
            from_store: StoreId([1; 16]),
            to_store: StoreId([2; 16]),
        };
        let (opened, bytes) = Envelope::open(envelope.seal_append(&request).join()).unwrap();
        assert_eq!(opened, envelope);
        let decoded = decode_append(bytes.clone()).unwrap();
        assert_eq!(decoded.entries, request.entries);
        assert_eq!((decoded.vote, decoded.prev_log_id), (request.vote, request.prev_log_id));
        let whole = |end: usize| decode_append(bytes.slice(..end)).is_ok();
        assert_eq!(
            (0..bytes.len()).filter(|end| whole(*end)).count(),
            2,
            "only at the ends of entries"
        );
    }

    #[test]
    fn envelopes_are_versioned() {
        let envelope = Envelope {
            kind: Kind::Vote,
            from: 3,
            from_store: StoreId([1; 16]),
            to_store: StoreId([2; 16]),
        };
        let sealed = envelope.seal(b"body");
        assert_eq!(
            Envelope::open(sealed.clone()),
            Ok((envelope, Bytes::from_static(b"body")))
        );
        (0..42).for_each(|end| assert_eq!(Envelope::open(sealed.slice(..end)), Err(Bad::Short)));
        assert_eq!(Envelope::open(Bytes::from_static(&[9])), Err(Bad::Version(9)));
        assert_eq!(Envelope::open(Bytes::from_static(&[VERSION, 77])), Err(Bad::Kind(77)));
        assert_eq!(answer(refuse("no")), Err(Bad::Refused("no".into())));
    }
}
