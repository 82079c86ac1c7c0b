//! What `stats` and its sub-commands answer. Names are memcached's, because the portal's admin page and
//! `Memcached::getAllKeys` read them; the classes of `items`, `slabs` and `cachedump` are our shards, counted from 1.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ascii::{BAD_FORMAT, is_key};
use super::command::Reply;
use super::engine::Engine;
use super::number;
use super::request::VERSION;
use super::store::{Counters, Moment, SHARDS};

/// Classes that memcached knows; a client that asks for all of them must get an answer for each.
const CLASSES: u64 = 64;
/// Longest answer of one `cachedump`, as in memcached; further keys are left out.
const DUMP_MAX: usize = 2 << 20;
/// Keys that `stats top-keys` shows.
const TOP_KEYS: usize = 50;
const BAD_LINE: &str = "CLIENT_ERROR bad command line";
const BAD_CLASS: &str = "CLIENT_ERROR Illegal slab id";
const DETAIL_USAGE: &str = "CLIENT_ERROR usage: stats detail on|off|dump";

/// Name and value, in the order of the answer.
#[derive(Default)]
struct Rows(Vec<(String, String)>);

impl Rows {
    fn add(&mut self, name: impl Display, value: impl Display) {
        self.0.push((name.to_string(), value.to_string()));
    }
}

/// Answers `stats <words>`.
pub fn answer(engine: &Engine, words: &[&[u8]], moment: Moment) -> Reply {
    let mut rows = Rows::default();
    match words {
        [] => general(engine, moment, &mut rows),
        [b"items", ..] => items(engine, &mut rows),
        [b"slabs", ..] => slabs(engine, &mut rows),
        [b"sizes", ..] => rows.add("sizes_status", "disabled"),
        [b"settings", ..] => settings(engine, &mut rows),
        [b"conns", ..] => rows.add("connections", engine.traffic.connections.load(Ordering::Relaxed)),
        [b"detail", b"on" | b"off", ..] => return Reply::Done,
        [b"detail", b"dump", ..] => {}
        [b"detail", ..] => return Reply::Refused(DETAIL_USAGE),
        [b"cluster"] => general(engine, moment, &mut rows),
        [b"top-keys"] => top_keys(engine, &mut rows),
        [b"reset", ..] => {
            reset(engine);
            return Reply::Reset;
        }
        [b"cachedump", class, limit, ..] => return dump(engine, class, limit, moment),
        [b"cachedump", ..] => return Reply::Refused(BAD_LINE),
        _ => return Reply::Unknown,
    }
    Reply::Table(rows.0)
}

/// Adds to a number that only statistics read.
pub fn count(number: &AtomicU64, by: u64) {
    number.fetch_add(by, Ordering::Relaxed);
}

/// Class and limit of a `cachedump` that is well formed.
pub fn dumped(words: &[&[u8]]) -> Option<(u64, u64)> {
    let [b"cachedump", class, limit, ..] = words else {
        return None;
    };
    let class = number::parse(class).filter(|class| *class < CLASSES)?;
    Some((class, number::parse(limit)?))
}

/// What items take, wherever they are.
pub struct Held {
    pub items: usize,
    pub bytes: usize,
    pub budget: usize,
    pub evictions: u64,
    /// Of the server that has them, in seconds.
    pub uptime: Option<u64>,
}

pub fn held(engine: &Engine) -> Held {
    let (items, sum) = totals(engine);
    let Some(backend) = engine.backend() else {
        return Held {
            items,
            bytes: engine.store.used(),
            budget: engine.store.budget(),
            evictions: sum.evictions,
            uptime: None,
        };
    };
    let numbers = backend.numbers();
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Held {
        items: size(numbers.items),
        bytes: size(numbers.bytes),
        budget: size(numbers.budget),
        evictions: numbers.evictions,
        uptime: backend.is_up().then_some(numbers.uptime),
    }
}

/// Items and counters of all shards together.
pub fn totals(engine: &Engine) -> (usize, Counters) {
    let mut items = 0;
    let mut sum = Counters::default();
    for (shard_items, counters) in engine.store.shards() {
        items += shard_items;
        sum.add(counters);
    }
    (items, sum)
}

