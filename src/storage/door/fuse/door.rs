//! One mount: its requests answered, from what is promised or by the leader.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use zerocopy::FromBytes;

use super::ask::Asker;
use super::device::{Device, Given};
use super::files::APPENDS;
use super::landing::{self, Landing};
use super::listing::Lister;
use super::locks::Locks;
use super::memory::{Flight, Flights, Head, Memory, READERS};
use super::notifier::Notifier;
use super::opens::Opens;
use super::pages::Pages;
use super::pending::{Patience, Pending};
use super::reader;
use super::told::Told;
use super::wire::abi::{self, InHeader};
use super::wire::init::{self, Agreed};
use super::wire::{Answer, Ask, Body, Request};
use super::writes::{Later, Writes};
use crate::base::Scope;
use crate::host::mount::Handed;
use crate::storage::call::Inode;
use crate::storage::door::Calls;

/// How often, and between which pauses, a request that was interrupted is looked for.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(20);

pub struct Door {
    pub(super) ask: Asker,
    pub(super) device: Device,
    pub(super) writes: Writes,
    pub(super) pages: Arc<Pages>,
    pub(super) told: Told,
    head: Mutex<Head>,
    /// Of a request, to be agreed.
    pages_most: u16,
    flights: Flights,
    pub(super) notifier: Arc<Notifier>,
    pub(super) opens: Opens,
    pub(super) locks: Locks,
    pub(super) lister: Lister,
    pending: Pending,
    pub(super) scope: Scope,
}

