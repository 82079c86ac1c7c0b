//! One request from head to answer, in the fixed order of phases: refusal → limits → route → target → headers → log.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, RwLock};

use futures_util::FutureExt;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use tracing::{debug, error, warn};

use super::answer::{self, Reader};
use super::connection::Connection;
use super::error::{Error, Kind, Side};
use super::exchange::{Body, Exchange, Target};
use super::fastcgi::Script;
use super::intake::{self, Ids};
use super::limit::Limit;
use super::metrics::Metrics;
use super::path::Path;
use super::record::Record;
use super::request_body::{self, Fault};
use super::route::{self, Plan, Seen, Step};
use super::setup::Setup;
use super::static_file::Found;
use super::{deny, headers};
use crate::base::{BoxFuture, Scope, error::chain};
use crate::metrics::Counter;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all connections share.
pub struct Front {
    setup: RwLock<Arc<Setup>>,
    pub metrics: Arc<Metrics>,
    pub limit: Arc<Limit>,
    pub scope: Scope,
    ids: Ids,
}

/// The service of one connection.
#[derive(Clone)]
pub struct Requests {
    pub front: Arc<Front>,
    pub connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Numbered here and not in the future: numbers follow the order of the heads.
        let number = self.connection.take();
        let (front, connection) = (self.front.clone(), self.connection.clone());
        Box::pin(async move { Ok(front.answer(connection, number, request).await) })
    }
}

impl Front {
    pub fn new(setup: Setup, metrics: Arc<Metrics>, limit: Arc<Limit>, scope: Scope) -> anyhow::Result<Self> {
        Ok(Front {
            setup: RwLock::new(Arc::new(setup)),
            metrics,
            limit,
            scope,
            ids: Ids::new()?,
        })
    }

    pub fn setup(&self) -> Arc<Setup> {
        self.setup.read().expect("nothing panics under this lock").clone()
    }

    /// Requests from now on see the new setup.
    pub fn replace(&self, setup: Setup) {
        *self.setup.write().expect("nothing panics under this lock") = Arc::new(setup);
    }

    async fn answer(&self, connection: Arc<Connection>, number: u64, request: Request<Incoming>) -> Response<Body> {
        let setup = self.setup();
        let (parts, incoming) = request.into_parts();
        let (id, method, version) = (self.ids.next(), parts.method.clone(), parts.version);
        let reader = Reader::of(&method, &parts.headers);
        let has_body = !incoming.is_end_stream();
        let (metrics, log) = (self.metrics.clone(), setup.log.clone());
        let mut record = Record::begin(&parts, &id, connection.clone(), metrics, log);
        let request = Taken {
            request: Request::from_parts(parts, incoming),
            id: id.clone(),
            number,
            connection: &connection,
        };
        let served = isolated(self.serve(&setup, request, &mut record), &self.metrics.panics).await;
        let result = served.unwrap_or_else(|| Err(Error::new(Kind::Internal, "a panic while the request was served")));
        let mut answer = result.unwrap_or_else(|error| {
            report(&error, &id);
            record.failed(&error);
            let mut page = answer::page(&error, reader, &id);
            if has_body && version < Version::HTTP_2 {
                page.headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            page
        });
        sign(&mut answer, &id);
        let is_upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if version < Version::HTTP_2 && !is_upgraded && self.scope.is_draining() {
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        connection.settle(number, is_upgraded);
        record.follow(answer, &method)
    }

    async fn serve(&self, setup: &Setup, taken: Taken<'_>, record: &mut Record) -> Result<Response<Body>, Error> {
        let Taken {
            request,
            id,
            number,
            connection,
        } = taken;
        if let Some(refused) = connection.refused(number) {
            self.metrics.refused(refused.refusal.kind);
            record.asked(refused.line);
            return Err(Error::new(refused.refusal.kind, refused.refusal.why));
        }
        if request.method() == Method::OPTIONS && request.uri().path() == "*" {
            return Ok(answer::options());
        }
        let fault = Fault::default();
        let (mut exchange, body) =
            admit(setup, request, id, connection, &fault).inspect_err(|error| self.metrics.refused(error.kind))?;
        let mut visit = Visit {
            setup,
            exchange: &mut exchange,
            record,
        };
        let answer = visit.route(body).await.map_err(|error| blame(error, &fault))?;
        Ok(finish(answer, &exchange))
    }
}

/// Runs a future to its end or its panic, which is counted: then `None`.
pub async fn isolated<F: Future>(task: F, panics: &Counter) -> Option<F::Output> {
    let result = AssertUnwindSafe(task).catch_unwind().await;
    result.inspect_err(|_| _ = panics.inc()).ok()
}

/// The limits that a request meets before it is routed. On HTTP/1 the guard has seen to most of them.
fn admit(
    setup: &Setup,
    request: Request<Incoming>,
    id: String,
    connection: &Arc<Connection>,
    fault: &Fault,
) -> Result<(Exchange, Body), Error> {
    let (parts, incoming) = request.into_parts();
    if parts.headers.len() > setup.limits.fields {
        return Err(Error::new(Kind::HeaderTooLarge, "more header fields than the limit"));
    }
    let silence = (parts.version >= Version::HTTP_2).then_some(setup.patience.body);
    let exchange = intake::exchange(parts, id, connection, &setup.domain)?;
    let body = request_body::limited(incoming, setup.max_body, silence, fault)?;
    Ok((exchange, body))
}

/// A request and where it came from.
struct Taken<'a> {
    request: Request<Incoming>,
    id: String,
    number: u64,
    connection: &'a Arc<Connection>,
}

/// A request on its way to its target.
struct Visit<'a> {
    setup: &'a Setup,
    exchange: &'a mut Exchange,
    record: &'a mut Record,
}

