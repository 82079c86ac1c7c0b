//! `Engine`: executes commands. One node's store today; the place where a router will choose between the store and the
//! owner of a key on another node.

use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::command::{Command, Reply};
use super::stats;
use super::store::{Clock, Moment, Store};

/// Everything that the connections of a cache share.
#[derive(Debug)]
pub struct Engine {
    pub store: Store,
    pub clock: Clock,
    pub limits: Limits,
    pub traffic: Traffic,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub workers: usize,
    pub tcp_port: u16,
}

/// What connections have done since the start or since `stats reset`.
#[derive(Debug, Default)]
pub struct Traffic {
    pub connections: AtomicUsize,
    pub connections_total: AtomicU64,
    /// Times that the last free connection was taken, so that further ones had to wait.
    pub full: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_written: AtomicU64,
    pub flushes: AtomicU64,
}

impl Engine {
    pub fn new(store: Store, limits: Limits) -> Self {
        Engine {
            store,
            clock: Clock::default(),
            limits,
            traffic: Traffic::default(),
        }
    }

    pub fn execute(&self, command: Command<'_>, moment: Moment) -> Reply {
        match command {
            Command::Stats(words) => stats::answer(self, &words, moment),
            Command::Version => Reply::Version,
            Command::Verbosity | Command::Noop => Reply::Done,
            Command::Quit => Reply::Quit,
            Command::Flush { .. } => {
                stats::count(&self.traffic.flushes, 1);
                self.of_store(command, moment)
            }
            command => self.of_store(command, moment),
        }
    }

    fn of_store(&self, command: Command<'_>, moment: Moment) -> Reply {
        self.store.execute(command, moment.now).unwrap_or(Reply::Unknown)
    }
}
