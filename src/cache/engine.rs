//! `Engine`: executes commands. One node's store today; the place where a router will choose between the store and the
//! owner of a key on another node.

use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::command::{Command, Reply};
use super::stats;
use super::store::{Clock, Moment, Record, Store};

/// A block of places, and a doubled vector of chains.
const GROWTH: usize = 32 << 10;
const NO_FLUSH: &str = "CLIENT_ERROR flush_all not allowed";
const FULL: &str = "SERVER_ERROR out of memory storing object";

/// Everything that the connections of a cache share.
#[derive(Debug)]
pub struct Engine {
    pub store: Store,
    pub clock: Clock,
    pub limits: Limits,
    rules: Rules,
    pub traffic: Traffic,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub workers: usize,
    pub tcp_port: u16,
}

/// What a command may do.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Items are dropped when memory is full; else new ones are refused.
    pub evicts: bool,
    pub allows_flush: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            evicts: true,
            allows_flush: true,
        }
    }
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
    /// Values for which no memory was left.
    pub refused: AtomicU64,
}

impl Engine {
    pub fn new(store: Store, limits: Limits) -> Self {
        Self::with_rules(store, limits, Rules::default())
    }

    pub fn with_rules(store: Store, limits: Limits, rules: Rules) -> Self {
        Engine {
            store,
            clock: Clock::default(),
            limits,
            rules,
            traffic: Traffic::default(),
        }
    }

    pub fn execute(&self, command: Command<'_>, moment: Moment) -> Reply {
        match command {
            Command::Stats(words) => stats::answer(self, &words, moment),
            Command::Version => Reply::Version,
            Command::Verbosity | Command::Noop => Reply::Done,
            Command::Quit => Reply::Quit,
            Command::Flush { .. } if !self.rules.allows_flush => Reply::Refused(NO_FLUSH),
            Command::Set(set) if !self.rules.evicts && self.is_full_for(&set.record) => {
                stats::count(&self.traffic.refused, 1);
                Reply::Refused(FULL)
            }
            Command::Flush { .. } => {
                stats::count(&self.traffic.flushes, 1);
                self.of_store(command, moment)
            }
            command => self.of_store(command, moment),
        }
    }

    /// Where nothing is dropped for it, a value needs its own bytes and what the tables may grow by.
    fn is_full_for(&self, record: &Record) -> bool {
        self.store.used() + record.footprint() + GROWTH > self.store.budget()
    }

    fn of_store(&self, command: Command<'_>, moment: Moment) -> Reply {
        self.store.execute(command, moment.now).unwrap_or(Reply::Unknown)
    }
}
