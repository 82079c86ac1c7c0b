//! The desk of one read: answers at once what this node may answer by itself, and hands back what must go to another node or wait for
//! one. Holds the router's gate, so never across an await.

use std::cell::Cell;
use std::sync::Arc;

use super::backend::Backend;
use super::class::Class;
use super::command::{Command, Hit, Reply};
use super::council::{Route as Owner, Shard};
use super::engine::{Engine, Flushes, NO_FLUSH, Route};
use super::late::{Late, Line};
use super::peer::{NAMELESS, Space};
use super::router::{self, Entered, OnKey, Work};
use super::stats;
use super::store::{Moment, Record};

pub struct Desk<'a> {
    pub engine: &'a Engine,
    pub moment: Moment,
    entered: Option<(&'a Route, Entered<'a>)>,
    backend: Option<&'a Arc<Backend>>,
    /// Something was answered by right of the lease.
    has_served: Cell<bool>,
    is_sampled: Cell<bool>,
}

/// What came of a command.
pub enum Taken {
    Answered(Reply),
    Later(Space, Work),
}

/// Who answers a plain `get`.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// This node; where there are others, by right of its lease.
    Here(Option<Shard>),
    /// Another one, or this one later.
    Later(Shard),
    /// Whom `take` finds.
    Desk,
}

impl<'a> Desk<'a> {
    pub fn new(engine: &'a Engine, moment: Moment) -> Self {
        Desk {
            engine,
            moment,
            entered: engine.route().map(|route| (route, route.router.enter())),
            backend: engine.backend(),
            has_served: Cell::new(false),
            is_sampled: Cell::new(engine.hot.is_sampled()),
        }
    }

