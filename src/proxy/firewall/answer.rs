//! One answer and the rules: judged, written down, held back or let out.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http::header::HeaderMap;
use http_body_util::{BodyExt, Empty};

use super::audit::{Action, Answered, Entry};
use super::extent::{Extent, extent, kind};
use super::held::{self, Held};
use super::phase::{Firewall, caught, protocol, run};
use crate::config::{Waf, WafMode};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::metrics::Metrics;
use crate::proxy::waf::{Answer, Report, Transaction};

/// What the configuration says of answers.
pub struct Answers {
    pub mode: WafMode,
    types: Vec<String>,
    max_answer: usize,
}

/// A request that was let on, with all that the rules know of it: its answer is judged by that.
pub struct Watch(pub(super) Box<Transaction>);

impl Answers {
    pub fn new(waf: &Waf) -> Self {
        Answers {
            mode: waf.answers(),
            types: waf.answer_types.clone(),
            max_answer: waf.max_answer.bytes(),
        }
    }
}

impl Firewall {
    /// For a request of ours, without a body: whoever asks, what is kept was judged.
    pub async fn watch(&self, exchange: &Exchange, metrics: &Metrics) -> Result<Option<Watch>, Error> {
        if self.answers.mode == WafMode::Off {
            return Ok(None);
        }
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let inspected = self.inspect(exchange, body, metrics).await?;
        Ok(inspected.watch)
    }

    /// The answer, for the client; or why it is held back. `watch` is used up by an answer that is judged.
    pub async fn judge(
        &self,
        exchange: &Exchange,
        watch: &mut Option<Watch>,
        answer: Response<Body>,
        metrics: &Metrics,
    ) -> Result<Response<Body>, Error> {
        let (parts, body) = answer.into_parts();
        let extent = extent(
            &self.answers.types,
            &exchange.request.method,
            parts.status,
            &parts.headers,
        );
        let Some(Watch(mut transaction)) = watch.take_if(|_| extent != Extent::Nothing) else {
            return Ok(Response::from_parts(parts, body));
        };
        let head = Answer {
            status: parts.status.as_u16(),
            protocol: protocol(exchange.request.version),
            headers: fields(&parts.headers),
        };
        let mut seen = Answered {
            status: head.status,
            kind: kind(&parts.headers),
            size: 0,
            is_whole: true,
        };
        let started = Instant::now();
        let begun = caught(move || {
            let refused = transaction.answer(&head);
            (transaction, refused)
        });
        let mut spent = started.elapsed();
        let (verdict, body) = match begun {
            None => (None, body),
            Some((transaction, Some(_))) if self.answers.mode == WafMode::Block => {
                (caught(move || transaction.answered()), body)
            }
            Some((mut transaction, _)) => {
                let held = match extent {
                    Extent::Body => held::hold(body, self.answers.max_answer).await?,
                    _ => Held::none(body),
                };
                (seen.size, seen.is_whole) = (held.size, !held.is_cut);
                let started = Instant::now();
                let judged = run(held.size, move || {
                    transaction.answer_body(&held.text);
                    transaction.answered()
                });
                let verdict = judged.await;
                spent += started.elapsed();
                (verdict, held.body)
            }
        };
        self.settle_answer(exchange, seen, verdict, spent, metrics)?;
        Ok(Response::from_parts(parts, body))
    }

    fn settle_answer(
        &self,
        exchange: &Exchange,
        seen: Answered,
        verdict: Option<Report>,
        spent: Duration,
        metrics: &Metrics,
    ) -> Result<(), Error> {
        let action = self.action(verdict.as_ref(), self.answers.mode == WafMode::Block);
        metrics.inspected_answer(action, spent);
        let report = verdict.unwrap_or_default();
        if action != Action::Passed {
            self.write(|| Entry::of_answer(exchange, &report, action, seen));
        }
        let rule = report.refused.map_or(0, |refused| refused.rule);
        match action {
            Action::Blocked => {
                let why = format!("its answer is held back by rule {rule} of the firewall");
                Err(Error::new(Kind::Forbidden, why))
            }
            Action::FailedClosed => Err(Error::new(Kind::Forbidden, "the firewall could not judge its answer")),
            Action::Passed | Action::Detected | Action::FailedOpen => Ok(()),
        }
    }
}

