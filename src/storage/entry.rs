//! What a log entry carries, and its bytes. The same bytes lie in the log and travel to followers.
//!
//! A body opens with the version of its format. Kinds and formats are never reused for something else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, TryGetError};
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::types::{Membership, NodeId, Payload, Peer, StoreId};
use crate::base::Pieces;
use crate::base::pieces::LARGE;

/// Longest body of an entry: 1 MiB of operations, their lengths, and room for a membership.
pub const MAX_BODY: usize = 2 << 20;
/// Format of all bodies.
const VERSION: u8 = 2;

/// Bytes of a count or length.
const COUNT: usize = 4;

const BLANK: u8 = 1;
const MEMBERSHIP: u8 = 2;
const OPERATIONS: u8 = 3;
const IN_SYNC: u8 = 4;

/// What we put into an entry ourselves; blank and membership entries are openraft's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Operations of the state machine, applied in this order in one transaction.
    Operations(Vec<Pieces>),
    /// From here on these data replicas must have an entry before it is acknowledged.
    InSync(BTreeSet<NodeId>),
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("an entry is shorter than it says")]
    Short,
    #[error("an entry has {0} bytes too many")]
    Long(usize),
    #[error("an entry of unknown kind {0}")]
    Kind(u8),
    #[error("an entry of unknown format {0}")]
    Version(u8),
    #[error("a member's name or address is not text")]
    Text,
}

impl From<TryGetError> for Malformed {
    fn from(_: TryGetError) -> Self {
        Malformed::Short
    }
}

/// Appends the body of `payload` to `out`; returns its kind.
pub fn encode(payload: &Payload, out: &mut Vec<u8>) -> u8 {
    encode_with(payload, out, |out, piece| out.put_slice(piece))
}

/// As `encode`, with large pieces of operations where they are: what came before them in `out` and they go to `pieces`.
pub fn encode_shared(payload: &Payload, out: &mut Vec<u8>, pieces: &mut Pieces) -> u8 {
    encode_with(payload, out, |out, piece| match piece.len() < LARGE {
        true => out.put_slice(piece),
        false => {
            pieces.push(std::mem::take(out).into());
            pieces.push(piece.clone());
        }
    })
}

/// Kind and length of the body that `encode` makes of `payload`.
pub fn measure(payload: &Payload) -> (u8, usize) {
    match payload {
        EntryPayload::Normal(Body::Operations(operations)) => {
            let lengths = operations.iter().map(|operation| COUNT + operation.len());
            (OPERATIONS, size_of_val(&VERSION) + COUNT + lengths.sum::<usize>())
        }
        small => {
            let mut body = Vec::new();
            (encode(small, &mut body), body.len())
        }
    }
}

fn encode_with(payload: &Payload, out: &mut Vec<u8>, mut put: impl FnMut(&mut Vec<u8>, &Bytes)) -> u8 {
    out.put_u8(VERSION);
    match payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Membership(membership) => {
            encode_membership(membership, out);
            MEMBERSHIP
        }
        EntryPayload::Normal(Body::Operations(operations)) => {
            put_count(operations.len(), out);
            for operation in operations {
                put_count(operation.len(), out);
                operation.iter().for_each(|piece| put(out, piece));
            }
            OPERATIONS
        }
        EntryPayload::Normal(Body::InSync(nodes)) => {
            put_nodes(nodes, out);
            IN_SYNC
        }
    }
}

/// Reads a body. Operations share the memory of `body`.
pub fn decode(kind: u8, mut body: Bytes) -> Result<Payload, Malformed> {
    let version = body.try_get_u8()?;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        MEMBERSHIP => EntryPayload::Membership(decode_membership(&mut body)?),
        OPERATIONS => {
            let count = body.try_get_u32_le()?;
            let operations = (0..count).map(|_| Ok(take_bytes(&mut body)?.into()));
            let operations = operations.collect::<Result<_, Malformed>>()?;
            EntryPayload::Normal(Body::Operations(operations))
        }
        IN_SYNC => EntryPayload::Normal(Body::InSync(take_nodes(&mut body)?)),
        kind => return Err(Malformed::Kind(kind)),
    };
    match body.remaining() {
        0 => Ok(payload),
        left => Err(Malformed::Long(left)),
    }
}

/// Bytes that an entry keeps in memory, for caches and batches that are bounded by bytes.
pub fn size(payload: &Payload) -> usize {
    // An entry without operations is small; the constant covers its structs.
    const STRUCTS: usize = 128;
    match payload {
        EntryPayload::Normal(Body::Operations(operations)) => {
            operations.iter().map(|operation| operation.len() + 32).sum::<usize>() + STRUCTS
        }
        _ => STRUCTS,
    }
}

fn encode_membership(membership: &Membership, out: &mut Vec<u8>) {
    let configs = membership.get_joint_config();
    put_count(configs.len(), out);
    configs.iter().for_each(|config| put_nodes(config, out));
    put_count(membership.nodes().count(), out);
    for (node, peer) in membership.nodes() {
        out.put_u64_le(*node);
        out.put_slice(&peer.store.0);
        out.put_u8(u8::from(peer.witness));
        for text in [&peer.name, &peer.address] {
            put_count(text.len(), out);
            out.put_slice(text.as_bytes());
        }
    }
}

