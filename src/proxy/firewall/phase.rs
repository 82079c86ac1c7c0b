//! One request and the rules: judged, written down, refused or let on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Version, header};

use super::answer::{Answers, Watch, fields};
use super::audit::{Action, Audit, Entry};
use super::{held, load};
use crate::config::{Config, OnFailure, WafMode};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::intake;
use crate::proxy::metrics::Metrics;
use crate::proxy::waf::{Engine, Plan, Report, Request, Transaction};

/// Bodies beyond this are judged on a thread of their own: an I/O thread must not stand still for milliseconds.
const INLINE: usize = 16 << 10;
/// What rules see of a common body by its size: names are seen, too, and in JSON again and again.
const SPREAD: usize = 4;

pub struct Firewall {
    plan: Arc<Plan>,
    engine: Engine,
    on_failure: OnFailure,
    max_body: usize,
    max_work: u64,
    pub(super) audit: Option<Audit>,
    pub(super) answers: Answers,
}

/// A request that goes on.
pub struct Inspected {
    pub body: Body,
    /// Its answer is to be judged.
    pub watch: Option<Watch>,
}

/// What a request came to. `None`: it could not be judged.
type Verdict = Option<Report>;

impl Firewall {
    /// Reads the rules and opens the log. `None`: switched off.
    pub fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Self>> {
        let waf = &config.waf;
        let engine = match waf.mode {
            WafMode::Off => return Ok(None),
            WafMode::Detect => Engine::Detect,
            WafMode::Block => Engine::Block,
        };
        let plan = load(waf).context("read the firewall's rules")?;
        let audit = config.audit_log().map(|path| {
            let opened = Audit::open(&path, metrics.waf_log_dropped.clone());
            opened.with_context(|| format!("open the firewall's log {}", path.display()))
        });
        Ok(Some(Firewall {
            plan: Arc::new(plan),
            engine,
            on_failure: waf.on_failure,
            max_body: waf.max_body.bytes(),
            max_work: waf.max_work.0,
            audit: audit.transpose()?,
            answers: Answers::new(waf),
        }))
    }

    /// The request's body, for its target; or why there is none.
    pub async fn inspect(&self, exchange: &Exchange, body: Body, metrics: &Metrics) -> Result<Inspected, Error> {
        let mut spent = Duration::ZERO;
        let started = Instant::now();
        let (request, plan) = (request(exchange), self.plan.clone());
        let (engine, max_work) = (self.engine, self.max_work);
        let head = caught(move || {
            let mut transaction = Box::new(Transaction::new(plan, &request, engine, max_work));
            let refused = transaction.headers();
            (transaction, refused)
        });
        spent += started.elapsed();
        let (transaction, refused) = match head {
            Some(head) => head,
            None => {
                self.settle(exchange, None, spent, metrics)?;
                return Ok(Inspected { body, watch: None });
            }
        };
        if refused.is_some() {
            let report = caught(move || transaction.finish());
            self.settle(exchange, report, spent, metrics)?;
            return Ok(Inspected { body, watch: None });
        }
        let held = held::hold(body, self.max_body).await?;
        let started = Instant::now();
        let (text, is_cut) = (held.text, held.is_cut);
        let read = run(held.size, move || {
            let mut transaction = transaction;
            let size = transaction.read_body(&text, is_cut);
            (transaction, size)
        });
        let judged = match read.await {
            Some((mut transaction, size)) => {
                let judge = move || {
                    transaction.judge_body();
                    let report = transaction.asked();
                    (transaction, report)
                };
                run(size / SPREAD, judge).await
            }
            None => None,
        };
        let (transaction, verdict) = judged.unzip();
        spent += started.elapsed();
        let is_judged = verdict.as_ref().is_some_and(|report| !report.is_exhausted);
        self.settle(exchange, verdict, spent, metrics)?;
        let is_watched = is_judged && self.answers.mode != WafMode::Off;
        Ok(Inspected {
            body: held.body,
            watch: transaction.filter(|_| is_watched).map(Watch),
        })
    }

    pub fn reopen(&self) {
        self.audit.iter().for_each(Audit::reopen);
    }

