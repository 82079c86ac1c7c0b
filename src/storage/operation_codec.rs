//! Operations as bytes, as they lie in the log: a version, then postcard's encoding of `Operation`.
//!
//! Postcard numbers variants and fields by their order in the source: in `operation` and `call`, new variants go to the end, and
//! any other change of the types that it names needs a new version here. No I/O.

use bytes::Bytes;
use thiserror::Error;

use super::batch::MAX_BYTES;
use super::operation::Operation;

const VERSION: u8 = 2;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("an operation of unknown format {0:?}")]
    Version(Option<u8>),
    #[error("an operation of {0} bytes")]
    Long(usize),
    #[error("an operation that cannot be read: {0}")]
    Body(postcard::Error),
    #[error("an operation has {0} bytes too many")]
    Trailing(usize),
}

pub fn encode(operation: &Operation) -> Bytes {
    let encoded = postcard::to_extend(operation, vec![VERSION]);
    encoded.expect("a vector takes all, and lengths are known").into()
}

pub fn decode(bytes: &[u8]) -> Result<Operation, Malformed> {
    if bytes.len() > MAX_BYTES {
        return Err(Malformed::Long(bytes.len()));
    }
    let Some((&VERSION, body)) = bytes.split_first() else {
        return Err(Malformed::Version(bytes.first().copied()));
    };
    match postcard::take_from_bytes(body) {
        Ok((operation, [])) => Ok(operation),
        Ok((_, rest)) => Err(Malformed::Trailing(rest.len())),
        Err(error) => Err(Malformed::Body(error)),
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
        let expected = [2, 2, 5, 0xac, 2, 2, 0, 33, 34, 0, 1, 7, 9, 1, 8, 0x80, 1, 2, b'h', b'i'];
        assert_eq!(encode(&write(Bytes::from_static(b"hi"), 0))[..], expected);
        assert_eq!(encode(&Operation::End { session: Session(6) })[..], [2, 1, 6]);
    }

    #[test]
    fn the_largest_write_fits_into_an_entry() {
        let operation = write(vec![7; DATA_MAX].into(), 1000);
        let bytes = encode(&operation);
        assert!(bytes.len() <= MAX_BYTES);
        assert_eq!(decode(&bytes), Ok(operation));
        assert_eq!(decode(&vec![1; MAX_BYTES + 1]), Err(Malformed::Long(MAX_BYTES + 1)));
    }

    #[test]
    fn unknown_formats_are_refused() {
        assert_eq!(decode(&[]), Err(Malformed::Version(None)));
        assert_eq!(decode(&[1, 0, 0]), Err(Malformed::Version(Some(1))));
        assert_eq!(decode(&[2, 1, 6, 0]), Err(Malformed::Trailing(1)));
    }

    proptest! {
        #[test]
        fn operations_come_back(operation in operation()) {
            let bytes = encode(&operation);
            prop_assert_eq!(decode(&bytes), Ok(operation));
            for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            bytes.splice(0..0, [VERSION, 2]);
            let _ = decode(&bytes);
        }
    }
}
