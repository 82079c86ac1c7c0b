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
                Ok(()) => {
                    if let Some(bytes) = landing.request() {
                        take(&door, bytes, None);
                    }
                    if door.device.is_closed() {
                        // It may not be answered.
                        break;
                    }
                    landing.strike();
                }
                Err(Nothing::Now) => {}
                Err(Nothing::NotMounted) => thread::sleep(MOUNTING),
                Err(Nothing::Gone) => break,
            }
        }
    })?;
    Ok(())
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