fn general(engine: &Engine, moment: Moment, rows: &mut Rows) {
    let (_, sum) = totals(engine);
    let held = held(engine);
    let (traffic, limits) = (&engine.traffic, &engine.limits);
    let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
    rows.add("pid", std::process::id());
    // The portal takes 0 for a server that does not answer.
    rows.add("uptime", held.uptime.unwrap_or(moment.now / 1000).max(1));
    rows.add("time", moment.unix / 1000);
    rows.add("version", VERSION);
    rows.add("pointer_size", usize::BITS);
    rows.add("max_connections", limits.max_connections);
    rows.add("curr_connections", traffic.connections.load(Ordering::Relaxed));
    rows.add("total_connections", read(&traffic.connections_total));
    rows.add("rejected_connections", 0);
    for (name, value) in [
        ("cmd_get", sum.get_hits + sum.get_misses),
        ("cmd_set", sum.set_commands),
        ("cmd_flush", read(&traffic.flushes)),
        ("cmd_touch", sum.touch_hits + sum.touch_misses),
        ("get_hits", sum.get_hits),
        ("get_misses", sum.get_misses),
        ("get_expired", sum.get_expired),
        ("delete_misses", sum.delete_misses),
        ("delete_hits", sum.delete_hits),
        ("incr_misses", sum.increment_misses),
        ("incr_hits", sum.increment_hits),
        ("decr_misses", sum.decrement_misses),
        ("decr_hits", sum.decrement_hits),
        ("cas_misses", sum.cas_misses),
        ("cas_hits", sum.cas_hits),
        ("cas_badval", sum.cas_mismatches),
        ("touch_hits", sum.touch_hits),
        ("touch_misses", sum.touch_misses),
        ("store_too_large", sum.too_large),
        ("store_no_memory", read(&traffic.refused)),
        ("bytes_read", read(&traffic.bytes_read)),
        ("bytes_written", read(&traffic.bytes_written)),
    ] {
        rows.add(name, value);
    }
    rows.add("limit_maxbytes", held.budget);
    rows.add("accepting_conns", 1);
    rows.add("listen_disabled_num", read(&traffic.full));
    rows.add("threads", limits.workers);
    rows.add("bytes", held.bytes);
    rows.add("curr_items", held.items);
    rows.add("total_items", sum.stored);
    rows.add("expired_unfetched", sum.expired_unread);
    rows.add("evicted_unfetched", sum.evicted_unread);
    rows.add("evictions", held.evictions);
    rows.add("reclaimed", sum.reclaimed);
}

fn items(engine: &Engine, rows: &mut Rows) {
    if engine.backend().is_some() {
        rows.add("items:1:number", held(engine).items);
    }
    for (class, (items, sum)) in (1..).zip(engine.store.shards()) {
        if items == 0 {
            continue;
        }
        rows.add(format_args!("items:{class}:number"), items);
        for (name, value) in [
            ("evicted", sum.evictions),
            ("evicted_unfetched", sum.evicted_unread),
            ("expired_unfetched", sum.expired_unread),
            ("reclaimed", sum.reclaimed),
        ] {
            rows.add(format_args!("items:{class}:{name}"), value);
        }
    }
}

fn slabs(engine: &Engine, rows: &mut Rows) {
    let mut active = 0;
    for (index, (items, sum)) in engine.store.shards().enumerate() {
        if items == 0 {
            continue;
        }
        active += 1;
        let class = index + 1;
        rows.add(format_args!("{class}:used_chunks"), items);
        rows.add(format_args!("{class}:get_hits"), sum.get_hits);
        rows.add(format_args!("{class}:cmd_set"), sum.set_commands);
        rows.add(format_args!("{class}:mem_requested"), engine.store.shard_bytes(index));
    }
    rows.add("active_slabs", active);
    rows.add("total_malloced", engine.store.used());
}

fn settings(engine: &Engine, rows: &mut Rows) {
    rows.add("maxbytes", engine.store.budget());
    rows.add("maxconns", engine.limits.max_connections);
    rows.add("tcpport", engine.limits.tcp_port);
    rows.add("udpport", 0);
    rows.add("verbosity", 0);
    rows.add("evictions", "on");
    rows.add("cas_enabled", "yes");
    rows.add("num_threads", engine.limits.workers);
    rows.add("item_size_max", engine.store.max_item());
    rows.add("flush_enabled", "yes");
    rows.add("dump_enabled", "yes");
    rows.add("binding_protocol", "auto-negotiate");
    rows.add("auth_enabled_sasl", "no");
}

fn top_keys(engine: &Engine, rows: &mut Rows) {
    for (key, count) in engine.hot.top(TOP_KEYS) {
        rows.add(key.escape_ascii(), count);
    }
}

fn reset(engine: &Engine) {
    engine.store.reset_counters();
    let traffic = &engine.traffic;
    for number in [
        &traffic.connections_total,
        &traffic.full,
        &traffic.bytes_read,
        &traffic.bytes_written,
        &traffic.flushes,
        &traffic.refused,
    ] {
        number.store(0, Ordering::Relaxed);
    }
}

/// `ITEM <key> [<bytes> b; <end of life as unix time> s]` for each item of a class. 0 is no limit.
fn dump(engine: &Engine, class: &[u8], limit: &[u8], moment: Moment) -> Reply {
    let (Some(class), Some(limit)) = (number::parse(class), number::parse(limit)) else {
        return Reply::Refused(BAD_FORMAT);
    };
    if class >= CLASSES {
        return Reply::Refused(BAD_CLASS);
    }
    let mut lines = Vec::new();
    let mut shown = 0;
    let shard = usize::try_from(class).ok().and_then(|class| class.checked_sub(1));
    if let Some(shard) = shard.filter(|shard| *shard < SHARDS) {
        engine.store.visit(shard, moment.now, |record, left| {
            // A key from the binary protocol may hold a line end.
            if !is_key(record.key()) {
                return true;
            }
            let end = left.map_or(0, |left| moment.unix.saturating_add(left) / 1000);
            lines.extend_from_slice(b"ITEM ");
            lines.extend_from_slice(record.key());
            lines.extend_from_slice(format!(" [{} b; {end} s]\r\n", record.value().len()).as_bytes());
            shown += 1;
            shown != limit && lines.len() < DUMP_MAX
        });
    }
    Reply::Dump(lines)
}
