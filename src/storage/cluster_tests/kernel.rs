//! A kernel's end of a FUSE device, by hand: requests as bytes, and their answers. The device is a pair of sockets, one for each process
//! that serves the mount: what the real one keeps for the next process is in the memory.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::watch;
use zerocopy::{FromBytes, IntoBytes};

use super::node::{Node, PATIENCE};
use crate::base::Scope;
use crate::host::mount::{Estate, Handed, Trustee};
use crate::storage::door::fuse::wire::abi::{self, InHeader, OutHeader};

/// Seconds for which it may answer by itself what the leader has promised; else fewer.
const PROMISED: u64 = 3;

pub struct Kernel {
    mount: u64,
    estate: watch::Sender<Estate>,
    memory: OwnedFd,
    ours: tokio::net::UnixDatagram,
    last: u64,
    answers: HashMap<u64, (i32, Vec<u8>)>,
    /// Without an answer so far.
    sent: BTreeMap<u64, Vec<u8>>,
    _scope: Scope,
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
}

impl Kernel {
    /// Mounts on a node that does not run; it serves the mount when it is started.
    pub fn mount(node: &mut Node) -> Self {
        let estate = watch::Sender::new(None);
        let (trustee, end) = Trustee::new(estate.subscribe()).unwrap();
        node.fuse = Some(end);
        let scope = Scope::new();
        scope.spawn(trustee.run());
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let mut kernel = Kernel {
            mount: u64::from_ne_bytes(random),
            estate,
            memory: memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap(),
            ours: tokio_end(pair().0),
            last: 0,
            answers: HashMap::new(),
            sent: BTreeMap::new(),
            _scope: scope,
        };
        kernel.hand_over();
        kernel
    }

    /// The process that served the mount is gone. What it had not answered, it may not have read: the next one gets it again.
    pub async fn renew(&mut self) {
        self.hand_over();
        for bytes in self.sent.values() {
            self.ours.send(bytes).await.unwrap();
        }
    }

    fn hand_over(&mut self) {
        let (ours, device) = pair();
        self.ours = tokio_end(ours);
        let handed = Handed {
            device,
            memory: self.memory.as_fd().try_clone_to_owned().unwrap(),
            // Of a socket in the device's place nothing can be spliced.
            pipes: Vec::new(),
            mount: self.mount,
        };
        self.estate.send_replace(Some(Arc::new(handed)));
    }

