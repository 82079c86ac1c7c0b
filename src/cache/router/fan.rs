//! What concerns no key goes to every node of the table: flushes, and the sums of statistics.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Router;
use super::order::{Row, Work};
use crate::cache::command::Reply;
use crate::cache::peer::bytes::{Reader, put_bytes, put_number};
use crate::cache::peer::message::Control;
use crate::cache::peer::{CONTROL, Epoch, Space};
use crate::net::mesh::{Class as Line, Name};

/// Before a node that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// Rows of `stats` that a client of one node shall see for all; so is `cmd_get`, of hits and misses.
const SUMMED: [&str; 7] = [
    "cmd_set",
    "get_hits",
    "get_misses",
    "evictions",
    "curr_items",
    "bytes",
    "limit_maxbytes",
];

impl Router {
    /// Does a thing on every node.
    pub(super) async fn fan_out(&self, space: Space, work: &Work, deadline: Instant) -> Reply {
        match work {
            Work::Flush { after } => self.flush_all(space, *after, deadline).await,
            Work::Stats => {
                let rows = self.ask_all(space, deadline).await;
                Reply::Table(
                    rows.into_iter()
                        .flat_map(|(node, body)| labelled(node, decode_rows(&body)))
                        .collect(),
                )
            }
            Work::Dump { class, limit } => match self.backend(space) {
                Some(backend) => backend.dump(*class, *limit).await,
                None => Reply::Unavailable,
            },
            Work::Sums(own) => {
                let rows = self.ask_all(space, deadline).await;
                let others = rows.iter().skip(1).flat_map(|(_, body)| decode_rows(body));
                Reply::Table(summed(own.clone(), others))
            }
            Work::Key(_) => Reply::Unavailable,
        }
    }

    /// Every node of the table must have flushed what it owns, and its copies.
    async fn flush_all(&self, space: Space, after: Option<u64>, deadline: Instant) -> Reply {
        let control = Control::Flush { space, after };
        let (mut done, mut under): (Vec<Name>, Option<Epoch>) = (Vec::new(), None);
        loop {
            let state = self.standing.state();
            if state.is_alone() {
                self.flush(space, after);
                return Reply::Done;
            }
            let epoch = state.placement().map(|placement| placement.epoch());
            if epoch != under {
                // Who owns more now has flushed less.
                done.clear();
                under = epoch;
            }
            let nodes = state.placement().map(|placement| placement.table().nodes.clone());
            let others = nodes.unwrap_or_default().into_iter().map(|node| node.name);
            let others = others.filter(|name| *name != self.own);
            let left: Vec<Name> = std::iter::once(self.own.clone())
                .chain(others)
                .filter(|name| !done.contains(name))
                .collect();
            if left.is_empty() && state.placement().is_some() {
                return Reply::Done;
            }
            if Instant::now() >= deadline {
                return Reply::Unavailable;
            }
            let mut changed = self.changed.subscribe();
            let asked = join_all(left.iter().map(|name| async {
                match *name == self.own {
                    true => self.flush_copied(space, after, deadline).await.then(Vec::new),
                    false => self.control_of(name, &control, deadline).await,
                }
            }));
            let answers = tokio::select! {
                answers = asked => answers,
                // Who is out of the table need not answer.
                _ = changed.changed() => continue,
            };
            let before = done.len();
            let answered = left.into_iter().zip(answers).filter(|(_, answer)| answer.is_some());
            done.extend(answered.map(|(name, _)| name));
            if done.len() == before {
                let _ = timeout_at(deadline.min(Instant::now() + AGAIN), changed.changed()).await;
            }
        }
    }

    /// Flushes here, and waits until the copies of that are gone. `false`: some may be left.
    pub(super) async fn flush_copied(&self, space: Space, after: Option<u64>, deadline: Instant) -> bool {
        let epoch = self.epoch();
        for (stream, number) in self.flush(space, after) {
            if timeout_at(deadline, stream.kept(number)).await.is_err() {
                return false;
            }
        }
        // Who was told nothing, because its stream was closed, has no copies under this table.
        self.epoch() == epoch
    }

    /// The numbers of each node of the table that answers, this one's first.
    async fn ask_all(&self, space: Space, deadline: Instant) -> Vec<(Name, Vec<u8>)> {
        let own = (self.own.clone(), self.stats(space));
        let control = Control::Stats { space };
        let state = self.standing.state();
        let nodes = state.placement().map(|placement| placement.table().nodes.clone());
        let others = nodes.unwrap_or_default().into_iter().map(|node| node.name);
        let others = others.filter(|name| *name != self.own).map(|name| async {
            let answer = self.control_of(&name, &control, deadline).await?;
            Some((name, answer))
        });
        let answers = join_all(others).await.into_iter().flatten();
        std::iter::once(own).chain(answers).collect()
    }

