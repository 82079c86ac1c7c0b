//! Replies of mutations as they lie in the replicated state. No I/O.
//!
//! One byte of version, one of the variant, then its fields in order, numbers big-endian. Only variants that a mutation
//! answers with can be kept.

use crate::storage::call::{Attributes, Changed, Error, Inode, Reply, Time};

use super::inode::{kind_from, kind_number};

const VERSION: u8 = 1;

const FAILED: u8 = 0;
const DONE: u8 = 1;
const ATTRIBUTES: u8 = 2;
const OBJECT: u8 = 3;
const SET: u8 = 4;
const WRITTEN: u8 = 5;
const REMOVED: u8 = 6;
const RENAMED: u8 = 7;
const LINKED: u8 = 8;
const BEGUN: u8 = 9;

/// Numbers of the errors; an error keeps its number for ever.
const ERRORS: [(u8, Error); 19] = [
    (1, Error::NotFound),
    (2, Error::Access),
    (3, Error::NotOwner),
    (4, Error::Exists),
    (5, Error::NotFolder),
    (6, Error::IsFolder),
    (7, Error::Invalid),
    (8, Error::TooLarge),
    (9, Error::NoSpace),
    (10, Error::NameTooLong),
    (11, Error::NotEmpty),
    (12, Error::Stale),
    (13, Error::TooManyLinks),
    (14, Error::NotSync),
    (15, Error::WrongType),
    (16, Error::Locked),
    (17, Error::Io),
    (18, Error::Unavailable),
    (19, Error::NoSession),
];

/// `None` for a reply that no mutation gives.
pub fn encode(reply: &Result<Reply, Error>) -> Option<Vec<u8>> {
    let mut out = vec![VERSION];
    match reply {
        Err(error) => {
            let (number, _) = ERRORS.iter().find(|(_, known)| known == error)?;
            out.extend([FAILED, *number]);
        }
        Ok(Reply::Done) => out.push(DONE),
        Ok(Reply::Attributes(of)) => {
            out.push(ATTRIBUTES);
            put_attributes(&mut out, of);
        }
        Ok(Reply::Object { attributes, folder }) => {
            out.push(OBJECT);
            put_attributes(&mut out, attributes);
            out.push(u8::from(folder.is_some()));
            if let Some(folder) = folder {
                put_changed(&mut out, folder);
            }
        }
        Ok(Reply::Set(changed)) => {
            out.push(SET);
            put_changed(&mut out, changed);
        }
        Ok(Reply::Written { offset, changed }) => {
            out.push(WRITTEN);
            out.extend(offset.to_be_bytes());
            put_changed(&mut out, changed);
        }
        Ok(Reply::Removed { folder }) => {
            out.push(REMOVED);
            put_changed(&mut out, folder);
        }
        Ok(Reply::Renamed { from, to }) => {
            out.push(RENAMED);
            put_changed(&mut out, from);
            put_changed(&mut out, to);
        }
        Ok(Reply::Linked { attributes, folder }) => {
            out.push(LINKED);
            put_attributes(&mut out, attributes);
            put_changed(&mut out, folder);
        }
        Ok(Reply::Begun { next }) => {
            out.push(BEGUN);
            out.extend(next.to_be_bytes());
        }
        Ok(_) => return None,
    }
    Some(out)
}

/// `None`: not what `encode` wrote.
pub fn decode(bytes: &[u8]) -> Option<Result<Reply, Error>> {
    let mut input = Input(bytes);
    if input.byte()? != VERSION {
        return None;
    }
    let reply = match input.byte()? {
        FAILED => {
            let number = input.byte()?;
            Err(ERRORS.iter().find(|(known, _)| *known == number)?.1)
        }
        DONE => Ok(Reply::Done),
        ATTRIBUTES => Ok(Reply::Attributes(input.attributes()?)),
        OBJECT => Ok(Reply::Object {
            attributes: input.attributes()?,
            folder: match input.byte()? {
                0 => None,
                _ => Some(input.changed()?),
            },
        }),
        SET => Ok(Reply::Set(input.changed()?)),
        WRITTEN => Ok(Reply::Written {
            offset: input.long()?,
            changed: input.changed()?,
        }),
        REMOVED => Ok(Reply::Removed {
            folder: input.changed()?,
        }),
        RENAMED => Ok(Reply::Renamed {
            from: input.changed()?,
            to: input.changed()?,
        }),
        LINKED => Ok(Reply::Linked {
            attributes: input.attributes()?,
            folder: input.changed()?,
        }),
        BEGUN => Ok(Reply::Begun { next: input.long()? }),
        _ => return None,
    };
    input.0.is_empty().then_some(reply)
}

