//! A request of the kernel, from its bytes. No I/O.

use thiserror::Error;
use zerocopy::FromBytes;

use super::abi::{self, InHeader, opcode};

/// Who asks what of which inode.
#[derive(Clone, Debug)]
pub struct Request {
    pub header: InHeader,
    pub ask: Ask,
}

#[derive(Clone, Debug)]
pub enum Ask {
    Init(abi::InitIn),
    Lookup(Vec<u8>),
    /// Nothing is kept by what the kernel knows: not answered.
    Forget,
    Attributes,
    Set(abi::SetAttributesIn),
    ReadLink,
    MakeLink {
        name: Vec<u8>,
        target: Vec<u8>,
    },
    MakeNode {
        name: Vec<u8>,
        of: abi::MakeNodeIn,
    },
    MakeFolder {
        name: Vec<u8>,
        of: abi::MakeFolderIn,
    },
    Remove(Vec<u8>),
    RemoveFolder(Vec<u8>),
    Rename {
        name: Vec<u8>,
        folder: u64,
        new_name: Vec<u8>,
        flags: u32,
    },
    Link {
        node: u64,
        name: Vec<u8>,
    },
    Open(abi::OpenIn),
    Create {
        name: Vec<u8>,
        of: abi::CreateIn,
    },
    Read(abi::ReadIn),
    /// Its data is what follows in the bytes.
    Write(abi::WriteIn),
    Space,
    Release(abi::ReleaseIn),
    Sync,
    Flush(abi::FlushIn),
    OpenFolder,
    ReleaseFolder(abi::ReleaseIn),
    /// With attributes or without.
    List {
        of: abi::ReadIn,
        is_plus: bool,
    },
    TestLock(abi::LockIn),
    Lock {
        of: abi::LockIn,
        waits: bool,
    },
    Interrupt(u64),
    Destroy,
    /// Not done here, so the kernel does without: extended attributes, ioctl, fallocate, looking for holes…
    Other,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("a request of {0} bytes")]
    Short(usize),
    #[error("request {opcode} has no whole arguments in {length} bytes")]
    Arguments { opcode: u32, length: usize },
}

/// Bytes before the data of a WRITE.
pub const WRITE_HEAD: usize = size_of::<InHeader>() + size_of::<abi::WriteIn>();

/// The head of a request and what follows it, cut to the length that it says.
pub fn head(bytes: &[u8]) -> Result<(InHeader, &[u8]), Malformed> {
    let short = || Malformed::Short(bytes.len());
    let (header, _) = InHeader::read_from_prefix(bytes).map_err(|_| short())?;
    let length = usize::try_from(header.len).unwrap_or(usize::MAX);
    let body = bytes.get(size_of::<InHeader>()..length).ok_or_else(short)?;
    Ok((header, body))
}

pub fn parse(bytes: &[u8]) -> Result<Request, Malformed> {
    let (header, body) = head(bytes)?;
    let mut input = Input(body);
    let ask = ask(header.opcode, &mut input).ok_or(Malformed::Arguments {
        opcode: header.opcode,
        length: bytes.len(),
    })?;
    Ok(Request { header, ask })
}