pub(super) fn fields(headers: &HeaderMap) -> Vec<(Bytes, Bytes)> {
    let bytes = |text: &[u8]| Bytes::copy_from_slice(text);
    let fields = headers.iter();
    fields
        .map(|(name, value)| (bytes(name.as_str().as_bytes()), bytes(value.as_bytes())))
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::fixture::Bed;
    use super::*;
    use crate::proxy::fixture::{empty, exchange, full, read};

    const RULES: &str = "SecRule ARGS:level \"@eq 2\" \"id:1,phase:1,pass,nolog,setvar:tx.level=2\"\n\
        SecRule RESPONSE_STATUS \"@eq 599\" \"id:2,phase:3,deny\"\n\
        SecRule RESPONSE_BODY \"@contains leaked\" \"id:3,phase:4,deny,msg:'a leak',setvar:tx.blocking_outbound_anomaly_score=4\"\n\
        SecRule TX:level \"@eq 2\" \"id:4,phase:4,deny,chain\"\n  SecRule RESPONSE_BODY \"@contains hidden\" \"\"\n";

    fn bed(settings: &str) -> Bed {
        Bed::new(RULES, &format!("max_answer = \"1KiB\"\n{settings}"))
    }

    impl Bed {
        /// What the client gets of that answer. `None`: 403.
        async fn answer(&self, target: &str, (status, kind): (u16, &'static str), text: &str) -> Option<String> {
            let exchange = exchange("GET", target, &[]);
            let inspected = self.firewall.inspect(&exchange, empty(), &self.metrics).await;
            let mut watch = inspected.expect("let on").watch;
            let mut answer = Response::new(full(text.to_string()));
            *answer.status_mut() = status.try_into().expect("a status");
            let kind = HeaderValue::from_static(kind);
            answer.headers_mut().insert("content-type", kind);
            let judged = self.firewall.judge(&exchange, &mut watch, answer, &self.metrics).await;
            match judged {
                Ok(answer) => Some(String::from_utf8(read(answer.into_body()).await.unwrap().to_vec()).unwrap()),
                Err(error) => {
                    assert_eq!(error.kind, Kind::Forbidden);
                    None
                }
            }
        }
    }

    #[tokio::test]
    async fn what_leaks_is_held_back_and_everything_else_goes_out_whole() {
        let bed = bed("mode = \"block\"\nanswers = \"block\"\n");
        let html = (200, "text/html; charset=UTF-8");
        assert_eq!(bed.answer("/", html, "<p>all is well").await.unwrap(), "<p>all is well");
        assert_eq!(bed.answer("/", html, "a leaked b").await, None);
        assert_eq!(bed.answer("/", (599, "image/png"), "never read").await, None);
        let late = format!("{}leaked", "x".repeat(1024));
        assert_eq!(bed.answer("/", html, &late).await.unwrap(), late, "behind max_answer");
        assert!(
            bed.answer("/", (200, "application/json"), "leaked").await.is_some(),
            "no listed type"
        );
        assert!(bed.answer("/", (304, "text/html"), "leaked").await.is_some());
        // What the request came to holds for its answer.
        assert!(bed.answer("/?level=1", html, "hidden").await.is_some());
        assert_eq!(bed.answer("/?level=2", html, "hidden").await, None);
        let text = bed.metrics.encode();
        assert!(
            text.contains("bitrix_proxy_waf_answers_total{result=\"blocked\"} 3"),
            "{text}"
        );
        assert!(text.contains("bitrix_proxy_waf_total{result=\"passed\"} 8"), "{text}");
        let log = bed.log();
        assert_eq!(log.len(), 3);
        assert_eq!(
            (log[0].action, log[0].rule, log[0].score),
            (Action::Blocked, Some(3), 4)
        );
        let seen = log[0].answer.clone().expect("an answer");
        let expected = Answered {
            status: 200,
            kind: "text/html".into(),
            size: 10,
            is_whole: true,
        };
        assert_eq!(seen, expected);
        assert!(log[0].hits[0].data.is_none(), "what leaked does not leak into the log");
    }

    #[tokio::test]
    async fn detection_lets_out_whatever_becomes_of_requests() {
        for mode in ["detect", "block"] {
            let bed = bed(&format!("mode = \"{mode}\"\nanswers = \"detect\"\n"));
            assert!(bed.answer("/", (200, "text/html"), "leaked").await.is_some());
            assert!(bed.answer("/", (599, "text/html"), "leaked").await.is_some());
            let log = bed.log();
            assert!(
                log.len() == 2 && log.iter().all(|entry| entry.action == Action::Detected),
                "{log:?}"
            );
            assert_eq!(log[1].hits.len(), 2, "the body is looked at whatever its head came to");
        }
        // No more than of requests.
        let bed = bed("mode = \"detect\"\nanswers = \"block\"\n");
        assert!(bed.answer("/", (200, "text/html"), "leaked").await.is_some());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_request_where_answers_go_out_unseen() {
        let bed = bed("mode = \"block\"\n");
        let exchange = exchange("GET", "/", &[]);
        let inspected = bed.firewall.inspect(&exchange, empty(), &bed.metrics);
        assert!(inspected.await.expect("let on").watch.is_none());
        let watch = bed.firewall.watch(&exchange, &bed.metrics).await;
        assert!(watch.expect("nothing is looked at").is_none());
    }
}
