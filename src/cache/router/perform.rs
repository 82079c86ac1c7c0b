//! Carries the orders of one client to whoever has the keys, until each is answered or its time is up.
//!
//! In rounds: what is not answered yet is sent to its owner, many in one message, and executed here where this node is the owner. An
//! owner that does not serve a shard executes no later command of that shard either, so commands on one key happen in their order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Router;
use super::asking::{Asking, Share, answers};
use super::far::{Bounds, Far};
use super::order::{OnKey, Order, Work};
use super::owner::{Done, Entered};
use super::patience::Patience;
use crate::cache::command::Reply;
use crate::cache::council::{Route, ShardSet};
use crate::cache::peer::bytes::Reader;
use crate::cache::peer::message::Asked;
use crate::cache::peer::{self, Epoch, Space};
use crate::net::mesh::Name;

/// In all, for one client's commands that came together. PHP's clients wait for a second.
pub const DEADLINE: Duration = Duration::from_millis(900);
/// Before what nobody answers is asked again, if nothing is heard of the council before.
const AGAIN: Duration = Duration::from_millis(5);
/// Bytes of replies of this node's own server in one round.
const FAR_MAX: usize = 256 << 10;

/// One round: who is asked for what, by the orders' places.
#[derive(Default)]
struct Plan {
    own: Vec<(usize, Done)>,
    /// This node's own, whose items are on its server.
    far: Vec<Far>,
    /// The same, without a majority.
    alone: Vec<Far>,
    epoch: Option<Epoch>,
    /// A handful at most.
    others: Vec<Share>,
}

/// What ends a round before it is over.
struct Until<'a> {
    patience: &'a mut Patience,
    deadline: Instant,
    changed: &'a mut watch::Receiver<u64>,
}

impl Plan {
    /// Nothing of it is left but what others are asked for.
    fn is_done(&self) -> bool {
        self.own.is_empty() && self.far.is_empty() && self.alone.is_empty()
    }

    fn share(&mut self, node: &Name, epoch: Epoch, most: usize) -> &mut Share {
        let found = self.others.iter().position(|share| share.name == *node);
        let place = found.unwrap_or(self.others.len());
        if found.is_none() {
            self.others.push(Share::new(node.clone(), epoch, most));
        }
        &mut self.others[place]
    }
}

impl Router {
    /// The table in force here.
    pub fn epoch(&self) -> Option<Epoch> {
        let state = self.standing.state();
        state.placement().map(|placement| placement.epoch())
    }

    /// Answers orders from the first on; returns when all are answered, or so many that their replies hold `enough` bytes.
    pub async fn perform(self: &Arc<Self>, orders: &mut [Order], enough: usize, patience: &mut Patience) {
        let deadline = Instant::now() + DEADLINE;
        let mut from = 0;
        while from < orders.len() && held(orders) < enough {
            let rest = orders.get_mut(from..).unwrap_or_default();
            match rest.first_mut() {
                Some(Order { work: Work::Key(_), .. }) => {
                    let count = rest.iter().take_while(|order| matches!(order.work, Work::Key(_)));
                    let count = count.count();
                    let keys = rest.get_mut(..count).unwrap_or_default();
                    self.perform_keys(keys, enough, (&mut *patience, deadline)).await;
                    let is_done = |order: &&Order| order.reply.is_some();
                    from += orders
                        .get(from..)
                        .unwrap_or_default()
                        .iter()
                        .take_while(is_done)
                        .count();
                }
                Some(order) => {
                    if order.reply.is_none() {
                        let answer = Box::pin(self.fan_out(order.space, &order.work, deadline));
                        order.reply = Some(answer.await);
                    }
                    from += 1;
                }
                None => return,
            }
        }
    }