    async fn control_of(&self, name: &Name, control: &Control, deadline: Instant) -> Option<Vec<u8>> {
        let within = deadline.saturating_duration_since(Instant::now());
        let body = control.encode(self.epoch().unwrap_or_default());
        let called = self.mesh.peer(name).call(Line::Calls, CONTROL, body, within).await;
        match called {
            Ok(answer) => Some(answer.to_vec()),
            Err(error) => {
                debug!(node = %name, %error, "a cache does not answer");
                None
            }
        }
    }

    /// This node's part of `ask_all`.
    pub(super) fn stats(&self, space: Space) -> Vec<u8> {
        encode_rows(&self.rows(space))
    }

    /// The numbers of one store, for `cache stats`.
    fn rows(&self, space: Space) -> Vec<Row> {
        let store = self.store(space);
        let (mut items, mut hits, mut misses, mut sets, mut evictions) = (0, 0, 0, 0, 0);
        for (count, counters) in store.shards() {
            items += count;
            hits += counters.get_hits;
            misses += counters.get_misses;
            sets += counters.set_commands;
            evictions += counters.evictions;
        }
        let (mut bytes, mut budget) = (store.used() as u64, store.budget() as u64);
        if let Some(backend) = self.backend(space) {
            let numbers = backend.numbers();
            (items, bytes, budget) = (numbers.items as usize, numbers.bytes, numbers.budget);
            evictions = numbers.evictions;
        }
        let row = |name: &str, value: String| (name.to_string(), value);
        let mut rows = vec![
            row("curr_items", items.to_string()),
            row("bytes", bytes.to_string()),
            row("limit_maxbytes", budget.to_string()),
            row("get_hits", hits.to_string()),
            row("get_misses", misses.to_string()),
            row("cmd_set", sets.to_string()),
            row("evictions", evictions.to_string()),
        ];
        let view = self.gate.read().expect("nothing panics under this lock");
        if let Some(holding) = &view.holding {
            rows.push(row("epoch", holding.placement.epoch().to_string()));
            rows.push(row("shards_owned", holding.owned.len().to_string()));
            let copied = holding.kept.sync.minus(&holding.owned).len();
            rows.push(row("shards_copied", copied.to_string()));
            let waiting: usize = view.targets.iter().map(|(stream, _)| stream.bytes()).sum();
            rows.push(row("copies_waiting_bytes", waiting.to_string()));
        }
        rows
    }
}

fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, rows.len() as u64);
    for (name, value) in rows {
        put_bytes(&mut out, name.as_bytes());
        put_bytes(&mut out, value.as_bytes());
    }
    out
}

fn decode_rows(body: &[u8]) -> Vec<Row> {
    let mut from = Reader(body);
    let count = from.count().unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = (0..count).map_while(|_| {
        let (name, value) = (from.bytes().ok()?, from.bytes().ok()?);
        Some((text(name), text(value)))
    });
    rows.collect()
}

fn labelled(node: Name, rows: Vec<Row>) -> impl Iterator<Item = Row> {
    rows.into_iter()
        .map(move |(name, value)| (format!("{node}:{name}"), value))
}

/// Adds the other nodes' numbers to a node's own rows.
fn summed(mut own: Vec<Row>, others: impl Iterator<Item = Row>) -> Vec<Row> {
    for (name, value) in others {
        let is_get = matches!(name.as_str(), "get_hits" | "get_misses");
        for (own_name, sum) in &mut own {
            let is_meant = *own_name == name && SUMMED.contains(&name.as_str());
            if (is_meant || is_get && own_name == "cmd_get")
                && let (Ok(one), Ok(other)) = (sum.parse::<u64>(), value.parse::<u64>())
            {
                *sum = one.saturating_add(other).to_string();
            }
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Row> {
        let pairs = text.split(' ').filter_map(|row| row.split_once('='));
        pairs
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn sums_are_of_all_nodes_and_the_rest_is_the_own() {
        let own = rows("pid=7 cmd_get=3 get_hits=2 get_misses=1 cmd_set=5 bytes=100 epoch=4");
        let (second, third) = (
            rows("get_hits=10 get_misses=20 pid=8 epoch=4"),
            rows("cmd_set=1 bytes=x"),
        );
        let wanted = rows("pid=7 cmd_get=33 get_hits=12 get_misses=21 cmd_set=6 bytes=100 epoch=4");
        assert_eq!(summed(own, second.into_iter().chain(third)), wanted);
    }

    #[test]
    fn rows_cross() {
        let sent = rows("a=1 b=2");
        assert_eq!(decode_rows(&encode_rows(&sent)), sent);
        assert_eq!(decode_rows(&encode_rows(&sent)[..5]), rows("a=1"));
    }
}