fn ask(opcode: u32, input: &mut Input<'_>) -> Option<Ask> {
    Some(match opcode {
        opcode::INIT => Ask::Init(input.take()?),
        opcode::LOOKUP => Ask::Lookup(input.name()?),
        opcode::FORGET | opcode::BATCH_FORGET => Ask::Forget,
        opcode::GETATTR => Ask::Attributes,
        opcode::SETATTR => Ask::Set(input.take()?),
        opcode::READLINK => Ask::ReadLink,
        opcode::SYMLINK => Ask::MakeLink {
            name: input.name()?,
            target: input.name()?,
        },
        opcode::MKNOD => Ask::MakeNode {
            of: input.take()?,
            name: input.name()?,
        },
        opcode::MKDIR => Ask::MakeFolder {
            of: input.take()?,
            name: input.name()?,
        },
        opcode::UNLINK => Ask::Remove(input.name()?),
        opcode::RMDIR => Ask::RemoveFolder(input.name()?),
        opcode::RENAME => {
            let of: abi::RenameIn = input.take()?;
            input.rename(of.folder, 0)?
        }
        opcode::RENAME2 => {
            let of: abi::Rename2In = input.take()?;
            input.rename(of.folder, of.flags)?
        }
        opcode::LINK => Ask::Link {
            node: input.take::<abi::LinkIn>()?.node,
            name: input.name()?,
        },
        opcode::OPEN => Ask::Open(input.take()?),
        opcode::CREATE => Ask::Create {
            of: input.take()?,
            name: input.name()?,
        },
        opcode::READ => Ask::Read(input.take()?),
        opcode::WRITE => {
            let of: abi::WriteIn = input.take()?;
            let is_whole = usize::try_from(of.size).is_ok_and(|size| size == input.0.len());
            is_whole.then_some(Ask::Write(of))?
        }
        opcode::STATFS => Ask::Space,
        opcode::RELEASE => Ask::Release(input.take()?),
        opcode::FSYNC | opcode::FSYNCDIR => Ask::Sync,
        opcode::FLUSH => Ask::Flush(input.take()?),
        opcode::OPENDIR => Ask::OpenFolder,
        opcode::RELEASEDIR => Ask::ReleaseFolder(input.take()?),
        opcode::READDIR | opcode::READDIRPLUS => Ask::List {
            of: input.take()?,
            is_plus: opcode == opcode::READDIRPLUS,
        },
        opcode::GETLK => Ask::TestLock(input.take()?),
        opcode::SETLK | opcode::SETLKW => Ask::Lock {
            of: input.take()?,
            waits: opcode == opcode::SETLKW,
        },
        opcode::INTERRUPT => Ask::Interrupt(input.take::<abi::InterruptIn>()?.unique),
        opcode::DESTROY => Ask::Destroy,
        // ACCESS too: the kernel checks permissions itself.
        _ => Ask::Other,
    })
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<T: FromBytes>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }

    /// Ends with a zero byte.
    fn name(&mut self) -> Option<Vec<u8>> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = rest.get(1..)?;
        Some(name.to_vec())
    }

    fn rename(&mut self, folder: u64, flags: u32) -> Option<Ask> {
        Some(Ask::Rename {
            name: self.name()?,
            folder,
            new_name: self.name()?,
            flags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn bytes(opcode: u32, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + body.len()).unwrap(),
            opcode,
            unique: 7,
            node: 1,
            ..InHeader::default()
        };
        [header.as_bytes(), &body].concat()
    }

    #[test]
    fn names_follow_their_structures() {
        let request = parse(&bytes(
            opcode::RENAME2,
            &[
                abi::Rename2In {
                    folder: 9,
                    flags: 1,
                    padding: 0,
                }
                .as_bytes(),
                b"old\0new\0",
            ],
        ))
        .unwrap();
        assert!(
            matches!(request.ask, Ask::Rename { folder: 9, flags: 1, name, new_name }
            if name == b"old" && new_name == b"new")
        );
        let request = parse(&bytes(opcode::LOOKUP, &[b"a\0"])).unwrap();
        assert_eq!((request.header.unique, request.header.node), (7, 1));
        assert!(matches!(request.ask, Ask::Lookup(name) if name == b"a"));
    }

    #[test]
    fn a_write_has_as_much_data_as_it_says() {
        let write = |size| {
            let of = abi::WriteIn {
                size,
                ..abi::WriteIn::default()
            };
            parse(&bytes(opcode::WRITE, &[of.as_bytes(), b"data"]))
        };
        assert!(matches!(write(4).unwrap().ask, Ask::Write(of) if of.size == 4));
        assert!(write(3).is_err() && write(5).is_err());
    }

    #[test]
    fn what_is_cut_is_refused_and_what_is_unknown_is_not() {
        let whole = bytes(opcode::MKNOD, &[abi::MakeNodeIn::default().as_bytes(), b"name\0"]);
        assert!(parse(&whole).is_ok());
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(matches!(parse(&bytes(4096, &[b"x"])).unwrap().ask, Ask::Other));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(opcode in 0u32..50, body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes(opcode, &[&body]));
            let _ = parse(&body);
        }
    }
}