fn put_changed(out: &mut Vec<u8>, changed: &Changed) {
    put_attributes(out, &changed.before);
    put_attributes(out, &changed.after);
}

fn put_attributes(out: &mut Vec<u8>, of: &Attributes) {
    out.extend(of.inode.0.to_be_bytes());
    out.extend(of.generation.to_be_bytes());
    out.push(kind_number(of.kind));
    for number in [of.mode, of.links, of.uid, of.gid, of.device.0, of.device.1] {
        out.extend(number.to_be_bytes());
    }
    out.extend(of.size.to_be_bytes());
    out.extend(of.used.to_be_bytes());
    for time in [of.accessed, of.modified, of.changed] {
        out.extend(time.seconds.to_be_bytes());
        out.extend(time.nanoseconds.to_be_bytes());
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn int(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time {
            seconds: self.take().map(i64::from_be_bytes)?,
            nanoseconds: self.int()?,
        })
    }

    fn changed(&mut self) -> Option<Changed> {
        Some(Changed {
            before: self.attributes()?,
            after: self.attributes()?,
        })
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let inode = Inode(self.long()?);
        let generation = self.int()?;
        let kind = kind_from(self.byte()?);
        let [mode, links, uid, gid, major, minor] = [
            self.int()?,
            self.int()?,
            self.int()?,
            self.int()?,
            self.int()?,
            self.int()?,
        ];
        Some(Attributes {
            inode,
            generation,
            kind,
            mode,
            links,
            uid,
            gid,
            size: self.long()?,
            used: self.long()?,
            device: (major, minor),
            accessed: self.time()?,
            modified: self.time()?,
            changed: self.time()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::Kind;

    fn attributes(seed: u32) -> Attributes {
        let time = |add| Time {
            seconds: i64::from(seed) - 50 + add,
            nanoseconds: seed + 7,
        };
        Attributes {
            inode: Inode(u64::MAX - u64::from(seed)),
            generation: seed,
            kind: [
                Kind::File,
                Kind::Folder,
                Kind::Link,
                Kind::Fifo,
                Kind::Socket,
                Kind::Character,
                Kind::Block,
            ][seed as usize % 7],
            mode: seed + 1,
            links: seed + 2,
            uid: seed + 3,
            gid: seed + 4,
            size: u64::from(seed) << 33,
            used: u64::from(seed) << 34,
            device: (seed + 5, seed + 6),
            accessed: time(1),
            modified: time(2),
            changed: time(3),
        }
    }

    fn changed(seed: u32) -> Changed {
        Changed {
            before: attributes(seed),
            after: attributes(seed + 1),
        }
    }

    fn samples() -> Vec<Result<Reply, Error>> {
        let mut all: Vec<_> = ERRORS.iter().map(|(_, error)| Err(*error)).collect();
        all.extend([
            Ok(Reply::Done),
            Ok(Reply::Attributes(attributes(1))),
            Ok(Reply::Object {
                attributes: attributes(2),
                folder: None,
            }),
            Ok(Reply::Object {
                attributes: attributes(3),
                folder: Some(changed(4)),
            }),
            Ok(Reply::Set(changed(5))),
            Ok(Reply::Written {
                offset: 1 << 40,
                changed: changed(6),
            }),
            Ok(Reply::Removed { folder: changed(7) }),
            Ok(Reply::Renamed {
                from: changed(8),
                to: changed(9),
            }),
            Ok(Reply::Linked {
                attributes: attributes(10),
                folder: changed(11),
            }),
        ]);
        all
    }

    #[test]
    fn every_reply_of_a_mutation_comes_back() {
        for reply in samples() {
            let bytes = encode(&reply).unwrap();
            assert_eq!(decode(&bytes), Some(reply));
        }
    }

    #[test]
    fn a_cut_or_longer_reply_is_refused() {
        for reply in samples() {
            let mut bytes = encode(&reply).unwrap();
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), None, "{reply:?} cut at {cut}");
            }
            bytes.push(0);
            assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn replies_of_queries_are_not_kept() {
        assert_eq!(encode(&Ok(Reply::Access(1))), None);
    }
}
