//! Operations as bytes, as they lie in the log: `version u8`, `length of the data u32`, postcard's encoding of `Operation`
//! without the data that it writes, and that data. So data is read without being copied.
//!
//! Postcard numbers variants and fields by their order in the source: in `operation` and `call`, new variants go to the end, and
//! any other change of the types that it names needs a new version here. No I/O.

use bytes::{Buf, BufMut, Bytes};
use thiserror::Error;

use super::batch::MAX_BYTES;
use super::call::Mutation;
use super::operation::Operation;
use crate::base::Pieces;

const VERSION: u8 = 3;
/// Longest encoding without data that needs no second allocation: names and a few groups.
const HEAD: usize = 256;
/// Data from this size on stays where it is. It came in a buffer of which it is nearly all; less would keep too much of one
/// in memory.
const SHARED: usize = 64 << 10;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("an operation of unknown format {0:?}")]
    Version(Option<u8>),
    #[error("an operation of {0} bytes")]
    Long(usize),
    #[error("an operation is shorter than it says")]
    Short,
    #[error("an operation that cannot be read: {0}")]
    Body(postcard::Error),
    #[error("an operation has {0} bytes too many")]
    Trailing(usize),
}

/// Large data shares the memory of the operation's.
pub fn encode(operation: &Operation) -> Pieces {
    let mut head = operation.clone();
    let data = data(&mut head).map(std::mem::take).unwrap_or_default();
    let is_large = data.len() >= SHARED;
    let mut out = Vec::with_capacity(if is_large { HEAD } else { HEAD + data.len() });
    out.put_u8(VERSION);
    out.put_u32_le(u32::try_from(data.len()).expect("a call carries at most DATA_MAX"));
    let encoded = postcard::to_extend(&head, out);
    let mut out = encoded.expect("a vector takes all, and lengths are known");
    if !is_large {
        out.put_slice(&data);
        return out.into();
    }
    let mut pieces = Pieces::from(out);
    pieces.push(data);
    pieces
}

/// Data shares the memory of `pieces`.
pub fn decode(pieces: &Pieces) -> Result<Operation, Malformed> {
    let whole = pieces.len();
    if whole > MAX_BYTES {
        return Err(Malformed::Long(whole));
    }
    let (mut head, apart) = match pieces.split_first() {
        (head, [data]) => (head.clone(), Some(data.clone())),
        _ => (pieces.clone().join(), None),
    };
    match head.try_get_u8() {
        Ok(VERSION) => {}
        other => return Err(Malformed::Version(other.ok())),
    }
    let length = head.try_get_u32_le().map_err(|_| Malformed::Short)? as usize;
    let written = match apart {
        // As `encode` has cut it.
        Some(data) if data.len() == length => data,
        Some(_) => return decode(&pieces.clone().join().into()),
        None => head.split_off(head.len().checked_sub(length).ok_or(Malformed::Short)?),
    };
    let (mut operation, rest): (Operation, _) = postcard::take_from_bytes(&head).map_err(Malformed::Body)?;
    if !rest.is_empty() {
        return Err(Malformed::Trailing(rest.len()));
    }
    match data(&mut operation) {
        Some(data) if data.is_empty() => *data = written,
        _ if written.is_empty() => {}
        _ => return Err(Malformed::Trailing(length)),
    }
    Ok(operation)
}

