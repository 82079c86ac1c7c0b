//! What answers rest on, and its short form in tables. No I/O.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::storage::call::{Error, Inode, Query, Reply};
use crate::storage::request::Answer;

/// A part of the state that changes as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing<N> {
    /// Attributes and contents.
    Attributes(Inode),
    /// Who may search a folder.
    Access(Inode),
    /// What a name of a folder means.
    Name(Inode, N),
    /// Who holds locks of an inode.
    Locks(Inode),
}

/// A thing in a table, 16 bytes: names by their hash under a key of its own, so nobody can choose two names that are one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(Inode, u64);

/// Makes keys; those of two of these have nothing in common.
#[derive(Debug, Default)]
pub struct Keys(RandomState);

/// Of `Key`, where they are no hash of a name.
const ATTRIBUTES: u64 = 0;
const ACCESS: u64 = 1;
const LOCKS: u64 = 2;

impl Keys {
    pub fn of<N: AsRef<[u8]>>(&self, thing: &Thing<N>) -> Key {
        match thing {
            Thing::Attributes(inode) => Key(*inode, ATTRIBUTES),
            Thing::Access(inode) => Key(*inode, ACCESS),
            Thing::Name(folder, name) => Key(*folder, self.0.hash_one(name.as_ref()).max(LOCKS + 1)),
            Thing::Locks(inode) => Key(*inode, LOCKS),
        }
    }
}

impl Thing<&[u8]> {
    pub fn to_owned(&self) -> Thing<Vec<u8>> {
        match *self {
            Thing::Attributes(inode) => Thing::Attributes(inode),
            Thing::Access(inode) => Thing::Access(inode),
            Thing::Name(folder, name) => Thing::Name(folder, name.to_vec()),
            Thing::Locks(inode) => Thing::Locks(inode),
        }
    }
}

/// What an answer rests on, the same thing twice where it is less than three: it is true until one of these is touched.
/// `None`: not to be kept.
pub fn rests_on<'a>(query: &'a Query, answer: &Answer) -> Option<[Thing<&'a [u8]>; 3]> {
    match (query, answer) {
        (Query::Attributes { inode } | Query::Access { inode, .. } | Query::ReadLink { inode }, Ok(_)) => {
            Some(std::array::from_fn(|_| Thing::Attributes(*inode)))
        }
        // The parent may change without the folder.
        (Query::Lookup { name, .. }, _) if matches!(name.as_slice(), b"." | b"..") => None,
        (Query::Lookup { folder, name }, Ok(Reply::Object { attributes, .. })) => Some([
            Thing::Name(*folder, name),
            Thing::Access(*folder),
            Thing::Attributes(attributes.inode),
        ]),
        (Query::Lookup { folder, name }, Err(Error::NotFound)) => Some([
            Thing::Name(*folder, name),
            Thing::Access(*folder),
            Thing::Access(*folder),
        ]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_apart_has_a_key_of_its_own() {
        let (keys, folder) = (Keys::default(), Inode(1));
        let things = [
            Thing::Attributes(folder),
            Thing::Access(folder),
            Thing::Locks(folder),
            Thing::Name(folder, b"a".as_slice()),
            Thing::Name(folder, b"b"),
            Thing::Name(Inode(2), b"a"),
        ];
        for (at, thing) in things.iter().enumerate() {
            for (other_at, other) in things.iter().enumerate() {
                assert_eq!(keys.of(thing) == keys.of(other), at == other_at);
            }
            assert_eq!(keys.of(thing), keys.of(&thing.to_owned()));
        }
        let (one, other) = (&things[3], Keys::default());
        assert_ne!(keys.of(one), other.of(one), "hashes are told to nobody");
    }
}
