//! What the firewall's engine costs: a request's samples through the rules, many times, on one thread. `make bench-waf` makes the samples.
//!
//! ```text
//! waf_cost SAMPLES FOLDER[:FOLDER...] [ROUNDS [NAME]]
//! ```
//! Prints the time and the memory that loading takes, then microseconds of each sample: the third fastest round, beside its goal. Every
//! round has other digits in the target and in the body: what is known from earlier rounds is what browsers repeat, the rest of the head.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use bitrix_node::config;
use bitrix_node::proxy::firewall;
use bitrix_node::proxy::waf::{Engine, Plan, Report, Request, Transaction};
use bytes::Bytes;
use serde::Deserialize;

const BUDGET: u64 = 64 << 20;

#[derive(Deserialize)]
struct Sample {
    name: String,
    /// Milliseconds.
    goal: f64,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|text| text != "--bench").collect();
    let [samples, folders, more @ ..] = arguments.as_slice() else {
        panic!("waf_cost SAMPLES FOLDER[:FOLDER...] [ROUNDS [NAME]]");
    };
    let rounds: usize = more.first().map_or(100, |text| text.parse().unwrap());
    let mut waf = config::read(config::DEFAULTS).unwrap().config.waf;
    waf.rules = folders.split(':').map(Into::into).collect();
    let (before, started) = (resident(), Instant::now());
    let plan = Arc::new(firewall::load(&waf).unwrap_or_else(|error| panic!("{error}")));
    let took = started.elapsed().as_millis();
    println!("loaded in {took} ms, {} MiB", (resident() - before) >> 20);
    for line in fs::read_to_string(samples).unwrap().lines() {
        let sample: Sample = serde_json::from_str(line).unwrap();
        if more.get(1).is_none_or(|name| *name == sample.name) {
            show(&plan, &sample, rounds);
        }
    }
    println!("resident after all {} MiB", (resident() - before) >> 20);
}

fn show(plan: &Arc<Plan>, sample: &Sample, rounds: usize) {
    let request = request(sample);
    let mut spent: Vec<u128> = Vec::new();
    let mut report = Report::default();
    for round in 0..rounds.max(3) {
        let (body, target) = (varied(&sample.body, round), varied(&sample.target, round));
        let request = Request {
            target,
            ..request.clone()
        };
        let started = Instant::now();
        let mut transaction = Transaction::new(plan.clone(), &request, Engine::Block, BUDGET);
        let refused = transaction.headers();
        if refused.is_none() {
            transaction.body(&body, false);
        }
        report = transaction.finish();
        spent.push(started.elapsed().as_nanos());
    }
    spent.sort_unstable();
    let hits: Vec<u64> = report.hits.iter().map(|hit| hit.id).collect();
    println!(
        "{:16} {:6} bytes  {:9.1} us of {:7.0}  work {:8}  score {} {hits:?}",
        sample.name,
        sample.body.len(),
        spent[2] as f64 / 1000.0,
        sample.goal * 1000.0,
        report.work,
        report.score
    );
}

/// Other digits, as many: forms and JSON stay what they are. Escapes keep theirs.
fn varied(text: &str, round: usize) -> Bytes {
    let mut last = [0, 0];
    let mut random = round as u64 * 2 + 1;
    let digits = text.bytes().map(|byte| {
        let is_free = byte.is_ascii_digit() && !last.contains(&b'%') && !last.contains(&b'\\');
        last = [last[1], byte];
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match is_free {
            true => b'1' + (random >> 33) as u8 % 9,
            false => byte,
        }
    });
    digits.collect::<Vec<u8>>().into()
}

fn request(sample: &Sample) -> Request {
    let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    let headers = sample.headers.iter();
    Request {
        method: bytes(&sample.method),
        target: bytes(&sample.target),
        protocol: "HTTP/1.1",
        headers: headers.map(|(name, value)| (bytes(name), bytes(value))).collect(),
        client: "192.0.2.7:1234".parse().unwrap(),
        server: "192.0.2.1:443".parse().unwrap(),
        host: "portal.example.com".to_string(),
        id: "0123456789abcdef".to_string(),
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
