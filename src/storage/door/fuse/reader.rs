//! A thread that reads requests, in its turn: what needs no waiting is answered right there.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::device::Nothing;
use super::door::Door;
use super::landing::Landing;
use super::memory::{Flight, Reading};
use super::spin::Spin;
use super::wire::request::{self, WRITE_HEAD};
use super::wire::{Ask, Body, Request, abi};

/// How soon a mount is looked for again that is being made.
const MOUNTING: Duration = Duration::from_millis(10);

/// Reads until the mount is gone.
pub fn start(door: Arc<Door>, mut landing: Landing, turn: Reading) -> io::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    thread::Builder::new().name("fuse-reader".into()).spawn(move || {
        let _entered = runtime.enter();
        let mut spin = Spin::new();
        loop {
            turn.take();
            if door.device.is_closed() {
                break;
            }
            spin.look(|| door.device.has_request());
            let slept = Instant::now();
            let taken = landing.take(&door.device);
            spin.slept(slept.elapsed());
            match taken {
                Ok(()) if begin(&door, &mut landing) => {}
                Err(Nothing::Now) => {}
                Err(Nothing::NotMounted) => thread::sleep(MOUNTING),
                Ok(()) | Err(Nothing::Gone) => break,
            }
        }
    })?;
    Ok(())
}

/// `false`: this process answers no more, and the request lies where it is for the next one.
fn begin(door: &Arc<Door>, landing: &mut Landing) -> bool {
    // One that came while this process was told to end is the next one's alone: not all bear to be done twice.
    if door.device.is_closed() {
        return false;
    }
    if let Some(bytes) = landing.request() {
        take(door, bytes, None);
    }
    // It may not be answered.
    let is_closed = door.device.is_closed();
    if !is_closed {
        landing.strike();
    }
    !is_closed
}

/// A request of the process before. `taken`: writes whose data was taken.
pub fn again(door: &Arc<Door>, bytes: &[u8], flight: Option<Flight>, taken: &[u64]) {
    if let Ok((header, _)) = request::head(bytes)
        && header.opcode == abi::opcode::WRITE
        && taken.contains(&header.unique)
    {
        let size = u32::try_from(bytes.len() - WRITE_HEAD.min(bytes.len())).unwrap_or(u32::MAX);
        // One that is owed its answer gets it when the leader has the data.
        if !door.writes.owes(header.unique) {
            door.device
                .answer(header.unique, &Ok(Body::of(&abi::WriteOut { size, padding: 0 })));
        }
        return;
    }
    take(door, bytes, flight);
}

fn take(door: &Arc<Door>, bytes: &[u8], flight: Option<Flight>) {
    match request::parse(bytes) {
        Ok(Request { header, ask }) => match ask {
            Ask::Write(of) => door.write(&header, &of, bytes.get(WRITE_HEAD..).unwrap_or_default()),
            Ask::Interrupt(unique) => door.interrupt(unique),
            Ask::Init(asked) => door.agree(&header, &asked),
            Ask::Forget => {}
            ask => door.begin(Request { header, ask }, bytes, flight),
        },
        Err(error) => {
            tracing::error!(%error, "the kernel's request cannot be read");
            if let Ok((header, _)) = request::head(bytes) {
                door.device.answer(header.unique, &Err(Errno::EIO as i32));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
    use zerocopy::IntoBytes;

    use super::super::memory::Memory;
    use super::super::wire::abi::InHeader;
    use super::*;
    use crate::base::{BoxFuture, Scope};
    use crate::host::mount::Handed;
    use crate::storage::call::{Caller, Error, Inode, Mutation, Query, Reply};
    use crate::storage::door::{Calls, RequestKey};

    const MOUNT: u64 = 7;
    const FILE: Inode = Inode(5);

    /// Nobody leads.
    struct Nobody;

    impl Calls for Nobody {
        fn query<'a>(&'a self, _: &'a Caller, _: Query) -> BoxFuture<'a, Result<Reply, Error>> {
            Box::pin(std::future::pending())
        }

        fn mutate<'a>(&'a self, _: &'a Caller, _: RequestKey, _: Mutation) -> BoxFuture<'a, Result<Reply, Error>> {
            Box::pin(std::future::pending())
        }

        fn commit(&self, _: Inode) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(std::future::pending())
        }

        fn is_durable(&self) -> bool {
            true
        }

        fn verifier(&self) -> u64 {
            0
        }
    }

    /// A process that serves the mount; `device` is its end.
    fn door(memory: &OwnedFd, device: OwnedFd, scope: &Scope) -> Arc<Door> {
        let handed = Handed {
            device,
            memory: memory.try_clone().unwrap(),
            pipes: Vec::new(),
            mount: MOUNT,
        };
        Door::start(handed, Arc::new(Nobody), scope).unwrap()
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn release() -> Vec<u8> {
        let of = abi::ReleaseIn::default();
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + size_of::<abi::ReleaseIn>()).unwrap(),
            opcode: abi::opcode::RELEASE,
            unique: 2,
            node: FILE.0,
            ..InHeader::default()
        };
        [header.as_bytes(), of.as_bytes()].concat()
    }

    #[tokio::test]
    async fn what_comes_when_a_process_ends_is_done_by_the_next_one_alone() {
        let (memory, scope) = (memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap(), Scope::new());
        let (kernel, device) = pair();
        let first = door(&memory, device, &scope);
        assert!(first.opens.open(FILE) && first.opens.open(FILE));
        first.device.close();
        // One of its threads has just got this.
        let mut area = Memory::open(memory.try_clone().unwrap(), MOUNT)
            .unwrap()
            .landings
            .remove(0);
        area.put(0, &release());
        let mut landing = Landing::new(area, None);
        assert!(!begin(&first, &mut landing));
        drop(landing);
        shutdown(kernel.as_raw_fd(), Shutdown::Both).unwrap();
        let gone = Arc::downgrade(&first);
        drop(first);
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        let (kernel, device) = pair();
        let second = door(&memory, device, &scope);
        assert!(second.opens.is_open(FILE), "it was closed once");
        assert_eq!(second.opens.close(FILE), 0);
        assert!(!second.opens.is_open(FILE));
        shutdown(kernel.as_raw_fd(), Shutdown::Both).unwrap();
        scope.stop(Duration::ZERO).await;
    }
}
