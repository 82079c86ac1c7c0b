//! Rules by example: chains, captures, scores, jumps, exclusions.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::proxy::waf::rule::Engine;
use crate::proxy::waf::seclang::Program;
use crate::proxy::waf::transform::Reading;

const BUDGET: u64 = 1 << 30;

fn plan(text: &str) -> Arc<Plan> {
    let mut program = Program::default();
    program.add("test.conf", text, Path::new("/nowhere")).unwrap();
    Arc::new(Plan::new(program, Reading::Text))
}

fn request(target: &str, headers: &[(&str, &str)]) -> Request {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Request {
        method: bytes("GET"),
        target: bytes(target),
        protocol: "HTTP/1.1",
        headers: headers
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
        client: "192.0.2.7:1234".parse().unwrap(),
        server: "192.0.2.1:443".parse().unwrap(),
        host: "portal.example".to_string(),
        id: "0123456789abcdef".to_string(),
    }
}

fn run(rules: &str, target: &str, body: &str) -> (Option<Interruption>, Report) {
    let headers = [
        ("Host", "x"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Cookie", "a=1; b=2"),
    ];
    let mut transaction = Transaction::new(plan(rules), &request(target, &headers), Engine::Block, BUDGET);
    let refused = transaction.headers();
    let refused = refused.or_else(|| transaction.body(&Bytes::copy_from_slice(body.as_bytes()), false));
    (refused, transaction.finish())
}

fn hits(rules: &str, target: &str, body: &str) -> Vec<u64> {
    run(rules, target, body).1.hits.iter().map(|hit| hit.id).collect()
}

#[test]
fn a_chain_matches_when_all_its_links_do() {
    let rules = "SecRule ARGS:a \"@streq 1\" \"id:1,chain\"\nSecRule ARGS_GET:b \"!@eq 2\" \"\"";
    assert_eq!(hits(rules, "/?a=1&b=3", ""), [1]);
    assert!(hits(rules, "/?a=1&b=2", "").is_empty());
    assert!(hits(rules, "/?a=1", "").is_empty(), "nothing is not different from two");
}

#[test]
fn effects_run_at_each_match_and_scores_add_up() {
    let rules = "SecAction \"id:1,phase:1,nolog,setvar:tx.c=5\"\n\
        SecRule ARGS \"@contains x\" \"id:2,phase:2,setvar:'tx.score=+%{tx.c}'\"\n\
        SecRule TX:score \"@ge 10\" \"id:3,phase:2,deny,status:406,msg:'score %{tx.score}'\"";
    let (refused, report) = run(rules, "/?a=x&b=y", "c=x");
    assert_eq!(refused, Some(Interruption { rule: 3, status: 406 }));
    assert_eq!(report.hits[1].message, "score 10");
    assert_eq!(run(rules, "/?a=x", "").0, None);
}

#[test]
fn captures_names_and_matched_values_are_seen_by_later_links() {
    let rules = "SecRule ARGS \"@rx a(.)c\" \"id:1,phase:2,capture,t:lowercase,logdata:'%{TX.1} %{MATCHED_VAR_NAME} %{MATCHED_VAR}',chain\"\n\
        SecRule MATCHED_VARS \"@rx ^abc\" \"\"";
    let (_, report) = run(rules, "/?q=ABCD", "");
    assert_eq!(
        (report.hits[0].data.as_str(), report.hits[0].target.as_str()),
        ("b ARGS:q abcd", "ARGS:q")
    );
}

#[test]
fn jumps_counts_and_exclusions() {
    let rules = "SecRule &ARGS \"@gt 1\" \"id:1,phase:2,nolog,skipAfter:END\"\nSecRule ARGS|!ARGS:/^s_/ \"@rx x\" \"id:2,phase:2\"\nSecMarker END\nSecAction \"id:3,phase:2\"";
    assert_eq!(hits(rules, "/?a=x&b=1", ""), [3]);
    assert_eq!(hits(rules, "/?a=x", ""), [2, 3]);
    assert_eq!(hits(rules, "/?s_a=x", ""), [3]);
}

#[test]
fn control_removes_rules_and_targets_for_one_request() {
    let rules = "SecRule REQUEST_FILENAME \"@beginsWith /ok\" \"id:1,phase:1,nolog,ctl:ruleRemoveTargetById=2-3;ARGS:html,ctl:ruleRemoveByTag=t\"\n\
        SecRule ARGS \"@rx x\" \"id:2,phase:2\"\nSecAction \"id:4,phase:2,tag:t\"";
    assert_eq!(hits(rules, "/ok?html=x", ""), [] as [u64; 0]);
    assert_eq!(hits(rules, "/ok?other=x", ""), [2]);
    assert_eq!(hits(rules, "/?html=x", ""), [2, 4]);
}

#[test]
fn each_stage_is_seen_where_the_rule_asks_for_it() {
    let rules = "SecRule ARGS \"@rx ^%41$\" \"id:1,phase:2,t:urlDecode,t:lowercase,multiMatch\"\nSecRule ARGS \"@rx ^a$\" \"id:2,phase:2,t:urlDecode,t:lowercase\"";
    assert_eq!(hits(rules, "/?a=%2541", ""), [1, 2]);
}

#[test]
fn detection_refuses_nothing_and_says_what_it_would() {
    let rules = plan("SecAction \"id:1,phase:1,deny\"\nSecAction \"id:2,phase:1\"");
    let mut transaction = Transaction::new(rules, &request("/", &[]), Engine::Detect, BUDGET);
    assert_eq!(transaction.headers(), None);
    let report = transaction.finish();
    assert_eq!(report.refused, Some(Interruption { rule: 1, status: 403 }));
    assert_eq!(report.hits.len(), 2);
}

#[test]
fn allow_ends_the_rules_that_it_means() {
    let rules = "SecAction \"id:1,phase:1,allow:phase\"\nSecAction \"id:2,phase:1\"\nSecAction \"id:3,phase:2,allow\"\nSecAction \"id:4,phase:2\"";
    assert_eq!(hits(rules, "/", ""), [1, 3]);
}

#[test]
fn the_bound_on_work_ends_the_rules() {
    let rules = plan("SecRule REQUEST_URI \"@rx a\" \"id:1,phase:1\"\nSecRule REQUEST_URI \"@rx a\" \"id:2,phase:1\"");
    let target = format!("/{}", "a".repeat(100));
    let mut transaction = Transaction::new(rules, &request(&target, &[]), Engine::Block, 200);
    transaction.headers();
    let report = transaction.finish();
    assert!(report.is_exhausted);
    assert_eq!(report.hits.len(), 1);
}

#[test]
fn names_that_repeat_are_looked_at_once() {
    let rules = "SecRule ARGS_NAMES|ARGS \"@rx attack\" \"id:1,phase:2\"\nSecRule ARGS_NAMES|ARGS \"@rx worse\" \"id:2,phase:2,t:lowercase\"";
    let name = "A".repeat(4080);
    for item in [
        "\"\"",
        "{\"a\":\"\"}",
        "{\"b\":\"\"},\"\"",
        "[\"\"]",
        "[{\"a\":\"\"},\"\"]",
    ] {
        let items = vec![item; 14_000 / item.len()].join(",");
        let body = format!("{{\"{name}\":[{items}]}}");
        let json = request("/?q=attack", &[("Content-Type", "application/json")]);
        let mut transaction = Transaction::new(plan(rules), &json, Engine::Block, BUDGET);
        transaction.headers();
        let size = body.len();
        transaction.body(&Bytes::from(body), false);
        let report = transaction.finish();
        assert_eq!(report.hits.len(), 1, "{item}");
        assert!(report.work < 50 * size as u64, "{item}: {} for {size}", report.work);
    }
}

#[test]
fn patterns_of_names_are_work() {
    let rules = "SecRule ARGS|!ARGS:/x$/ \"@rx attack\" \"id:1,phase:2,nolog\"";
    let name = "a".repeat(4000);
    let body = format!("{{\"{name}\":[{}]}}", vec!["\"attack\""; 1000].join(","));
    let json = request("/", &[("Content-Type", "application/json")]);
    let mut transaction = Transaction::new(plan(rules), &json, Engine::Block, 1 << 20);
    transaction.headers();
    transaction.body(&Bytes::from(body), false);
    assert!(transaction.finish().is_exhausted);
}

#[test]
fn a_body_that_is_not_what_it_says_is_shown_raw() {
    let rules =
        "SecRule REQBODY_ERROR \"@eq 1\" \"id:1,phase:2\"\nSecRule REQUEST_BODY \"@contains bad\" \"id:2,phase:2\"";
    let json = request("/", &[("Content-Type", "application/json")]);
    let mut transaction = Transaction::new(plan(rules), &json, Engine::Block, BUDGET);
    transaction.headers();
    transaction.body(&Bytes::from_static(b"{bad"), false);
    let found: Vec<u64> = transaction.finish().hits.iter().map(|hit| hit.id).collect();
    assert_eq!(found, [1, 2]);
}

#[test]
fn json_that_is_announced_as_something_else_is_read_all_the_same() {
    let rules = "SecRule ARGS:json.a \"@streq bad\" \"id:1,phase:2\"\nSecRule REQBODY_ERROR \"@eq 1\" \"id:2,phase:2\"";
    for (body, expected) in [("{\"a\":\"bad\"}", &[1u64][..]), ("{no", &[]), ("a=bad", &[])] {
        let plain = request("/", &[("Content-Type", "text/plain")]);
        let mut transaction = Transaction::new(plan(rules), &plain, Engine::Block, BUDGET);
        transaction.headers();
        transaction.body(&Bytes::copy_from_slice(body.as_bytes()), false);
        let found: Vec<u64> = transaction.finish().hits.iter().map(|hit| hit.id).collect();
        assert_eq!(found, expected, "{body}");
    }
}
