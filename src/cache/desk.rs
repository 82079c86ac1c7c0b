//! The desk of one read: answers at once what this node may answer by itself, and hands back what must go to another node or wait for
//! one. Holds the router's gate, so never across an await.

use std::cell::Cell;
use std::sync::Arc;

use super::backend::Backend;
use super::class::Class;
use super::command::{Command, Reply};
use super::council::Route as Owner;
use super::engine::{Engine, Flushes, NO_FLUSH, Route};
use super::late::Late;
use super::peer::Space;
use super::router::{Entered, OnKey, Order, Work};
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
    Later(Order),
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

    /// `late`: commands before this one that are not answered yet.
    pub fn take(&self, command: Command<'_>, late: Option<&Late>) -> Taken {
        self.sample(&command);
        if let Some(backend) = self.backend {
            return self.take_far(backend, command);
        }
        let Some((route, entered)) = &self.entered else {
            return Taken::Answered(self.engine.execute(command, self.moment));
        };
        let Some(key) = command.key() else {
            return self.take_keyless(route, command);
        };
        let router = &route.router;
        let (shard, class) = (router.rules().shard(key), router.class(route.space, key));
        let later = |command: &Command<'_>| {
            let on_key = OnKey::new(router.request_id(), router.rules(), command);
            let work = on_key.map_or(Work::Stats, Work::Key);
            Taken::Later(Order::new(route.space, work))
        };
        if late.is_some_and(|late| late.concerns(shard)) {
            return later(&command);
        }
        match entered.route(shard) {
            Owner::Own => {}
            Owner::Alone => {
                let on_key = OnKey::new(0, router.rules(), &command);
                let fallback = on_key.map_or(Reply::Unavailable, |on_key| on_key.give_up());
                return Taken::Answered(entered.alone(route.space, command).unwrap_or(fallback));
            }
            Owner::Other(_) | Owner::Wait => return later(&command),
        }
        self.has_served.set(true);
        match command {
            Command::Get(get) if command.is_read() => {
                let reply = self.engine.execute(command, self.moment);
                // What a second node has not confirmed may still be lost: nobody shall have seen it.
                if class == Class::Sync && !entered.is_confirmed(shard) {
                    return later(&Command::Get(get));
                }
                Taken::Answered(reply)
            }
            command if entered.has_copies(shard, class) => later(&command),
            command => Taken::Answered(self.engine.execute(command, self.moment)),
        }
    }

    /// Where the items are on a server nothing about them is answered at once.
    fn take_far(&self, backend: &Backend, command: Command<'_>) -> Taken {
        let route = self.entered.as_ref().map(|(route, _)| *route);
        let space = route.map_or(Space::Portal, |route| route.space);
        let id = match command.is_read() {
            true => 0,
            false => route.map_or(0, |route| route.router.request_id()),
        };
        if let Some(on_key) = OnKey::new(id, backend.rules(), &command) {
            return Taken::Later(Order::new(space, Work::Key(on_key)));
        }
        if let Command::Stats(words) = &command
            && let Some((class, limit)) = stats::dumped(words)
        {
            return Taken::Later(Order::new(space, Work::Dump { class, limit }));
        }
        match (command, route) {
            (command, Some(route)) => self.take_keyless(route, command),
            (Command::Flush { after }, None) if self.engine.flushes_own() => {
                stats::count(&self.engine.traffic.flushes, 1);
                Taken::Later(Order::new(space, Work::Flush { after }))
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
                Taken::Later(Order::new(space, Work::Flush { after }))
            }
            (Command::Stats(words), _) if words == [b"cluster"] => Taken::Later(Order::new(route.space, Work::Stats)),
            (Command::Stats(words), _) if words.is_empty() => {
                match self.engine.execute(Command::Stats(words), self.moment) {
                    Reply::Table(own) => Taken::Later(Order::new(route.space, Work::Sums(own))),
                    reply => Taken::Answered(reply),
                }
            }
            (command, _) => Taken::Answered(self.engine.execute(command, self.moment)),
        }
    }
}
