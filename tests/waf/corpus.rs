//! The regression tests of the OWASP Core Rule Set. They are not part of this repository: `make test-waf` names the rule set's folder
//! in WAF_CORPUS, and in WAF_CASES the lines that `corpus.py` made of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bitrix_node::proxy::waf::{Answer, Engine, Hit, Own, Plan, Reading, Report, Request, Transaction, load};
use bytes::Bytes;
use data_encoding::BASE64;
use regex::Regex;
use serde::Deserialize;

/// As the rule set's README asks for; rules that look at the client's machine alone are out.
const SETUP: &str = "SecAction \"id:900005,phase:1,nolog,pass,ctl:ruleRemoveById=910000,\
    setvar:tx.blocking_paranoia_level=4,setvar:tx.crs_validate_utf8_encoding=1,setvar:tx.arg_name_length=100,\
    setvar:tx.arg_length=400,setvar:tx.total_arg_length=64000,setvar:tx.max_num_args=255,setvar:tx.max_file_size=64100,\
    setvar:tx.combined_file_sizes=65535\"";
const BUDGET: u64 = 1 << 32;
/// Tests of what the server before the rules makes of a request, which differs between servers.
const SERVERS: [(&str, &str); 2] = [
    (
        "920181-1",
        "two framings of one body: refused by `proxy::framing`, where Apache drops one",
    ),
    (
        "920620-1",
        "two fields Content-Type: kept apart here and by nginx, where Apache makes one of them",
    ),
];
/// Of the tests of one paranoia level; what misses is listed.
const WANTED: f64 = 0.99;

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub method: String,
    pub uri: String,
    pub protocol: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    status: Option<u16>,
    expect: Vec<u64>,
    refuse: Vec<u64>,
    #[serde(rename = "match")]
    matching: Option<String>,
    miss: Option<String>,
}

/// What the rule set's test server answers on `/reflect`.
#[derive(Default, Deserialize)]
struct Reflected {
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default, rename = "encodedBody")]
    encoded: String,
}

#[allow(clippy::disallowed_methods)]
pub fn named(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    value.unwrap_or_else(|| panic!("{variable} is not set")).into()
}

