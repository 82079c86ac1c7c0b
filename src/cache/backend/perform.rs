//! Carries out the orders of one client where there are no other nodes. Commands on one shard happen in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::{Backend, Lost, Name};
use crate::cache::command::{Command, Reply};
use crate::cache::council::Shard;
use crate::cache::router::{DEADLINE, OnKey, Order, Work};

impl Backend {
    /// Answers orders from the first on; returns when all are answered, or so many that their replies hold `enough` bytes.
    pub async fn perform(self: &Arc<Self>, orders: &mut [Order], enough: usize) {
        let deadline = Instant::now() + DEADLINE;
        let mut rest = orders;
        while !rest.is_empty() {
            let is_on_key = |order: &Order| matches!(order.work, Work::Key(_));
            let count = rest.iter().take_while(|order| is_on_key(order)).count();
            let (keys, others) = rest.split_at_mut(count);
            if !self.perform_keys(keys, enough, deadline).await {
                return;
            }
            let Some((order, after)) = others.split_first_mut() else {
                return;
            };
            if order.reply.is_none() {
                order.reply = Some(self.on_all(&order.work).await);
            }
            rest = after;
        }
    }

    /// Whether all are answered.
    async fn perform_keys(self: &Arc<Self>, orders: &mut [Order], enough: usize, deadline: Instant) -> bool {
        let mut shards: BTreeMap<Shard, Vec<(usize, OnKey)>> = BTreeMap::new();
        for (place, order) in orders.iter().enumerate() {
            if let (Work::Key(on_key), None) = (&order.work, &order.reply)
                && let Some(own) = on_key.copy()
            {
                shards.entry(on_key.shard).or_default().push((place, own));
            }
        }
        let held = &AtomicUsize::new(0);
        let groups = shards.into_values().map(|group| async move {
            let mut answered = Vec::new();
            for (place, on_key) in group {
                if held.load(Ordering::Relaxed) >= enough {
                    break;
                }
                let given_up = on_key.give_up(&self.rules);
                let reply = match timeout_at(deadline, self.execute(on_key)).await {
                    Ok(Ok(reply)) => reply,
                    Ok(Err(Lost)) | Err(_) => given_up,
                };
                if let Reply::Hit(hit) = &reply {
                    held.fetch_add(hit.record.value().len(), Ordering::Relaxed);
                }
                answered.push((place, reply));
            }
            answered
        });
        for (place, reply) in join_all(groups).await.into_iter().flatten() {
            if let Some(order) = orders.get_mut(place) {
                order.reply = Some(reply);
            }
        }
        orders.iter().all(|order| order.reply.is_some())
    }

    async fn execute(self: &Arc<Self>, on_key: OnKey) -> Result<Reply, Lost> {
        let command = on_key.command();
        if let Command::Get(get) = command
            && command.is_read()
            && let Some(reply) = self.read(get).await?
        {
            return Ok(reply);
        }
        let backend = self.clone();
        let changing = async move {
            let _pass = backend.pass().await;
            let _held = backend.hold(&Name::of(on_key.key())).await;
            backend.change(on_key.command()).await.map(|changed| changed.reply)
        };
        // Whether it was killed or has panicked: nobody knows what it did.
        self.scope.spawn(changing).await.ok().flatten().unwrap_or(Err(Lost))
    }

    async fn on_all(&self, work: &Work) -> Reply {
        match work {
            Work::Flush { after } => {
                let _still = self.still.write().await;
                self.flush(*after, |_| true);
                if after.is_none() {
                    // Whether it hears that or not: what it has counts no more.
                    let _ = self.server.empty().await;
                }
                Reply::Done
            }
            Work::Dump { class, limit } => self.dump(*class, *limit).await,
            Work::Stats | Work::Sums(_) | Work::Key(_) => Reply::Unavailable,
        }
    }
}
