//! The desk of one read: answers at once what this node may answer by itself, and hands back what must go to another node or wait for
//! one. Holds the router's gate, so never across an await.

use std::cell::Cell;
use std::sync::Arc;

use super::backend::Backend;
use super::class::Class;
use super::command::{Command, Reply};
use super::council::Route as Owner;
use super::engine::{Engine, Flushes, NO_FLUSH, Route};
use super::late::{Late, Line};
use super::peer::Space;
use super::router::{self, Entered, OnKey, Work};
use super::stats;
use super::store::Moment;

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
        self.sample(&command);
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
            // Who only reads may read twice.
            let id = if command.is_read() { 0 } else { router.request_id() };
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

    /// Where the items are on a server nothing about them is answered at once.
    fn take_far(&self, backend: &Backend, command: Command<'_>, line: &Line<'_>) -> Taken {
        let route = self.entered.as_ref().map(|(route, _)| *route);
        let space = route.map_or(Space::Portal, |route| route.space);
        let id = match command.is_read() {
            true => 0,
            false => route.map_or(0, |route| route.router.request_id()),
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
    fn sample(&self, command: &Command<'_>) {
        if self.is_sampled.take()
            && let Some(key) = command.key()
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