pub fn cases() -> Vec<Case> {
    let text = fs::read_to_string(named("WAF_CASES")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn plan(reading: Reading) -> Arc<Plan> {
    Arc::new(read(reading))
}

fn read(reading: Reading) -> Plan {
    let own = [Own {
        name: "corpus",
        text: SETUP,
    }];
    let folders = [named("WAF_CORPUS")];
    load(&folders, &own, &[], reading).unwrap_or_else(|error| panic!("{error}"))
}

fn protocol(text: &str) -> &'static str {
    match text {
        "HTTP/1.1" => "HTTP/1.1",
        "HTTP/1.0" => "HTTP/1.0",
        other => Box::leak(other.to_string().into_boxed_str()),
    }
}

pub fn request(case: &Case) -> Request {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Request {
        method: bytes(&case.method),
        target: bytes(&case.uri),
        protocol: protocol(&case.protocol),
        headers: case
            .headers
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
        client: "127.0.0.1:1234".parse().unwrap(),
        server: "127.0.0.1:80".parse().unwrap(),
        host: "localhost".to_string(),
        id: "test".to_string(),
    }
}

pub fn run(plan: &Arc<Plan>, case: &Case) -> Report {
    let mut transaction = Transaction::new(plan.clone(), &request(case), Engine::Detect, BUDGET);
    let body: Bytes = BASE64.decode(case.body.as_bytes()).unwrap().into();
    transaction.headers();
    transaction.body(&body, false);
    let reflected = match case.uri.starts_with("/reflect") {
        true => serde_json::from_slice::<Reflected>(&body).unwrap_or_default(),
        false => Reflected::default(),
    };
    let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    transaction.answer(&Answer {
        status: reflected.status.unwrap_or(200),
        protocol: "HTTP/1.1",
        headers: reflected
            .headers
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
    });
    let text = match reflected.encoded.is_empty() {
        true => Bytes::from(reflected.body),
        false => BASE64.decode(reflected.encoded.as_bytes()).unwrap().into(),
    };
    transaction.answer_body(&text);
    transaction.finish()
}

fn verdict(case: &Case, report: &Report) -> Result<(), String> {
    let has = |id: &u64| report.hits.iter().any(|hit| hit.id == *id);
    if let Some(missing) = case.expect.iter().find(|id| !has(id)) {
        return Err(format!("{missing} did not match"));
    }
    if let Some(false_hit) = case.refuse.iter().find(|id| has(id)) {
        return Err(format!("{false_hit} matched"));
    }
    let line = |hit: &Hit| {
        let data = hit.data.escape_debug();
        format!("[id \"{}\"] [msg \"{}\"] [data \"{data}\"]\n", hit.id, hit.message)
    };
    let log: String = report.hits.iter().map(line).collect();
    let finds = |pattern: &String| Regex::new(pattern).unwrap().is_match(&log);
    if let Some(pattern) = case.matching.as_ref().filter(|pattern| !finds(pattern)) {
        return Err(format!("the log has no {pattern}: {log}"));
    }
    if let Some(pattern) = case.miss.as_ref().filter(|pattern| finds(pattern)) {
        return Err(format!("the log has {pattern}: {log}"));
    }
    Ok(())
}

/// The level that a test's rule belongs to, by the rule's tag.
fn level(plan: &Plan, case: &Case) -> u8 {
    let id: u64 = case
        .name
        .split(['-', '/'])
        .next()
        .and_then(|id| id.parse().ok())
        .unwrap_or(0);
    let rule = plan.rules.iter().find(|rule| rule.id == id);
    let tags = rule.into_iter().flat_map(|rule| &rule.tags);
    tags.filter_map(|tag| tag.strip_prefix("paranoia-level/")?.parse().ok())
        .next()
        .unwrap_or(1)
}

#[test]
#[ignore = "needs the rule set: make test-waf"]
fn the_core_rule_set_finds_what_its_own_tests_say() {
    for reading in [Reading::Text, Reading::Strict] {
        let plan = plan(reading);
        let mut levels: BTreeMap<u8, (usize, usize)> = BTreeMap::new();
        for case in cases() {
            // The server before the rules would have refused it.
            if case.status == Some(400) || SERVERS.iter().any(|(name, _)| *name == case.name) {
                continue;
            }
            let (passed, all) = levels.entry(level(&plan, &case)).or_default();
            *all += 1;
            match verdict(&case, &run(&plan, &case)) {
                Ok(()) => *passed += 1,
                Err(why) => println!("{reading:?} {}: {why}", case.name),
            }
        }
        for (level, (passed, all)) in &levels {
            let share = *passed as f64 / *all as f64;
            println!("{reading:?}: level {level}: {passed} of {all} ({:.2} %)", share * 100.0);
        }
        for (level, (passed, all)) in levels {
            assert!(passed as f64 >= WANTED * all as f64, "level {level}");
        }
    }
}

/// Hits, verdict and score: all that a request comes to, but what it cost.
fn outcome(report: &Report) -> String {
    let hits = report.hits.iter();
    let hits: Vec<String> = hits
        .map(|hit| format!("{} {} {} {}", hit.id, hit.target, hit.data, hit.message))
        .collect();
    format!(
        "{:?} {} {} {hits:?}",
        report.refused, report.score, report.outbound_score
    )
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

/// A text made of pieces of two others, with an escape or a random byte here and there.
fn mixed(numbers: &mut Numbers, one: &[u8], other: &[u8]) -> Vec<u8> {
    let mut piece = |text: &[u8]| {
        let start = numbers.below(text.len() + 1);
        text[start..start + numbers.below(text.len() - start + 1)].to_vec()
    };
    let mut text = [piece(one), piece(other), piece(one)].concat();
    for _ in 0..numbers.below(4) {
        if text.is_empty() {
            break;
        }
        let at = numbers.below(text.len());
        match numbers.below(3) {
            0 => text[at] = numbers.below(256) as u8,
            1 => text[at] = text[at].to_ascii_uppercase(),
            _ => {
                let escape = format!("%{:02x}", text[at]);
                text.splice(at..at + 1, escape.into_bytes());
            }
        }
    }
    text
}

#[test]
#[ignore = "needs the rule set: make test-waf"]
fn a_request_comes_to_the_same_with_the_filter_and_without() {
    let fast = plan(Reading::Text);
    let plain = Arc::new(read(Reading::Text).without_filter());
    let mut cases = cases();
    let compare = |case: &Case| {
        let (found, expected) = (outcome(&run(&fast, case)), outcome(&run(&plain, case)));
        assert_eq!(found, expected, "{} {} {}", case.name, case.uri, case.body);
    };
    cases.iter().for_each(compare);
    let texts: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| match case.body.is_empty() {
            true => case.uri.clone().into_bytes(),
            false => BASE64.decode(case.body.as_bytes()).unwrap(),
        })
        .collect();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..20_000 {
        let at = numbers.below(cases.len());
        let (one, other) = (numbers.below(texts.len()), numbers.below(texts.len()));
        let text = mixed(&mut numbers, &texts[one], &texts[other]);
        let case = &mut cases[at];
        if case
            .headers
            .iter()
            .any(|(_, value)| value.starts_with("application/x-www"))
        {
            case.body = BASE64.encode(&[b"a=".as_slice(), &text].concat());
        } else {
            let printable = text.iter().map(|byte| format!("%{byte:02x}"));
            case.uri = format!("/?a={}", printable.collect::<String>());
        }
        case.name = format!("round {round}");
        compare(case);
    }
}