    /// Sends a request; its number.
    pub async fn send(&mut self, opcode: u32, node: u64, parts: &[&[u8]]) -> u64 {
        self.last += 2;
        let body = parts.concat();
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + body.len()).unwrap(),
            opcode,
            unique: self.last,
            node,
            pid: std::process::id(),
            ..InHeader::default()
        };
        let bytes = [header.as_bytes(), &body].concat();
        self.ours.send(&bytes).await.unwrap();
        self.sent.insert(self.last, bytes);
        self.last
    }

    /// What a request was answered with.
    pub async fn answer(&mut self, unique: u64) -> Result<Vec<u8>, i32> {
        loop {
            if let Some((error, body)) = self.answers.remove(&unique) {
                return if error == 0 { Ok(body) } else { Err(-error) };
            }
            self.receive().await;
        }
    }

    /// Takes an answer; a notice is returned.
    async fn receive(&mut self) -> Option<(i32, Vec<u8>)> {
        let mut bytes = vec![0; 64 << 10];
        let length = tokio::time::timeout(PATIENCE, self.ours.recv(&mut bytes)).await;
        let message = &bytes[..length.expect("a message in time").unwrap()];
        let (header, body) = OutHeader::read_from_prefix(message).unwrap();
        let message = (header.error, body.to_vec());
        if header.unique == 0 {
            return Some(message);
        }
        if self.sent.remove(&header.unique).is_some() {
            self.answers.insert(header.unique, message);
        }
        None
    }

    /// Waits until it is told to forget a name; which one.
    pub async fn forgets(&mut self) -> Vec<u8> {
        loop {
            if let Some((abi::notify::INVALID_ENTRY, of)) = self.receive().await {
                let (_, name) = abi::InvalidEntry::read_from_prefix(&of).unwrap();
                return name.strip_suffix(b"\0").unwrap().to_vec();
            }
        }
    }

    pub async fn ask(&mut self, opcode: u32, node: u64, parts: &[&[u8]]) -> Result<Vec<u8>, i32> {
        let unique = self.send(opcode, node, parts).await;
        self.answer(unique).await
    }

    /// The node behind a name; 0: there is none.
    pub async fn look(&mut self, name: &[u8]) -> u64 {
        self.entry(name).await.node
    }

    /// Looks until the answer may be kept for as long as a promised one.
    pub async fn keep(&mut self, name: &[u8]) {
        while self.entry(name).await.entry_valid < PROMISED {
            tokio::task::yield_now().await;
        }
    }

    async fn entry(&mut self, name: &[u8]) -> abi::EntryOut {
        let found = self.ask(abi::opcode::LOOKUP, 1, &[name, b"\0"]).await.unwrap();
        abi::EntryOut::read_from_prefix(&found).unwrap().0
    }

    /// Makes and opens a file: its node and its handle.
    pub async fn create(&mut self, name: &[u8]) -> (u64, u64) {
        let of = abi::CreateIn {
            flags: nix::libc::O_RDWR.cast_unsigned(),
            mode: 0o100_644,
            ..abi::CreateIn::default()
        };
        let made = self.ask(abi::opcode::CREATE, 1, &[of.as_bytes(), name, b"\0"]).await;
        let made = made.unwrap();
        let (entry, rest) = abi::EntryOut::read_from_prefix(&made).unwrap();
        (entry.node, abi::OpenOut::read_from_prefix(rest).unwrap().0.handle)
    }

    pub async fn open(&mut self, node: u64) -> u64 {
        let of = abi::OpenIn::default();
        let opened = self.ask(abi::opcode::OPEN, node, &[of.as_bytes()]).await.unwrap();
        abi::OpenOut::read_from_prefix(&opened).unwrap().0.handle
    }

    pub async fn write(&mut self, (node, handle): (u64, u64), offset: u64, data: &[u8]) -> u32 {
        let of = abi::WriteIn {
            handle,
            offset,
            size: u32::try_from(data.len()).unwrap(),
            ..abi::WriteIn::default()
        };
        let written = self
            .ask(abi::opcode::WRITE, node, &[of.as_bytes(), data])
            .await
            .unwrap();
        abi::WriteOut::read_from_prefix(&written).unwrap().0.size
    }

    pub async fn read(&mut self, (node, handle): (u64, u64)) -> Result<Vec<u8>, i32> {
        let of = abi::ReadIn {
            handle,
            size: 4096,
            ..abi::ReadIn::default()
        };
        self.ask(abi::opcode::READ, node, &[of.as_bytes()]).await
    }

    pub async fn flock(&mut self, (node, owner): (u64, u64), kind: i32, waits: bool) -> u64 {
        let of = abi::LockIn {
            owner,
            kind: kind.cast_unsigned(),
            flags: abi::LOCK_FLOCK,
            ..abi::LockIn::default()
        };
        let opcode = if waits { abi::opcode::SETLKW } else { abi::opcode::SETLK };
        self.send(opcode, node, &[of.as_bytes()]).await
    }

    pub async fn fcntl(&mut self, (node, handle): (u64, u64), owner: u64, kind: i32, waits: bool) -> u64 {
        let of = abi::LockIn {
            handle,
            owner,
            end: i64::MAX.cast_unsigned(),
            kind: kind.cast_unsigned(),
            ..abi::LockIn::default()
        };
        let opcode = if waits { abi::opcode::SETLKW } else { abi::opcode::SETLK };
        self.send(opcode, node, &[of.as_bytes()]).await
    }

    /// Notes of another version lie in the memory.
    pub fn scramble(&self) {
        nix::sys::uio::pwrite(&self.memory, &u64::MAX.to_ne_bytes(), 0).unwrap();
    }

    pub async fn release(&mut self, (node, handle): (u64, u64)) {
        let of = abi::ReleaseIn {
            handle,
            ..abi::ReleaseIn::default()
        };
        self.ask(abi::opcode::RELEASE, node, &[of.as_bytes()]).await.unwrap();
    }

    pub async fn interrupt(&mut self, unique: u64) {
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + 8).unwrap(),
            opcode: abi::opcode::INTERRUPT,
            unique: unique | 1,
            ..InHeader::default()
        };
        let of = abi::InterruptIn { unique };
        self.ours
            .send(&[header.as_bytes(), of.as_bytes()].concat())
            .await
            .unwrap();
    }
}

fn tokio_end(end: OwnedFd) -> tokio::net::UnixDatagram {
    let end = std::os::unix::net::UnixDatagram::from(end);
    end.set_nonblocking(true).unwrap();
    tokio::net::UnixDatagram::from_std(end).unwrap()
}
