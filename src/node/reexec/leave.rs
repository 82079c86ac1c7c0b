//! The old executable's side: gathers what outlives it, and becomes the new one.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use super::estate::{Estate, Mount, Pair, Running, Socket};
use crate::agent::Phase;
use crate::host::inheritance;
use crate::host::mount::Pipe;
use crate::node::keeper::State;
use crate::node::mount::Legacy;
use crate::node::sockets::Sockets;
use crate::node::succession::Held;

/// Longest act on the mount.
const ACTS: Duration = Duration::from_secs(20);

/// Everything that the next executable is left.
pub struct Leaver {
    pub executable: PathBuf,
    pub arguments: Vec<OsString>,
    pub lock: File,
    pub sockets: Sockets,
    /// With modules: name, our end, theirs.
    pub pairs: Vec<(&'static str, OwnedFd, OwnedFd)>,
    pub mount: Option<Legacy>,
    /// Held while nothing is done about the mount.
    pub acting: Option<Arc<Mutex<()>>>,
    pub children: Vec<(&'static str, Held, watch::Receiver<State>)>,
}

impl Leaver {
    /// Becomes the new executable; returns only when that fails, and then all is as it was. `guard`: where that one says that it
    /// is well. Must be called on the main thread.
    pub async fn leave(&self, guard: Option<BorrowedFd<'_>>) -> io::Error {
        let _still = match &self.acting {
            None => None,
            Some(acting) => match tokio::time::timeout(ACTS, acting.lock()).await {
                Ok(still) => Some(still),
                Err(_) => return io::Error::other("an act on the mount does not end"),
            },
        };
        match self.become_it(guard) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn become_it(&self, guard: Option<BorrowedFd<'_>>) -> io::Result<std::convert::Infallible> {
        let held: Vec<_> = self
            .children
            .iter()
            .map(|(name, held, state)| (*name, lock(held), state))
            .collect();
        let mount = self.mount.as_ref().and_then(Legacy::mount);
        let mut open: Vec<BorrowedFd<'_>> = vec![self.lock.as_fd()];
        open.extend(guard);
        let mut estate = Estate {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lock: Some(self.lock.as_raw_fd()),
            guard: guard.map(|guard| guard.as_raw_fd()),
            ..Estate::default()
        };
        for (name, socket) in self.sockets.listening() {
            open.push(socket.as_fd());
            estate.sockets.push(Socket {
                name: name.to_owned(),
                descriptor: socket.as_raw_fd(),
            });
        }
        let fuse = self.mount.iter().map(|mount| ("fuse", &mount.ours, &mount.theirs));
        let pairs = self.pairs.iter().map(|(name, ours, theirs)| (*name, ours, theirs));
        for (name, ours, theirs) in fuse.chain(pairs) {
            open.extend([ours.as_fd(), theirs.as_fd()]);
            estate.pairs.push(Pair {
                name: name.to_owned(),
                ours: ours.as_raw_fd(),
                theirs: theirs.as_raw_fd(),
            });
        }
        if let Some((handed, connection)) = &mount {
            open.extend([handed.device.as_fd(), handed.memory.as_fd()]);
            open.extend(handed.pipes.iter().flat_map(Pipe::ends));
            estate.mount = Some(Mount {
                device: handed.device.as_raw_fd(),
                memory: handed.memory.as_raw_fd(),
                number: handed.mount,
                connection: *connection,
                pipes: handed
                    .pipes
                    .iter()
                    .map(|pipe| pipe.ends().map(|end| end.as_raw_fd()))
                    .collect(),
            });
        }
        for (name, held, state) in &held {
            let state = state.borrow();
            for pipes in held.iter() {
                let both = [&pipes.output, &pipes.errors];
                open.extend(both.into_iter().flatten().map(AsFd::as_fd));
                estate.children.push(Running {
                    name: (*name).to_owned(),
                    pid: pipes.pid,
                    output: pipes.output.as_ref().map(AsRawFd::as_raw_fd),
                    errors: pipes.errors.as_ref().map(AsRawFd::as_raw_fd),
                    is_ready: state.phase == Phase::Ready && state.pid == Some(pipes.pid),
                    restarts: state.restarts,
                });
            }
        }
        inheritance::hand_over(&self.executable, &self.arguments, &estate.encode(), &open)
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under this lock")
}