    /// `line`: of the request. `late`: commands before this one that are not answered yet.
    pub fn take(&self, command: Command<'_>, line: &Line<'_>, late: Option<&Late>) -> Taken {
        self.sample(|| command.key());
        if let Some(backend) = self.backend {
            return self.take_far(backend, command, line);
        }
        let Some((route, entered)) = &self.entered else {
            return Taken::Answered(self.engine.execute(command, self.moment));
        };
        let Some(key) = command.key() else {
            return self.take_keyless(route, command);
        };
        let router = &route.router;
        let shard = router.rules().shard(key);
        let later = |command: &Command<'_>| {
            let id = if command.is_read() {
                NAMELESS
            } else {
                router.request_id()
            };
            let on_key = OnKey::new(id, shard, command, |key| line.part(key));
            let work = on_key.map_or(Work::Stats, Work::Key);
            Taken::Later(route.space, work)
        };
        if late.is_some_and(|late| late.concerns(shard)) {
            return later(&command);
        }
        match entered.route(shard) {
            Owner::Own => {}
            Owner::Alone => {
                let fallback = router::give_up(router.rules(), &command);
                return Taken::Answered(entered.alone(route.space, command).unwrap_or(fallback));
            }
            Owner::Other(_) | Owner::Wait => return later(&command),
        }
        self.has_served.set(true);
        match command {
            Command::Get(get) if command.is_read() => {
                let reply = self.engine.execute(command, self.moment);
                // What a second node has not confirmed may still be lost: nobody shall have seen it.
                if !entered.is_confirmed(shard) && router.class(route.space, get.key) == Class::Sync {
                    return later(&Command::Get(get));
                }
                Taken::Answered(reply)
            }
            command => {
                let class = command.key().map(|key| router.class(route.space, key));
                if class.is_some_and(|class| entered.has_copies(shard, class)) {
                    return later(&command);
                }
                Taken::Answered(self.engine.execute(command, self.moment))
            }
        }
    }

    /// `late`: as for `take`.
    pub fn way(&self, key: &[u8], late: Option<&Late>) -> Way {
        self.sample(|| Some(key));
        let entered = match (&self.entered, self.backend) {
            (_, Some(_)) => return Way::Desk,
            (None, None) => return Way::Here(None),
            (Some((_, entered)), None) => entered,
        };
        let shard = entered.shard(key);
        match entered.route(shard) {
            _ if late.is_some_and(|late| late.concerns(shard)) => Way::Later(shard),
            Owner::Own => Way::Here(Some(shard)),
            Owner::Other(_) | Owner::Wait => Way::Later(shard),
            Owner::Alone => Way::Desk,
        }
    }

    /// Shows what a plain `get` finds here, in its place in the store. `None`: it may not be told yet.
    pub fn show<T>(&self, key: &[u8], shard: Option<Shard>, see: impl FnOnce(Option<Hit<&Record>>) -> T) -> Option<T> {
        self.has_served.set(true);
        self.engine.store.look(key, self.moment.now, |hit| {
            // Whoever made what is seen has noted it under the store's lock, which is held here.
            let may_tell = match (&self.entered, shard) {
                (Some((route, entered)), Some(shard)) => {
                    entered.is_confirmed(shard) || route.router.class(route.space, key) != Class::Sync
                }
                _ => true,
            };
            may_tell.then(|| see(hit))
        })
    }

    /// Of these connections' keys.
    pub fn space(&self) -> Space {
        self.entered.as_ref().map_or(Space::Portal, |(route, _)| route.space)
    }

    /// Where the items are on a server nothing about them is answered at once.
    fn take_far(&self, backend: &Backend, command: Command<'_>, line: &Line<'_>) -> Taken {
        let (route, space) = (self.entered.as_ref().map(|(route, _)| *route), self.space());
        let id = match command.is_read() {
            true => NAMELESS,
            false => route.map_or(NAMELESS, |route| route.router.request_id()),
        };
        let shard = command.key().map(|key| backend.rules().shard(key));
        if let Some(on_key) = shard.and_then(|shard| OnKey::new(id, shard, &command, |key| line.part(key))) {
            return Taken::Later(space, Work::Key(on_key));
        }
        if let Command::Stats(words) = &command
            && let Some((class, limit)) = stats::dumped(words)
        {
            return Taken::Later(space, Work::Dump { class, limit });
        }
        match (command, route) {
            (command, Some(route)) => self.take_keyless(route, command),
            (Command::Flush { after }, None) if self.engine.flushes_own() => {
                stats::count(&self.engine.traffic.flushes, 1);
                Taken::Later(space, Work::Flush { after })
            }
            (command, None) => Taken::Answered(self.engine.execute(command, self.moment)),
        }
    }

    /// Counts one key in so many reads of connections.
    fn sample<'k>(&self, key: impl FnOnce() -> Option<&'k [u8]>) {
        if self.is_sampled.take()
            && let Some(key) = key()
        {
            self.engine.hot.count(key, self.moment.now);
        }
    }

    /// All items are here, and nowhere else.
    pub fn is_alone(&self) -> bool {
        self.entered.is_none() && self.backend.is_none()
    }

    /// Whether what was answered may be told: this node had its lease all the while.
    pub fn is_sound(&self) -> bool {
        match &self.entered {
            Some((route, _)) if self.has_served.get() => route.router.is_leased(),
            _ => true,
        }
    }

    fn take_keyless(&self, route: &Route, command: Command<'_>) -> Taken {
        match (command, route.flushes) {
            (Command::Flush { .. }, Flushes::Nothing) => Taken::Answered(Reply::Refused(NO_FLUSH)),
            (Command::Flush { after }, Flushes::Space(space)) => {
                stats::count(&self.engine.traffic.flushes, 1);
                Taken::Later(space, Work::Flush { after })
            }
            (Command::Stats(words), _) if words == [b"cluster"] => Taken::Later(route.space, Work::Stats),
            (Command::Stats(words), _) if words.is_empty() => {
                match self.engine.execute(Command::Stats(words), self.moment) {
                    Reply::Table(own) => Taken::Later(route.space, Work::Sums(own)),
                    reply => Taken::Answered(reply),
                }
            }
            (command, _) => Taken::Answered(self.engine.execute(command, self.moment)),
        }
    }
}
