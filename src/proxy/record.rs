//! The record of one request: begun with its head, written to log and numbers when the last byte of its answer
//! has left or nobody wants it any more.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::access_log::{AccessLog, Asked, Line};
use super::connection::Connection;
use super::error::{Error, Kind};
use super::exchange::{Body, Target};
use super::id::Id;
use super::metrics::Metrics;
use super::{answer, intake};
use crate::base::clock;
use crate::config::Coding;

/// Dropped early, it says that the client left.
pub struct Record {
    line: Option<Line>,
    is_answered: bool,
    started: Instant,
    connection: Arc<Connection>,
    metrics: Arc<Metrics>,
    log: Option<AccessLog>,
}

impl Record {
    pub fn begin<B>(
        request: &Request<B>,
        id: Id,
        client: IpAddr,
        connection: Arc<Connection>,
        metrics: Arc<Metrics>,
        log: Option<AccessLog>,
    ) -> Self {
        let line = Line {
            peer: client,
            at: clock::wall_of_tick(),
            asked: Asked::Request(
                request.method().clone(),
                intake::origin_form(request.uri()),
                request.version(),
            ),
            status: answer::status(Kind::ClientGone).as_u16(),
            bytes: 0,
            referer: request.headers().get(header::REFERER).cloned(),
            agent: request.headers().get(header::USER_AGENT).cloned(),
            duration: std::time::Duration::ZERO,
            id: Some(id),
            target: Target::None,
            tls: connection.tls,
            coding: None,
            detail: String::new(),
        };
        Record {
            line: Some(line),
            is_answered: false,
            started: Instant::now(),
            connection,
            metrics,
            log,
        }
    }

    /// The guard put a stand-in before us: this is what came instead.
    pub fn asked(&mut self, first_line: String) {
        self.change(|line| line.asked = Asked::Raw(first_line));
    }

    pub fn target(&mut self, target: Target) {
        self.change(|line| line.target = target);
    }

    pub fn failed(&mut self, error: &Error) {
        let detail = crate::base::error::chain(error);
        self.change(|line| line.detail = detail);
    }

    /// The answer's head is known. The record goes on with its body.
    pub fn follow(mut self, answer: Response<Body>, method: &Method) -> Response<Body> {
        let status = answer.status();
        self.is_answered = true;
        self.metrics.answered(
            self.line.as_ref().map_or(Target::None, |line| line.target),
            status.as_u16(),
            self.started.elapsed(),
        );
        let coding = coding(answer.headers());
        self.change(|line| {
            line.status = status.as_u16();
            line.coding = coding;
        });
        let has_body = method != Method::HEAD && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        answer.map(|body| {
            let is_whole = !has_body || status.is_informational() || body.is_end_stream();
            Followed {
                body,
                record: self,
                is_whole,
                is_handed_out: false,
            }
            .boxed_unsync()
        })
    }

    fn change(&mut self, change: impl FnOnce(&mut Line)) {
        if let Some(line) = &mut self.line {
            change(line);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.finish(now);
        let Some(mut line) = self.line.take() else { return };
        line.duration = now.duration_since(self.started);
        if !self.is_answered {
            self.metrics.answered(line.target, line.status, line.duration);
        }
        if let Some(log) = &self.log {
            log.write(&line);
        }
    }
}

/// What the log calls the coding of an answer; the name of one that a target made up is not repeated.
fn coding(headers: &HeaderMap) -> Option<&'static str> {
    let field = headers.get(header::CONTENT_ENCODING)?;
    let codings = [Coding::Zstd, Coding::Brotli, Coding::Gzip].map(Coding::name);
    Some(codings.into_iter().find(|name| field == *name).unwrap_or("other"))
}

/// An answer's body that counts what passes.
struct Followed {
    body: Body,
    record: Record,
    is_whole: bool,
    is_handed_out: bool,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        me.take_back();
        let frame = ready!(Pin::new(&mut me.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, Bytes::len) as u64;
                me.record.change(|line| line.bytes += size);
                me.is_whole = me.body.is_end_stream();
                me.is_handed_out = true;
                me.record.connection.hand_out();
            }
            Some(Err(error)) => {
                me.is_whole = true;
                me.record.failed(error);
            }
            None => me.is_whole = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Followed {
    fn take_back(&mut self) {
        if std::mem::take(&mut self.is_handed_out) {
            self.record.connection.take_back();
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.take_back();
        if !self.is_whole {
            self.record
                .change(|line| line.detail = "the client left before the end of the answer".into());
        }
    }
}
