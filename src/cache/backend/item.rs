//! One item: fetched, changed, put back.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::name::Name;
use super::server::{Lost, Way};
use super::wire::{self, Answer, Found, Kind};
use super::{Backend, envelope};
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

/// States that came together, with their stamps: of each key the last one. Those before it need not be sent, and must not: what is under
/// way at the same time has no order.
#[derive(Debug, Default)]
pub struct Puts(HashMap<Name, (State, u64)>);

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
        let way = self.server.way()?;
        let fetched = self.fetch(&way, &name, get.key, !get.is_peek).await?;
        let command = Command::Get(get);
        let (mut reply, after) = self.bench.execute_on(fetched.state.clone(), command, self.now());
        tell(&mut reply, fetched.found.as_ref());
        Ok((after == fetched.state).then_some(reply))
    }

    /// Executes a command on a key. The caller holds it.
    pub async fn change(&self, command: Command<'_>) -> Result<Changed, Lost> {
        let key = command.key().unwrap_or_default().to_vec();
        let name = Name::of(&key);
        let (way, stamp) = (self.server.way()?, self.stamp(&key));
        let absent = || State::Absent(key.as_slice().into());
        let fetched = match overwrites(&command) {
            true => None,
            false => {
                let is_read = matches!(&command, Command::Get(_));
                Some(self.fetch(&way, &name, &key, is_read).await?)
            }
        };
        let before = fetched.as_ref().map_or_else(absent, |fetched| fetched.state.clone());
        let (mut reply, mut state) = self.bench.execute_on(before.clone(), command, self.now());
        let is_known = fetched.is_some();
        tell(&mut reply, fetched.and_then(|fetched| fetched.found).as_ref());
        if is_known && state == before {
            return Ok(Changed { reply, state, stamp });
        }
        match self.keep(&way, &name, &state, stamp).await? {
            Kept::Done => {}
            refused => {
                // A client that failed to replace an item must not find the old one.
                state = absent();
                self.keep(&way, &name, &state, stamp).await?;
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
        let way = self.server.way()?;
        let answer = way.ask(name, Kind::Get, |spelled, opaque| wire::get(spelled, false, opaque));
        let opened = match answer.await? {
            Answer::Found(found) => envelope::open(name, &found.value, self.now()),
            _ => None,
        };
        let current = opened.filter(|(stamp, copy)| *stamp == self.stamp(copy.record.key()));
        Ok(current.map(|(_, copy)| State::Present(copy)))
    }

    /// Adds a state that shall be put in, whatever is there. The stamp is of now.
    pub fn gather(&self, state: State, puts: &mut Puts) {
        let stamp = self.stamp(state.key());
        puts.0.insert(Name::of(state.key()), (state, stamp));
    }

    /// Puts them in. The caller sees to it that nobody else changes these keys.
    pub async fn put(&self, puts: Puts) -> Result<(), Lost> {
        let way = &self.server.way()?;
        // Where one is refused the copy is missing: the server removes what was there.
        let kept = puts
            .0
            .iter()
            .map(|(name, (state, stamp))| self.keep(way, name, state, *stamp));
        join_all(kept).await.into_iter().try_for_each(|kept| kept.map(drop))
    }

    async fn fetch(&self, way: &Way<'_>, name: &Name, key: &[u8], is_read: bool) -> Result<Fetched, Lost> {
        let answer = way.ask(name, Kind::Get, |spelled, opaque| wire::get(spelled, is_read, opaque));
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

    async fn keep(&self, way: &Way<'_>, name: &Name, state: &State, stamp: u64) -> Result<Kept, Lost> {
        let State::Present(copy) = state else {
            let gone = way.ask(name, Kind::Delete, wire::delete);
            return gone.await.map(|_| Kept::Done);
        };
        let request = |spelled: &str, opaque| {
            let size = envelope::size(name, copy);
            wire::set(spelled, size, copy.left, opaque, |out| {
                envelope::seal(name, copy, stamp, self.now(), out);
            })
        };
        Ok(match way.ask(name, Kind::Set, request).await? {
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
