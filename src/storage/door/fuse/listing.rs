//! Folders listed. Cookies: 1 stands behind `.`, 2 behind `..`, and an entry's own cookie plus 2 behind it.
//!
//! The kernel asks for a page at a time; what the leader said is kept for the next questions by the same handle, for a moment.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::ask::Asker;
use super::convert::{self, UNPROMISED};
use super::wire::{Body, Listing, abi};
use super::writes::Writes;
use crate::base::clock;
use crate::storage::call::{Entry, Error, Inode, Kind, Query, Reply};

const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// Entries asked of the leader at once.
const PAGE: u32 = 1024;
/// Rests that are kept, and for how long.
const RESTS: usize = 32;
const KEPT: Duration = Duration::from_secs(1);

/// What is left of a page.
struct Rest {
    handle: u64,
    cookie: u64,
    since: Duration,
    entries: Vec<Entry>,
    is_end: bool,
}

#[derive(Default)]
pub struct Lister(Mutex<VecDeque<Rest>>);

impl Lister {
    fn rests(&self) -> MutexGuard<'_, VecDeque<Rest>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    pub async fn list(
        &self,
        ask: &Asker,
        writes: &Writes,
        folder: Inode,
        of: &abi::ReadIn,
        is_plus: bool,
    ) -> Result<Body, Error> {
        let mut listing = Listing::new(of.size);
        let none = abi::EntryOut::default();
        let plus = is_plus.then_some(&none);
        let folder_type = convert::entry_type(Kind::Folder);
        if of.offset < DOT && !listing.push(plus, b".", (folder.0, DOT, folder_type)) {
            return Ok(listing.done());
        }
        if of.offset < DOT_DOT {
            let parent = parent(ask, folder).await?;
            if !listing.push(plus, b"..", (parent.0, DOT_DOT, folder_type)) {
                return Ok(listing.done());
            }
        }
        let mut rest = self
            .page(ask, (folder, of.handle), of.offset.saturating_sub(DOT_DOT))
            .await?;
        let mut given = 0;
        for entry in &rest.entries {
            let mut attributes = entry.attributes.clone();
            writes.overlay(&mut attributes);
            let out = convert::entry(&attributes, UNPROMISED);
            let of = (
                entry.inode.0,
                entry.cookie + DOT_DOT,
                convert::entry_type(entry.attributes.kind),
            );
            if !listing.push(is_plus.then_some(&out), &entry.name, of) {
                break;
            }
            (given, rest.cookie) = (given + 1, entry.cookie);
        }
        rest.entries.drain(..given);
        self.keep(rest);
        Ok(listing.done())
    }

    /// The handle is closed.
    pub fn forget(&self, handle: u64) {
        self.rests().retain(|rest| rest.handle != handle);
    }

    /// Entries after the cookie.
    async fn page(&self, ask: &Asker, (folder, handle): (Inode, u64), cookie: u64) -> Result<Rest, Error> {
        let now = clock::boot();
        if cookie > 0
            && let Some(rest) = self.take(handle, cookie, now)
        {
            return Ok(rest);
        }
        let query = Query::List {
            folder,
            cookie,
            limit: PAGE,
        };
        match ask.query(query).await? {
            Reply::List { entries, is_end, .. } => Ok(Rest {
                handle,
                cookie,
                since: now,
                entries,
                is_end,
            }),
            _ => Err(Error::Io),
        }
    }

    fn take(&self, handle: u64, cookie: u64, now: Duration) -> Option<Rest> {
        let mut rests = self.rests();
        rests.retain(|rest| now.saturating_sub(rest.since) < KEPT);
        let place = rests
            .iter()
            .position(|rest| (rest.handle, rest.cookie) == (handle, cookie))?;
        rests.remove(place)
    }

    fn keep(&self, rest: Rest) {
        if rest.entries.is_empty() && !rest.is_end {
            return;
        }
        let mut rests = self.rests();
        // Of one handle the last place is where it goes on.
        rests.retain(|other| other.handle != rest.handle);
        if rests.len() >= RESTS {
            rests.pop_front();
        }
        rests.push_back(rest);
    }
}

async fn parent(ask: &Asker, folder: Inode) -> Result<Inode, Error> {
    let name = b"..".to_vec();
    match ask.query(Query::Lookup { folder, name }).await? {
        Reply::Object { attributes, .. } => Ok(attributes.inode),
        _ => Err(Error::Io),
    }
}