impl Visit<'_> {
    async fn route(&mut self, body: Body) -> Result<Response<Body>, Error> {
        match route::plan(&self.setup.prefixes, &self.exchange.path) {
            Plan::Deny(kind) => Err(denied(kind)),
            Plan::Upstream(place) => {
                let upstream = self.setup.upstreams.get(place);
                let upstream = upstream.ok_or_else(|| Error::new(Kind::Internal, "a route without an upstream"))?;
                self.aim(Target::Upstream);
                upstream.call(self.exchange, body).await
            }
            Plan::Script { script, path_info } => match self.setup.files.look(&script).await? {
                Found::File(_) => self.php(&script, path_info, body).await,
                _ => self.fallback(body).await,
            },
            Plan::File => self.file(body).await,
        }
    }

    async fn file(&mut self, body: Body) -> Result<Response<Body>, Error> {
        let found = self.setup.files.look(&self.exchange.path).await?;
        match (route::settle(&self.exchange.path, seen(&found)), found) {
            (Step::Serve, Found::File(entry)) => {
                self.aim(Target::Static);
                self.setup.files.serve(self.exchange, entry).await
            }
            (Step::AddSlash, _) => {
                let query = self.exchange.request.uri.query();
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                answer::moved(&format!("{}/{query}", self.exchange.path.escaped()))
            }
            (Step::Index, _) => self.index(body).await,
            _ => self.fallback(body).await,
        }
    }

    /// The index page of a folder. The rules of the page's own path hold for it.
    async fn index(&mut self, body: Body) -> Result<Response<Body>, Error> {
        for name in [route::SCRIPT_INDEX, route::STATIC_INDEX] {
            let page = self.exchange.path.child(name);
            let Found::File(entry) = self.setup.files.look(&page).await? else {
                continue;
            };
            return match route::plan(&self.setup.prefixes, &page) {
                Plan::Script { script, path_info } => self.php(&script, path_info, body).await,
                Plan::Deny(kind) => Err(denied(kind)),
                Plan::File | Plan::Upstream(_) => {
                    self.aim(Target::Static);
                    self.setup.files.serve(self.exchange, entry).await
                }
            };
        }
        self.fallback(body).await
    }

    async fn fallback(&mut self, body: Body) -> Result<Response<Body>, Error> {
        let setup = self.setup;
        match setup.files.look(&setup.fallback).await? {
            Found::File(_) => self.php(&setup.fallback, String::new(), body).await,
            _ => Err(Error::new(Kind::NotFound, "no such file, and no portal.fallback")),
        }
    }

    async fn php(&mut self, script: &Path, path_info: String, body: Body) -> Result<Response<Body>, Error> {
        self.aim(Target::Php);
        let script = Script {
            name: script.as_str().to_string(),
            path_info,
        };
        self.setup.php.call(self.exchange, &script, body).await
    }

    fn aim(&mut self, target: Target) {
        self.exchange.target = target;
        self.record.target(target);
    }
}

fn seen(found: &Found) -> Seen {
    match found {
        Found::File(_) => Seen::File,
        Found::Folder => Seen::Folder,
        Found::Missing => Seen::Missing,
    }
}

fn denied(kind: Kind) -> Error {
    Error::new(kind, "a path on the deny list")
}

/// A target that could not read the request's body reports itself; the body knows better.
fn blame(mut error: Error, fault: &Fault) -> Error {
    if let Some(kind) = fault.get() {
        error.kind = *kind;
    }
    error
}

/// Fields that depend on the path, and those that end at this hop. An upgrade keeps its `Connection` and `Upgrade`.
fn finish(mut answer: Response<Body>, exchange: &Exchange) -> Response<Body> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::strip_hop_by_hop(answer.headers_mut());
    }
    if exchange.target == Target::Static {
        deny::disarm(&exchange.path, answer.headers_mut());
    }
    answer
}

fn sign(answer: &mut Response<Body>, id: &str) {
    let headers = answer.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("bitrix-node"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let id = HeaderValue::from_str(id).expect("hexadecimal digits");
    headers.insert(REQUEST_ID, id);
}

fn report(error: &Error, id: &str) {
    let cause = chain(error);
    match error.side() {
        Side::Us => error!(id, cause, "a request failed"),
        Side::Upstream => warn!(id, cause, "a target failed"),
        Side::Client => debug!(id, cause, "a request was refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_counted_and_goes_no_further() {
        let panics = Counter::default();
        assert_eq!(isolated(async { 7 }, &panics).await, Some(7));
        assert_eq!(isolated(async { panic!("on purpose") }, &panics).await, None::<()>);
        assert_eq!(panics.get(), 1);
    }

    #[test]
    fn a_broken_body_is_the_clients_fault_and_not_the_targets() {
        let fault = Fault::default();
        let target = || Error::new(Kind::Upstream, "the body ended early");
        assert_eq!(blame(target(), &fault).kind, Kind::Upstream);
        fault.set(Kind::TooLarge).expect("unset");
        assert_eq!(blame(target(), &fault).kind, Kind::TooLarge);
    }
}