    async fn perform_keys(
        self: &Arc<Self>,
        orders: &mut [Order],
        enough: usize,
        (patience, deadline): (&mut Patience, Instant),
    ) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let open = orders.iter().filter(|order| order.reply.is_none()).count();
            if open == 0 || held(orders) >= enough {
                return;
            }
            if Instant::now() >= deadline {
                return self.give_up(orders);
            }
            let plan = self.plan(orders);
            let until = Until {
                patience,
                deadline,
                changed: &mut changed,
            };
            let is_changed = self.round(plan, orders, until).await;
            let left = orders.iter().filter(|order| order.reply.is_none()).count();
            if left == open && !is_changed {
                let _ = timeout_at(deadline.min(Instant::now() + AGAIN), changed.changed()).await;
            }
        }
    }

    /// Executes what is this node's own, and sorts the rest by its owners.
    fn plan(&self, orders: &mut [Order]) -> Plan {
        let entered = self.enter();
        let (mut plan, mut stopped) = (Plan::default(), ShardSet::EMPTY);
        plan.epoch = entered.epoch();
        let (epoch, count) = (plan.epoch.unwrap_or_default(), orders.len());
        for (place, order) in orders.iter_mut().enumerate() {
            let Work::Key(on_key) = &order.work else { continue };
            if order.reply.is_some() || stopped.has(on_key.shard) {
                continue;
            }
            let far = || {
                let (space, on_key) = (order.space, on_key.copy()?);
                Some(Far { place, space, on_key })
            };
            match entered.route(on_key.shard) {
                Route::Own if self.backend(order.space).is_some() => plan.far.extend(far()),
                Route::Alone if self.backend(order.space).is_some() => plan.alone.extend(far()),
                Route::Own => match entered.act(on_key.shard, asked(order.space, on_key)) {
                    Some(done) => plan.own.push((place, done)),
                    None => stopped.insert(on_key.shard),
                },
                Route::Other(node) => {
                    let share = plan.share(&node.name, epoch, count);
                    if !share.add(place, order.space, on_key) {
                        stopped.insert(on_key.shard);
                    }
                }
                // Whoever is to come must have its server first, which may take long.
                Route::Wait if entered.has_nobody(on_key.shard) && !self.keeps_items(order.space) => {
                    order.reply = Some(on_key.give_up(&self.rules));
                }
                Route::Wait => stopped.insert(on_key.shard),
                Route::Alone => order.reply = Some(self.alone(&entered, order.space, on_key)),
            }
        }
        plan
    }

    /// Whether another table came meanwhile.
    async fn round(self: &Arc<Self>, mut plan: Plan, orders: &mut [Order], until: Until<'_>) -> bool {
        let Until {
            patience,
            deadline,
            changed,
        } = until;
        let others = std::mem::take(&mut plan.others);
        let asks = others.into_iter().map(|share| share.begin(&self.mesh, deadline));
        let mut asks: Vec<Asking> = asks.collect();
        let answered = answers(&mut asks, (patience, deadline), changed);
        let is_changed = if plan.is_done() {
            answered.await
        } else {
            // Boxed: most orders are for other nodes alone, and shall not hold the room for it.
            let here = Box::pin(self.act_here(plan, orders, deadline));
            tokio::join!(answered, here).0
        };
        for asking in asks {
            asking.tell(orders);
        }
        is_changed
    }

    /// This node's own part of a round.
    async fn act_here(self: &Arc<Self>, plan: Plan, orders: &mut [Order], deadline: Instant) {
        let settled = plan.own.iter().map(|(_, done)| self.settle(done, deadline));
        let bounds = Bounds {
            deadline,
            enough: FAR_MAX,
        };
        let far = async {
            let acted = self.act_far(plan.far, plan.epoch, bounds).await;
            let settled = acted.into_iter().map(|(place, done)| async move {
                let may_tell = self.settle(&done, deadline).await;
                may_tell.then_some((place, done))
            });
            join_all(settled).await
        };
        let (settled, far) = tokio::join!(join_all(settled), far);
        for (place, done) in far.into_iter().flatten() {
            answer(orders, place, done.reply);
        }
        for Far { place, space, on_key } in plan.alone {
            if let (Some(backend), Some(order)) = (self.backend(space), orders.get_mut(place)) {
                order.reply = self.alone_far(backend, space, &on_key).await;
            }
        }
        for ((place, done), may_tell) in plan.own.into_iter().zip(settled) {
            if may_tell {
                answer(orders, place, done.reply);
            }
        }
    }

    fn alone(&self, entered: &Entered<'_>, space: Space, on_key: &OnKey) -> Reply {
        let reply = entered.alone(space, on_key.command());
        reply.unwrap_or_else(|| on_key.give_up(&self.rules))
    }

    fn give_up(&self, orders: &mut [Order]) {
        for order in orders.iter_mut().filter(|order| order.reply.is_none()) {
            if let Work::Key(on_key) = &order.work {
                order.reply = Some(on_key.give_up(&self.rules));
            }
        }
    }
}

fn asked(space: Space, on_key: &OnKey) -> Asked<'_> {
    Asked {
        id: on_key.id,
        space,
        command: on_key.command(),
    }
}

fn answer(orders: &mut [Order], place: usize, reply: Vec<u8>) {
    let Some(order) = orders.get_mut(place) else { return };
    let Work::Key(on_key) = &mut order.work else { return };
    let reply = Bytes::from(reply);
    order.reply = peer::reply::decode(&mut Reader(&reply), || on_key.take_name(), &reply).ok();
}

/// Bytes of replies that wait to be told, about.
fn held(orders: &[Order]) -> usize {
    let replies = orders.iter().filter_map(|order| order.reply.as_ref());
    replies.map(Reply::size).sum()
}