type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl Door {
    /// Takes a mount over, or begins it, and starts to answer.
    pub fn start(handed: Handed, calls: Arc<dyn Calls>, scope: &Scope) -> io::Result<Arc<Self>> {
        let memory = Memory::open(handed.memory, handed.mount)?;
        let agreed = memory.head.agreed();
        let (pages_most, mut pipes) = landing::ways(handed.pipes, agreed)?;
        let for_answers = pipes.split_off(READERS.min(pipes.len())).pop();
        let mut pipes = pipes.into_iter();
        let device = Device::new(handed.device, for_answers)?;
        let ask = Asker::new(calls, handed.mount);
        let pages = Arc::new(Pages::default());
        let notifier = Arc::new(Notifier::start(device.clone())?);
        let writes = Writes::new(ask.clone(), device.clone(), pages.clone(), memory.chunks, scope.clone());
        let locks = Locks::new(
            ask.clone(),
            writes.clone(),
            pages.clone(),
            notifier.clone(),
            memory.locks,
            scope.clone(),
        );
        let door = Arc::new(Door {
            ask,
            device,
            writes,
            pages,
            told: Told::default(),
            head: Mutex::new(memory.head),
            pages_most,
            flights: memory.flights,
            notifier,
            opens: Opens::new(memory.opens),
            locks,
            lister: Lister::default(),
            pending: Pending::default(),
            scope: scope.clone(),
        });
        if memory.is_foreign {
            door.resend();
        }
        if let Some(agreed) = agreed {
            tracing::info!(minor = agreed.minor, "the mount of the files is taken over");
            door.heed(agreed);
        }
        let (taken, waiting) = door.writes.resume();
        waiting.into_iter().for_each(|later| door.await_data(later));
        for (inode, told) in door.opens.left() {
            door.tell_closed(inode, told);
        }
        for inode in door.locks.with_ranges() {
            if !door.opens.is_open(inode) {
                door.locks.release_closed(inode);
            }
        }
        for (bytes, flight) in door.flights.left() {
            reader::again(&door, &bytes, Some(flight), &taken);
        }
        for area in memory.landings {
            let mut landing = Landing::new(area, pipes.next());
            landing.resume()?;
            if let Some(bytes) = landing.request() {
                reader::again(&door, bytes, None, &taken);
            }
            landing.strike();
            reader::start(door.clone(), landing, memory.turn.join())?;
        }
        Ok(door)
    }

    /// The leader was asked for nothing for this mount, and may hold what one before had.
    pub fn is_new(&self) -> bool {
        self.head().is_new()
    }

    /// The leader holds nothing of a mount before.
    pub fn let_go(&self) {
        self.head().begin();
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().expect("no holder of this lock panics")
    }

    fn heed(&self, agreed: Agreed) {
        self.notifier.heed(agreed);
        if agreed.resends() {
            self.device.unsplice();
        }
    }

    /// Another version's notes cannot be read: the kernel hands out again what it had.
    fn resend(&self) {
        if self.device.notify(&super::wire::answer::resend()).is_err() {
            tracing::warn!(
                "this kernel hands out nothing again: calls that were under way wait until they are interrupted"
            );
        }
    }

    /// Answers a request: at once if that takes no waiting, else beside the others.
    pub fn begin(self: &Arc<Self>, request: Request, bytes: &[u8], flight: Option<Flight>) {
        let Request { header, ask } = request;
        let (unique, thread) = (header.unique, header.pid);
        let patience = patience(&ask);
        let opened = match ask {
            Ask::Open(_) => Opened::Node(header.node),
            Ask::Create { .. } => Opened::Created,
            _ => Opened::Nothing,
        };
        let door = self.clone();
        let mut work: Work = Box::pin(async move { door.answer(&header, ask).await });
        if let Poll::Ready(answer) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            if self.give(unique, &answer, opened) {
                flight.into_iter().for_each(Flight::strike);
            }
            return;
        }
        let Some(flight) = flight.or_else(|| self.flights.note(bytes)) else {
            self.device.answer(unique, &Err(Errno::E2BIG as i32));
            return;
        };
        let door = self.clone();
        self.scope.spawn(async move {
            let answer = {
                let wait = door.pending.wait(unique & !abi::RESENT, thread, patience);
                tokio::select! {
                    biased;
                    answer = work => answer,
                    () = wait.given_up() => Err(Errno::EINTR as i32),
                }
            };
            if door.give(unique, &answer, opened) {
                flight.strike();
            }
        });
    }

    /// `false`: it is left to the next process.
    fn give(self: &Arc<Self>, unique: u64, answer: &Answer, opened: Opened) -> bool {
        let given = self.device.answer(unique, answer);
        if given != Given::Taken
            && let Some(inode) = opened.inode(answer)
        {
            // Nobody will close what nobody got.
            self.close(inode);
        }
        given != Given::Left
    }

    /// A caller was interrupted. Its request may be on its way between two threads; one that never comes is lost, and its caller
    /// shall not hang.
    pub fn interrupt(self: &Arc<Self>, unique: u64) {
        let number = unique & !abi::RESENT;
        if self.pending.interrupt(number) {
            return;
        }
        let door = self.clone();
        self.scope.spawn(async move {
            for _ in 0..LOOKS {
                tokio::time::sleep(LOOK).await;
                if door.pending.interrupt(number) {
                    return;
                }
            }
            // Of no effect if it was answered.
            door.device.answer(unique, &Err(Errno::EINTR as i32));
        });
    }

    pub fn agree(&self, header: &InHeader, asked: &abi::InitIn) {
        let answer = match init::agree(asked, self.pages_most) {
            Some((agreed, answer)) => {
                self.head().agree(agreed);
                self.heed(agreed);
                tracing::info!(
                    minor = agreed.minor,
                    resends = agreed.resends(),
                    pages = agreed.pages,
                    "the files are mounted by FUSE"
                );
                Ok(Body::of(&answer))
            }
            None => {
                tracing::error!(
                    minor = asked.minor,
                    "this kernel's FUSE is too old; it needs version 7.31 (Linux 5.4) with locks"
                );
                Err(Errno::EPROTO as i32)
            }
        };
        self.device.answer(header.unique, &answer);
    }

    /// Data of a WRITE.
    pub fn write(self: &Arc<Self>, header: &InHeader, of: &abi::WriteIn, data: &[u8]) {
        let (inode, from) = (Inode(header.node), (header.unique, header.pid));
        // Pages that were mapped have their place, whatever handle the kernel found for them.
        let is_appending = of.handle & APPENDS != 0 && of.write_flags & abi::WRITE_OF_PAGES == 0;
        let later = match is_appending {
            false => self.writes.write(inode, of.offset, from, data),
            true => Some(self.writes.append(inode, from, data)),
        };
        later.into_iter().for_each(|later| self.await_data(later));
    }

    /// Until the leader has the data, its writer can be killed.
    fn await_data(self: &Arc<Self>, later: Later) {
        let door = self.clone();
        self.scope.spawn(async move {
            let unique = later.unique;
            let wait = door
                .pending
                .wait(unique & !abi::RESENT, later.thread, Patience::UntilDeath);
            tokio::select! {
                biased;
                () = later.done.notified() => {}
                () = wait.given_up() => if door.writes.give_up(unique) {
                    door.device.answer(unique, &Err(Errno::EINTR as i32));
                },
            }
        });
    }
}

/// What an answer has opened.
#[derive(Clone, Copy)]
enum Opened {
    Nothing,
    Node(u64),
    /// The answer says what.
    Created,
}

impl Opened {
    fn inode(self, answer: &Answer) -> Option<Inode> {
        let body = answer.as_ref().ok()?;
        match self {
            Opened::Nothing => None,
            Opened::Node(node) => Some(Inode(node)),
            Opened::Created => {
                let (entry, _) = abi::EntryOut::read_from_prefix(&body.head).ok()?;
                Some(Inode(entry.node))
            }
        }
    }
}

fn patience(ask: &Ask) -> Patience {
    match ask {
        Ask::Lookup(_)
        | Ask::Attributes
        | Ask::ReadLink
        | Ask::Open(_)
        | Ask::Read(_)
        | Ask::Space
        | Ask::List { .. }
        | Ask::TestLock(_) => Patience::None,
        Ask::Lock { of, .. } if of.kind != libc::F_UNLCK.cast_unsigned() => Patience::None,
        Ask::Flush(_) => Patience::UntilExit,
        _ => Patience::UntilDeath,
    }
}