/// What an operation writes.
fn data(operation: &mut Operation) -> Option<&mut Bytes> {
    match operation {
        Operation::Mutate {
            mutation: Mutation::Write { data, .. } | Mutation::Append { data, .. },
            ..
        } => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::call::{
        Caller, Change, Creation, DATA_MAX, Inode, Kind, Lock, LockFamily, Mutation, SetTime, Time,
    };
    use crate::storage::door::RequestKey;
    use crate::storage::operation::{Place, Session};

    fn inode() -> impl Strategy<Value = Inode> {
        any::<u64>().prop_map(Inode)
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..300)
    }

    fn data() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..5000).prop_map(Bytes::from)
    }

    fn time() -> impl Strategy<Value = Time> {
        (any::<i64>(), any::<u32>()).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
    }

    fn change() -> impl Strategy<Value = Change> {
        let set_time = || prop::option::of(prop_oneof![Just(SetTime::Now), time().prop_map(SetTime::At)]);
        let number = || any::<Option<u32>>();
        (
            number(),
            number(),
            number(),
            any::<Option<u64>>(),
            set_time(),
            set_time(),
        )
            .prop_map(|(mode, uid, gid, size, accessed, modified)| Change {
                mode,
                uid,
                gid,
                size,
                accessed,
                modified,
            })
    }

    fn lock() -> impl Strategy<Value = Lock> {
        let family = prop_oneof![Just(LockFamily::Flock), Just(LockFamily::Fcntl)];
        (family, any::<(u64, bool, u64, u64, u32)>()).prop_map(|(family, (owner, is_exclusive, start, end, pid))| {
            Lock {
                family,
                owner,
                is_exclusive,
                start,
                end,
                pid,
            }
        })
    }

    fn creation() -> impl Strategy<Value = Creation> {
        prop_oneof![
            Just(Creation::Unchecked),
            Just(Creation::Guarded),
            any::<u64>().prop_map(Creation::Exclusive)
        ]
    }

    fn kind() -> impl Strategy<Value = Kind> {
        use Kind::{Block, Character, Fifo, File, Folder, Link, Socket};
        prop::sample::select(vec![File, Folder, Link, Fifo, Socket, Character, Block])
    }

    #[rustfmt::skip]
    fn mutation() -> impl Strategy<Value = Mutation> {
        prop_oneof![
            (inode(), change(), prop::option::of(time())).prop_map(|(inode, change, guard)| Mutation::Set { inode, change, guard }),
            (inode(), any::<u64>(), data()).prop_map(|(inode, offset, data)| Mutation::Write { inode, offset, data }),
            (inode(), data()).prop_map(|(inode, data)| Mutation::Append { inode, data }),
            (inode(), name(), creation(), change()).prop_map(|(folder, name, how, change)| Mutation::Create { folder, name, how, change }),
            (inode(), name(), change()).prop_map(|(folder, name, change)| Mutation::MakeFolder { folder, name, change }),
            (inode(), name(), name(), change()).prop_map(|(folder, name, target, change)| Mutation::MakeLink { folder, name, target, change }),
            (inode(), name(), kind(), any::<(u32, u32)>(), change())
                .prop_map(|(folder, name, kind, device, change)| Mutation::MakeNode { folder, name, kind, device, change }),
            (inode(), name()).prop_map(|(folder, name)| Mutation::Remove { folder, name }),
            (inode(), name()).prop_map(|(folder, name)| Mutation::RemoveFolder { folder, name }),
            (inode(), name(), inode(), name()).prop_map(|(from, name, to, new_name)| Mutation::Rename { from, name, to, new_name }),
            (inode(), inode(), name()).prop_map(|(inode, folder, name)| Mutation::Link { inode, folder, name }),
            inode().prop_map(|inode| Mutation::Open { inode }),
            inode().prop_map(|inode| Mutation::Close { inode }),
            (inode(), lock()).prop_map(|(inode, lock)| Mutation::Lock { inode, lock }),
            (inode(), lock()).prop_map(|(inode, lock)| Mutation::Unlock { inode, lock }),
        ]
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let session = || any::<u64>().prop_map(Session);
        let groups = prop::collection::vec(any::<u32>(), 0..20);
        let caller = (any::<u32>(), any::<u32>(), groups).prop_map(|(uid, gid, groups)| Caller { uid, gid, groups });
        let key = any::<(u64, u32, u64)>().prop_map(|(client, xid, checksum)| RequestKey { client, xid, checksum });
        let mutate = (
            session(),
            (any::<u64>(), any::<u64>(), prop::option::of(key)),
            caller,
            time(),
            inode(),
            mutation(),
        )
            .prop_map(
                |(session, (sequence, acknowledged, key), caller, time, fresh, mutation)| Operation::Mutate {
                    session,
                    sequence,
                    acknowledged,
                    key,
                    caller,
                    time,
                    fresh,
                    mutation,
                },
            );
        prop_oneof![
            1 => (session(), any::<String>(), any::<bool>())
                .prop_map(|(session, place, adopts)| Operation::Begin { session, place: Place(place), adopts }),
            1 => session().prop_map(|session| Operation::End { session }),
            1 => Just(Operation::Reap),
            20 => mutate,
        ]
    }

    fn write(data: Bytes, groups: u32) -> Operation {
        Operation::Mutate {
            session: Session(5),
            sequence: 300,
            acknowledged: 2,
            key: None,
            caller: Caller {
                uid: 33,
                gid: 34,
                groups: (0..groups).map(|group| u32::MAX - group).collect(),
            },
            time: Time {
                seconds: -1,
                nanoseconds: 7,
            },
            fresh: Inode(9),
            mutation: Mutation::Write {
                inode: Inode(8),
                offset: 128,
                data,
            },
        }
    }

    #[test]
    fn the_format_stays() {
        let head = [2, 5, 0xac, 2, 2, 0, 33, 34, 0, 1, 7, 9, 1, 8, 0x80, 1, 0];
        let expected = [&[3, 2, 0, 0, 0][..], &head, b"hi"].concat();
        assert_eq!(encode(&write(Bytes::from_static(b"hi"), 0)).join()[..], expected);
        assert_eq!(
            encode(&Operation::End { session: Session(6) }).join()[..],
            [3, 0, 0, 0, 0, 1, 6]
        );
        assert_eq!(encode(&Operation::Reap).join()[..], [3, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn the_largest_write_fits_into_an_entry() {
        let operation = write(vec![7; DATA_MAX].into(), 1000);
        let bytes = encode(&operation);
        assert!(bytes.len() <= MAX_BYTES);
        assert_eq!(decode(&bytes), Ok(operation.clone()));
        let cut_elsewhere = bytes.clone().join();
        let mut pieces = Pieces::from(cut_elsewhere.slice(..1000));
        pieces.push(cut_elsewhere.slice(1000..));
        assert_eq!(decode(&pieces), Ok(operation));
        assert_eq!(
            decode(&vec![1; MAX_BYTES + 1].into()),
            Err(Malformed::Long(MAX_BYTES + 1))
        );
    }

    #[test]
    fn unknown_formats_are_refused() {
        let read = |bytes: &'static [u8]| decode(&bytes.into());
        assert_eq!(read(&[]), Err(Malformed::Version(None)));
        assert_eq!(read(&[2, 0, 0]), Err(Malformed::Version(Some(2))));
        assert_eq!(read(&[3, 0, 0, 0, 0, 1, 6, 0]), Err(Malformed::Trailing(1)));
        assert_eq!(
            read(&[3, 1, 0, 0, 0, 1, 6, 0]),
            Err(Malformed::Trailing(1)),
            "data of none"
        );
        assert_eq!(read(&[3, 9, 0, 0, 0, 1, 6, 0]), Err(Malformed::Short));
    }

    #[test]
    fn data_is_not_copied() {
        let sent = Bytes::from(vec![7; SHARED]);
        let encoded = encode(&write(sent.clone(), 0));
        assert_eq!(encoded.iter().last().map(|data| data.as_ptr()), Some(sent.as_ptr()));
        let bytes = encoded.join();
        let Ok(Operation::Mutate {
            mutation: Mutation::Write { data, .. },
            ..
        }) = decode(&bytes.clone().into())
        else {
            panic!("not what was encoded");
        };
        assert_eq!(data.as_ptr_range().end, bytes.as_ptr_range().end);
    }

    proptest! {
        #[test]
        fn operations_come_back(operation in operation()) {
            let bytes = encode(&operation).join();
            prop_assert_eq!(decode(&bytes.clone().into()), Ok(operation));
            for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                prop_assert!(decode(&bytes.slice(..end).into()).is_err());
            }
        }

        #[test]
        fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes.clone().into());
            bytes.splice(0..0, [VERSION, 2, 0, 0, 0, 2]);
            let _ = decode(&bytes.into());
        }
    }
}
