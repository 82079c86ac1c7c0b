//! Executes operations inside the transaction of their batch: checks, changes of the rows, changes of contents; and notes
//! what must wait until the transaction has committed.
//!
//! A call checks everything before it changes anything: an answer of an error leaves no trace but the kept reply.

mod attributes;
mod data;
mod hold;
mod make;
mod remove;
mod rename;
mod step;

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::Connection;

use super::contents::Changing;
use super::recall::Touched;
use super::tree::Action;
use super::{Failure, sessions};
use crate::storage::call::{Error, Inode, Reply};
use crate::storage::operation::Operation;
use step::{Call, Step, changed, free};

/// Why a call ends early: an answer that every replica gives, or a failure of this one.
#[derive(Debug)]
pub enum Stop {
    Refused(Error),
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Refused(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Stop::Failed(error.into())
    }
}

pub use hold::LOCKS_MAX;

type Outcome<T> = Result<T, Stop>;

/// What a batch does besides its rows.
pub struct Effects<'a> {
    /// Done at once.
    pub contents: Changing<'a>,
    /// Inodes that are gone: their contents follow after the commit.
    pub freed: Vec<Inode>,
    /// For the mirror, after the commit, in this order.
    pub mirror: Vec<Action>,
    /// What must not be answered from memory any more.
    pub touched: Touched,
    /// Paths of folders in the mirror, as they are now; `None`: not mirrored. Emptied when a folder moves.
    paths: HashMap<Inode, Option<PathBuf>>,
}

impl<'a> Effects<'a> {
    pub fn new(contents: Changing<'a>) -> Self {
        Effects {
            contents,
            freed: Vec::new(),
            mirror: Vec::new(),
            touched: Touched::default(),
            paths: HashMap::new(),
        }
    }
}

/// Executes one operation of the entry `index`.
pub fn execute(
    rows: &Connection,
    effects: &mut Effects<'_>,
    index: u64,
    operation: &Operation,
) -> Result<Result<Reply, Error>, Failure> {
    match operation {
        Operation::Begin { session, .. } | Operation::End { session } if sessions::is_grace(*session) => {
            Ok(Err(Error::Invalid))
        }
        Operation::Begin { session, place, adopts } => {
            hold::begin_session(rows, effects, *session, (place, *adopts)).map(Ok)
        }
        Operation::End { session } => {
            hold::end_session(rows, effects, *session)?;
            Ok(Ok(Reply::Done))
        }
        Operation::Reap => {
            hold::reap(rows, effects)?;
            Ok(Ok(Reply::Done))
        }
        Operation::Mutate {
            session,
            sequence,
            acknowledged,
            key,
            caller,
            time,
            fresh,
            mutation,
        } => {
            if let Some(answer) = sessions::answered(rows, *session, (*sequence, *acknowledged), *key)? {
                return Ok(answer);
            }
            let changes_before = rows.total_changes();
            let mut step = Step {
                rows,
                effects,
                call: Call {
                    index,
                    session: *session,
                    caller,
                    time: *time,
                    fresh: *fresh,
                },
            };
            let answer = match step.mutate(mutation) {
                Ok(reply) => Ok(reply),
                Err(Stop::Refused(error)) => Err(error),
                Err(Stop::Failed(failure)) => return Err(failure),
            };
            debug_assert!(
                answer.is_ok() || rows.total_changes() == changes_before,
                "{mutation:?} was refused after it had changed something"
            );
            sessions::keep(rows, *session, *sequence, *key, &answer)?;
            Ok(answer)
        }
    }
}