fn decode_membership(body: &mut Bytes) -> Result<Membership, Malformed> {
    let configs = body.try_get_u32_le()?;
    let configs = (0..configs).map(|_| take_nodes(body)).collect::<Result<Vec<_>, _>>()?;
    let mut peers = BTreeMap::new();
    for _ in 0..body.try_get_u32_le()? {
        let node = body.try_get_u64_le()?;
        let mut store = StoreId::default();
        body.try_copy_to_slice(&mut store.0)?;
        let witness = body.try_get_u8()? != 0;
        let (name, address) = (take_text(body)?, take_text(body)?);
        peers.insert(
            node,
            Peer {
                name,
                address,
                store,
                witness,
            },
        );
    }
    Ok(Membership::new(configs, peers))
}

fn put_nodes(nodes: &BTreeSet<NodeId>, out: &mut Vec<u8>) {
    put_count(nodes.len(), out);
    nodes.iter().for_each(|node| out.put_u64_le(*node));
}

fn take_nodes(body: &mut Bytes) -> Result<BTreeSet<NodeId>, Malformed> {
    let count = body.try_get_u32_le()?;
    (0..count).map(|_| Ok(body.try_get_u64_le()?)).collect()
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    out.put_u32_le(u32::try_from(count).expect("entries stay far below 4 GiB"));
}

fn take_bytes(body: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = body.try_get_u32_le()? as usize;
    if length > body.remaining() {
        return Err(Malformed::Short);
    }
    Ok(body.split_to(length))
}

fn take_text(body: &mut Bytes) -> Result<String, Malformed> {
    String::from_utf8(take_bytes(body)?.to_vec()).map_err(|_| Malformed::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Payload> {
        let peer = |number: u8| Peer {
            name: format!("node{number}"),
            address: format!("10.0.0.{number}:7401"),
            store: StoreId([number; 16]),
            witness: number == 3,
        };
        let peers: BTreeMap<NodeId, Peer> = (1..=3).map(|n| (NodeId::from(n), peer(n))).collect();
        vec![
            EntryPayload::Blank,
            EntryPayload::Membership(Membership::new(vec![[1, 2].into(), [1, 2, 3].into()], peers)),
            EntryPayload::Normal(Body::Operations(vec![Pieces::default(), "create".into(), cut()])),
            EntryPayload::Normal(Body::InSync([1, 7].into())),
        ]
    }

    /// An operation with large data behind its head.
    fn cut() -> Pieces {
        let mut cut = Pieces::from("write");
        cut.push(vec![7; LARGE].into());
        cut
    }

    #[test]
    fn entries_survive_the_round_trip() {
        for payload in samples() {
            let mut bytes = Vec::new();
            let kind = encode(&payload, &mut bytes);
            assert_eq!(measure(&payload), (kind, bytes.len()));
            let (mut out, mut pieces) = (vec![1, 2], Pieces::default());
            assert_eq!(encode_shared(&payload, &mut out, &mut pieces), kind);
            pieces.push(out.into());
            assert_eq!(pieces.join()[2..], bytes);
            assert_eq!(decode(kind, bytes.into()), Ok(payload));
        }
    }

    #[test]
    fn large_data_is_shared() {
        let operation = cut();
        let data = operation.split_first().1[0].as_ptr();
        let mut pieces = Pieces::default();
        let payload = EntryPayload::Normal(Body::Operations(vec![operation]));
        encode_shared(&payload, &mut Vec::new(), &mut pieces);
        assert!(pieces.iter().any(|piece| piece.as_ptr() == data));
    }

    #[test]
    fn cut_or_lengthened_entries_are_refused() {
        for payload in samples() {
            let mut bytes = Vec::new();
            let kind = encode(&payload, &mut bytes);
            for end in (0..bytes.len()).filter(|end| *end < 500 || end % 997 == 0) {
                let cut = Bytes::copy_from_slice(&bytes[..end]);
                assert!(decode(kind, cut).is_err(), "{payload:?} cut at {end}");
            }
            bytes.push(0);
            assert_eq!(decode(kind, bytes.into()), Err(Malformed::Long(1)));
        }
    }

    #[test]
    fn unknown_kinds_and_formats_are_refused() {
        assert_eq!(decode(99, Bytes::from_static(&[VERSION])), Err(Malformed::Kind(99)));
        assert_eq!(decode(BLANK, Bytes::from_static(&[9])), Err(Malformed::Version(9)));
    }

    #[test]
    fn hostile_counts_take_no_memory() {
        let hostile = Bytes::from_static(&[VERSION, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        for kind in [MEMBERSHIP, OPERATIONS, IN_SYNC] {
            assert_eq!(decode(kind, hostile.clone()), Err(Malformed::Short));
        }
    }
}
