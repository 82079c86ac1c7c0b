//! One item: fetched, changed, put back.

use super::name::Name;
use super::server::Lost;
use super::wire::{self, Answer, Found, Kind};
use super::{Backend, envelope};
use crate::base::BoxFuture;
use crate::cache::command::{Command, Get, Mode, Reply};
use crate::cache::store::State;

const FULL: &str = "SERVER_ERROR out of memory storing object";

/// What came of a command.
#[derive(Debug)]
pub struct Changed {
    pub reply: Reply,
    /// Of the key, then.
    pub state: State,
    stamp: u64,
}

/// A state on its way to the server.
pub type Put<'a> = BoxFuture<'a, Result<(), Lost>>;

/// What the server has under a name.
struct Fetched {
    state: State,
    found: Option<Found>,
}

enum Kept {
    Done,
    TooLarge,
    Full,
}

impl Backend {
    /// Executes a read. `None`: it changes the item, so that it needs it to itself.
    pub async fn read(&self, get: Get<'_>) -> Result<Option<Reply>, Lost> {
        let name = Name::of(get.key);
        let fetched = self.fetch(&name, get.key, !get.is_peek).await?;
        let command = Command::Get(get);
        let (mut reply, after) = self.bench.execute_on(fetched.state.clone(), command, self.now());
        tell(&mut reply, fetched.found.as_ref());
        Ok((after == fetched.state).then_some(reply))
    }

    /// Executes a command on a key. The caller holds it.
    pub async fn change(&self, command: Command<'_>) -> Result<Changed, Lost> {
        let key = command.key().unwrap_or_default().to_vec();
        let name = Name::of(&key);
        let stamp = self.stamp(&key);
        let absent = || State::Absent(key.as_slice().into());
        let fetched = match overwrites(&command) {
            true => None,
            false => Some(self.fetch(&name, &key, matches!(&command, Command::Get(_))).await?),
        };
        let before = fetched.as_ref().map_or_else(absent, |fetched| fetched.state.clone());
        let (mut reply, mut state) = self.bench.execute_on(before.clone(), command, self.now());
        let is_known = fetched.is_some();
        tell(&mut reply, fetched.and_then(|fetched| fetched.found).as_ref());
        if is_known && state == before {
            return Ok(Changed { reply, state, stamp });
        }
        match self.keep(&name, &state, stamp).await? {
            Kept::Done => {}
            refused => {
                // A client that failed to replace an item must not find the old one.
                state = absent();
                self.keep(&name, &state, stamp).await?;
                reply = match refused {
                    Kept::TooLarge => Reply::TooLarge,
                    Kept::Done | Kept::Full => Reply::Refused(FULL),
                };
            }
        }
        Ok(Changed { reply, state, stamp })
    }

    /// What came of it counts still: no flush came meanwhile.
    pub fn is_current(&self, changed: &Changed) -> bool {
        self.stamp(changed.state.key()) == changed.stamp
    }

    /// The state of what lies under a name, if it is an item that counts.
    pub async fn look(&self, name: &Name) -> Result<Option<State>, Lost> {
        let answer = self
            .server
            .ask(name, Kind::Get, |opaque| wire::get(name, false, opaque));
        let opened = match answer.await? {
            Answer::Found(found) => envelope::open(name, &found.value, self.now()),
            _ => None,
        };
        let current = opened.filter(|(stamp, copy)| *stamp == self.stamp(copy.record.key()));
        Ok(current.map(|(_, copy)| State::Present(copy)))
    }

    /// Puts a state in, whatever was there. Its place among the requests for that key is where this is first polled; the stamp is of now.
    pub fn put(&self, state: State) -> Put<'_> {
        let (name, stamp) = (Name::of(state.key()), self.stamp(state.key()));
        // Where it is refused the copy is missing: the server removes what was there.
        let put = async move { self.keep(&name, &state, stamp).await.map(drop) };
        Box::pin(put)
    }

    async fn fetch(&self, name: &Name, key: &[u8], is_read: bool) -> Result<Fetched, Lost> {
        let answer = self
            .server
            .ask(name, Kind::Get, |opaque| wire::get(name, is_read, opaque));
        let absent = State::Absent(key.into());
        let nothing = Fetched {
            state: absent,
            found: None,
        };
        let Answer::Found(found) = answer.await? else {
            return Ok(nothing);
        };
        Ok(match envelope::open(name, &found.value, self.now()) {
            Some((stamp, copy)) if stamp == self.stamp(key) && copy.record.key() == key => Fetched {
                state: State::Present(copy),
                found: Some(found),
            },
            _ => nothing,
        })
    }

    async fn keep(&self, name: &Name, state: &State, stamp: u64) -> Result<Kept, Lost> {
        let State::Present(copy) = state else {
            let gone = self.server.ask(name, Kind::Delete, |opaque| wire::delete(name, opaque));
            return gone.await.map(|_| Kept::Done);
        };
        let request = |opaque| {
            let size = envelope::size(name, copy);
            wire::set(name, size, copy.left, opaque, |out| {
                envelope::seal(name, copy, stamp, self.now(), out);
            })
        };
        Ok(match self.server.ask(name, Kind::Set, request).await? {
            Answer::TooLarge => Kept::TooLarge,
            Answer::Full => Kept::Full,
            _ => Kept::Done,
        })
    }
}

/// What was there before does not matter.
fn overwrites(command: &Command<'_>) -> bool {
    matches!(command, Command::Set(set) if set.terms.mode == Mode::Set && set.terms.compare.is_none())
}

/// What the server alone knows of an item.
fn tell(reply: &mut Reply, found: Option<&Found>) {
    if let (Reply::Hit(hit), Some(found)) = (reply, found) {
        (hit.was_fetched, hit.idle) = (found.was_fetched, found.idle);
    }
}