    pub fn mode(&self) -> &'static str {
        match self.engine {
            Engine::Block => WafMode::Block.name(),
            _ => WafMode::Detect.name(),
        }
    }

    fn settle(&self, exchange: &Exchange, verdict: Verdict, spent: Duration, metrics: &Metrics) -> Result<(), Error> {
        let action = self.action(verdict.as_ref(), self.engine == Engine::Block);
        metrics.inspected(action, spent);
        let report = verdict.unwrap_or_default();
        if action != Action::Passed {
            self.write(|| Entry::new(exchange, &report, action));
        }
        let rule = report.refused.map_or(0, |refused| refused.rule);
        match action {
            Action::Blocked => Err(Error::new(
                Kind::Forbidden,
                format!("refused by rule {rule} of the firewall"),
            )),
            Action::FailedClosed => Err(Error::new(Kind::Forbidden, "the firewall could not judge it")),
            Action::Passed | Action::Detected | Action::FailedOpen => Ok(()),
        }
    }

    pub(super) fn write(&self, entry: impl FnOnce() -> Entry) {
        if let Some(audit) = &self.audit {
            audit.write(entry());
        }
    }

    pub(super) fn action(&self, verdict: Option<&Report>, is_blocking: bool) -> Action {
        match verdict {
            Some(report) if report.refused.is_some() && is_blocking => Action::Blocked,
            Some(report) if report.is_exhausted || report.is_partial => self.failure(is_blocking),
            None => self.failure(is_blocking),
            Some(report) if report.refused.is_some() || !report.hits.is_empty() => Action::Detected,
            Some(_) => Action::Passed,
        }
    }

    fn failure(&self, is_blocking: bool) -> Action {
        match (self.on_failure, is_blocking) {
            (OnFailure::Closed, true) => Action::FailedClosed,
            _ => Action::FailedOpen,
        }
    }
}

/// Work on that many bytes: its result, unless it panicked.
pub(super) async fn run<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match size <= INLINE {
        true => caught(work),
        // A panic there comes back as an error.
        false => tokio::task::spawn_blocking(work).await.ok(),
    }
}

/// The result, unless the work panicked.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// What rules see of a request's head.
fn request(exchange: &Exchange) -> Request {
    let parts = &exchange.request;
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut headers = fields(&parts.headers);
    if !parts.headers.contains_key(header::HOST) && !exchange.host.is_empty() {
        // HTTP/2 says it elsewhere.
        headers.push((Bytes::from_static(b"host"), bytes(&exchange.host)));
    }
    Request {
        method: bytes(parts.method.as_str()),
        target: bytes(&intake::origin_form(&parts.uri).to_string()),
        protocol: protocol(parts.version),
        headers,
        client: exchange.peer,
        server: exchange.local,
        host: exchange.host.clone(),
        id: exchange.id.to_string(),
    }
}

pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/3.0",
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Bed;
    use super::*;
    use crate::proxy::fixture::{empty, exchange, full, read};

    const RULES: &str = "SecRule ARGS \"@contains attack\" \"id:1,phase:2,deny,msg:'found',logdata:'%{MATCHED_VAR}'\"\n\
        SecRule REQUEST_HEADERS:X-Bad \"@eq 1\" \"id:2,phase:1,deny\"\nSecRule ARGS \"@contains worse\" \"id:3,phase:2\"\n";
    const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

    fn bed(mode: &str, more: &str) -> Bed {
        Bed::new(RULES, &format!("mode = \"{mode}\"\n{more}"))
    }

    impl Bed {
        /// What the target gets of that request.
        async fn send(&self, target: &str, fields: &[(&str, &str)], body: Body) -> Result<Bytes, Kind> {
            self.send_by("POST", target, fields, body).await
        }

        async fn send_by(
            &self,
            method: &str,
            target: &str,
            fields: &[(&str, &str)],
            body: Body,
        ) -> Result<Bytes, Kind> {
            let exchange = exchange(method, target, fields);
            let inspected = self.firewall.inspect(&exchange, body, &self.metrics).await;
            let inspected = inspected.map_err(|error| error.kind)?;
            Ok(read(inspected.body).await.expect("a body"))
        }
    }

    #[tokio::test]
    async fn an_attack_is_refused_and_everything_else_goes_on_whole() {
        let bed = bed("block", "");
        let clean = format!("a=1&b={}", "x".repeat(40_000));
        assert_eq!(bed.send("/a?q=1", &FORM, full(clean.clone())).await, Ok(clean.into()));
        assert_eq!(bed.send("/a", &FORM, full("a=1&b=attack")).await, Err(Kind::Forbidden));
        let late = format!("a={}&b=attack", "x".repeat(40_000));
        assert_eq!(bed.send("/a", &FORM, full(late)).await, Err(Kind::Forbidden));
        assert_eq!(
            bed.send("/a", &[("x-bad", "1")], full("never read")).await,
            Err(Kind::Forbidden)
        );
        assert_eq!(bed.send("/a?q=attack", &[], empty()).await, Err(Kind::Forbidden));
        let text = bed.metrics.encode();
        assert!(text.contains("bitrix_proxy_waf_total{result=\"blocked\"} 4"), "{text}");
        let log = bed.log();
        assert_eq!(log.len(), 4);
        assert_eq!((log[0].action, log[0].rule), (Action::Blocked, Some(1)));
        assert_eq!(
            (log[0].hits[0].target.as_str(), log[0].hits[0].data.as_deref()),
            ("ARGS:b", Some("attack"))
        );
    }

    #[tokio::test]
    async fn detection_lets_on_and_writes_down_without_secrets() {
        let bed = bed("detect", "");
        let body = "user_password=attack";
        assert_eq!(bed.send("/a", &FORM, full(body)).await, Ok(body.into()));
        let log = bed.log();
        assert_eq!(log[0].action, Action::Detected);
        assert_eq!(log[0].hits[0].data, None);
        assert!(!serde_json::to_string(&log).expect("text").contains("attack"));
    }

    #[tokio::test]
    async fn what_lies_behind_the_bound_on_the_body_goes_on_unseen() {
        let bed = bed("block", "max_body = \"1KiB\"\n");
        let body = format!("a={}&b=attack", "x".repeat(2000));
        assert_eq!(bed.send("/a", &FORM, full(body.clone())).await, Ok(body.into()));
    }

    #[tokio::test]
    async fn one_source_with_very_many_values_hides_no_other() {
        let (few, many) = ("a;".repeat(5200), "a;".repeat(20_001));
        let query = |count: usize| format!("/a?{}q=attack", "a&".repeat(count));
        let form = |count: usize| format!("{}q=attack", "a&".repeat(count));
        let json = |count: usize| format!("{{\"a\":[{}1],\"q\":\"attack\"}}", "1,".repeat(count));
        let refused = Some(Action::Blocked);
        for (what, target, cookie, kind, body, expected) in [
            ("cookies", query(0), &few, FORM[0].1, String::new(), refused),
            ("more cookies", query(0), &many, FORM[0].1, String::new(), refused),
            ("cookies and a form", "/a".into(), &many, FORM[0].1, form(0), refused),
            (
                "what PHP takes of a query",
                query(9_999),
                &few,
                FORM[0].1,
                String::new(),
                refused,
            ),
            (
                "what PHP takes of a form",
                query(9_000).replace("attack", ""),
                &few,
                FORM[0].1,
                form(9_999),
                refused,
            ),
            ("cookies beyond", "/a".into(), &many, FORM[0].1, String::new(), None),
            ("a query beyond", query(20_001), &few, FORM[0].1, String::new(), None),
            ("a form beyond", "/a".into(), &few, FORM[0].1, form(20_001), None),
            ("JSON beyond", "/a".into(), &few, "application/json", json(20_001), None),
        ] {
            for (on_failure, failed) in [("open", Action::FailedOpen), ("closed", Action::FailedClosed)] {
                let bed = bed("block", &format!("on_failure = \"{on_failure}\"\n"));
                let fields = [("cookie", cookie.as_str()), ("content-type", kind)];
                let sent = bed.send(&target, &fields, full(body.clone())).await;
                let expected = expected.unwrap_or(failed);
                assert_eq!(sent.is_ok(), expected == Action::FailedOpen, "{what} {on_failure}");
                let log = bed.log();
                assert_eq!(log[0].action, expected, "{what} {on_failure}");
                let is_told = log[0].fault.as_ref().is_some_and(|fault| fault.contains("more than"));
                assert_eq!(
                    is_told,
                    expected == failed || what.contains("more") || what.contains("and a form"),
                    "{what}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_what_it_says_it_is_does_not_pass_unseen() {
        const JSON: &str = "application/json";
        const XML: &str = "text/xml";
        let nested = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
        let wide: Vec<u8> = "<a>attack</a>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (what, kind, body) in [
            (
                "a number beyond all",
                JSON,
                r#"{"a":1e999,"q":"attack"}"#.to_string().into_bytes(),
            ),
            (
                "lists in lists",
                JSON,
                format!(r#"{{"a":{},"q":"attack"}}"#, nested(200)).into(),
            ),
            (
                "more of them than PHP reads",
                JSON,
                format!(r#"{{"a":{},"q":"attack"}}"#, nested(600)).into(),
            ),
            (
                "a long key",
                JSON,
                format!(r#"{{"{}":1,"q":"attack"}}"#, "a".repeat(5000)).into(),
            ),
            (
                "an attack as a long key",
                JSON,
                format!(r#"{{"{}attack":1}}"#, "a".repeat(5000)).into(),
            ),
            ("a word that PHP knows", JSON, r#"{"a":TRUE,"q":"attack"}"#.into()),
            ("UTF-16", XML, wide),
            (
                "UTF-7",
                XML,
                "<?xml version='1.0' encoding='UTF-7'?><a>+ADw-attack</a>".into(),
            ),
            (
                "deep elements",
                XML,
                format!("{}attack{}", "<a>".repeat(300), "</a>".repeat(300)).into(),
            ),
            (
                "text behind a boundary",
                "multipart/form-data; boundary=a",
                "--a x\r\n\r\n\r\n--a--".into(),
            ),
        ] {
            let bed_of = |mode: &str| bed(mode, "");
            let sent = bed_of("block")
                .send("/a", &[("content-type", kind)], full(body.clone()))
                .await;
            assert_eq!(sent, Err(Kind::Forbidden), "{what}");
            let bed = bed_of("detect");
            assert!(bed.send("/a", &[("content-type", kind)], full(body)).await.is_ok());
            assert_eq!(bed.log()[0].action, Action::Detected, "{what}");
        }
        for (what, kind, body) in [
            ("numbers", JSON, r#"{"a":1e999,"b":-0.5E+3}"#.to_string()),
            ("lists in lists", JSON, nested(500)),
            ("a long key", JSON, format!(r#"{{"{}":1}}"#, "a".repeat(5000))),
            ("nothing", JSON, " ".to_string()),
            (
                "more than is looked at",
                JSON,
                format!(r#"{{"a":"{}"}}"#, "a".repeat(9000)),
            ),
            ("more than is looked at", XML, format!("<a>{}</a>", "a".repeat(9000))),
            (
                "old letters",
                XML,
                "<?xml version='1.0' encoding='Windows-1251'?><a>b</a>".to_string(),
            ),
        ] {
            let bed = bed("block", "max_body = \"8KiB\"\n");
            let sent = bed.send("/a", &[("content-type", kind)], full(body.clone())).await;
            assert_eq!(sent, Ok(body.into()), "{what}");
        }
    }

    #[tokio::test]
    async fn what_a_message_may_say_no_other_argument_may() {
        let rules = "SecRule ARGS \"@contains attack\" \"id:1,phase:2,deny,tag:'attack-xss',tag:'OWASP_CRS'\"\n";
        let bed = Bed::new(rules, "mode = \"block\"\nportal = true\n");
        for (name, is_message) in [
            ("text", true),
            ("data[text]", true),
            ("user_password", true),
            ("filter[NAME]", false),
            ("filter[NAME]text", false),
            ("filter[NAME].text", false),
            ("filter[NAME][text", false),
            ("filter[NAME]_password", false),
            ("sql%00text", false),
        ] {
            let sent = bed.send(&format!("/a?{name}=attack"), &[], empty()).await;
            assert_eq!(sent.is_ok(), is_message, "{name}");
            let sent = bed.send("/a", &FORM, full(format!("{name}=attack"))).await;
            assert_eq!(sent.is_ok(), is_message, "{name} in a form");
        }
    }

    #[tokio::test]
    async fn files_that_are_sent_as_they_are_may_be_broken() {
        const UPLOAD: &str = "/bitrix/services/main/ajax.php?action=ui.fileuploader.upload&token=1";
        let bed = bed("block", "portal = true\n");
        for (method, target, is_file) in [
            ("PUT", "/docs/a.json", true),
            ("PUT", "/docs/../rest/a", false),
            ("PUT", "/x.php/a.json", false),
            ("POST", "/docs/a.json", false),
            ("POST", UPLOAD, true),
            ("POST", &format!("{UPLOAD}&action=other"), false),
            ("POST", &format!("{UPLOAD}&+action=other"), false),
            ("POST", "/x.php?action=ui.fileuploader.upload", false),
            ("POST", "/bitrix/admin/1c_exchange.php?mode=file", true),
        ] {
            let fields = [("content-type", "application/json")];
            let sent = bed.send_by(method, target, &fields, full("{\"a\":")).await;
            assert_eq!(sent.is_ok(), is_file, "{method} {target}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_judged_goes_on_or_not_as_configured() {
        let target = format!("/a?{}", "a=12345678&".repeat(5000));
        for (mode, on_failure, expected) in [
            ("block", "open", Ok(Bytes::new())),
            ("block", "closed", Err(Kind::Forbidden)),
            ("detect", "closed", Ok(Bytes::new())),
        ] {
            let mut bed = bed(mode, &format!("on_failure = \"{on_failure}\"\n"));
            bed.firewall.max_work = 100;
            assert_eq!(bed.send(&target, &[], empty()).await, expected, "{mode} {on_failure}");
            assert!(bed.metrics.encode().contains("result=\"failed\"} 1"));
        }
        let caught: Option<()> = caught(|| panic!("on purpose"));
        assert_eq!(caught, None);
    }
}
