//! One request from head to answer, in the fixed order of phases: refusal → limits → firewall → route → target → headers → compress → log.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock, RwLock, Weak};

use futures_util::FutureExt;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use tracing::{debug, error, warn};

use super::alternative::Alternatives;
use super::answer::{self, Reader};
use super::balance::Balancer;
use super::balance::hop::{self, Hop};
use super::cert::Answers;
use super::compress::Compressor;
use super::connection::Connection;
use super::error::{Error, Kind, Side};
use super::exchange::{Body, Exchange, Target};
use super::firewall::Inspected;
use super::flood::Flood;
use super::framing::Refusal;
use super::id::{Id, Ids};
use super::intake;
use super::leaving::Leaving;
use super::limit::Limit;
use super::metrics::Metrics;
use super::origin::Origin;
use super::record::Record;
use super::request_body::{self, Fault, Inflow};
use super::setup::Setup;
use super::visit::Visit;
use super::{accel, deny, frame, headers, secure};
use crate::base::{BoxFuture, Scope, error::chain};
use crate::metrics::Counter;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all connections share.
pub struct Front {
    setup: RwLock<Arc<Setup>>,
    pub metrics: Arc<Metrics>,
    pub limit: Arc<Limit>,
    pub scope: Scope,
    pub balancer: Arc<Balancer>,
    pub leaving: Arc<Leaving>,
    /// To a directory of certificates.
    pub answers: Answers,
    pub alternatives: Alternatives,
    ids: Ids,
    compressor: Compressor,
    flood: Flood,
    /// Itself, for work that goes on when its request is over.
    me: OnceLock<Weak<Front>>,
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
        // The box first: made before it, the future would be moved there, which is several KiB.
        let place = Box::new_uninit();
        let answer = async move { Ok(front.answer(connection, number, request.map(Inflow::Hyper)).await) };
        let answer = Box::write(place, answer);
        Box::into_pin(answer)
    }
}

impl Front {
    pub fn new(
        setup: Setup,
        metrics: Arc<Metrics>,
        limit: Arc<Limit>,
        balancer: Arc<Balancer>,
        leaving: Arc<Leaving>,
        scope: Scope,
    ) -> anyhow::Result<Arc<Self>> {
        let flood = Flood::new(metrics.clone());
        let front = Arc::new(Front {
            setup: RwLock::new(Arc::new(setup)),
            metrics,
            limit,
            scope,
            balancer,
            leaving,
            answers: Answers::default(),
            alternatives: Alternatives::default(),
            ids: Ids::new()?,
            compressor: Compressor::default(),
            flood,
            me: OnceLock::new(),
        });
        front.me.get_or_init(|| Arc::downgrade(&front));
        Ok(front)
    }

    pub fn setup(&self) -> Arc<Setup> {
        self.setup.read().expect("nothing panics under this lock").clone()
    }

    /// Requests from now on see the new setup.
    pub fn replace(&self, setup: Setup) {
        *self.setup.write().expect("nothing panics under this lock") = Arc::new(setup);
    }

    /// Answers a client's request.
    pub async fn answer(&self, connection: Arc<Connection>, number: u64, request: Request<Inflow>) -> Response<Body> {
        let taken = Taken {
            request,
            id: self.ids.next(),
            number,
            connection,
            hop: None,
        };
        self.take(taken).await
    }

    /// Answers a request that another front sent. Where PHP fails, the answer says so instead of showing a page: the other front
    /// has another node to ask, or shows its own.
    pub async fn answer_hop(&self, hop: Hop, mut request: Request<Incoming>) -> Response<Body> {
        *request.version_mut() = hop.version;
        let connection = Arc::new(Connection::new(hop.client, hop.reached, hop.tls));
        let origin = Origin {
            client: hop.client,
            is_secure: hop.is_secure,
        };
        let taken = Taken {
            request: request.map(Inflow::Hyper),
            id: hop.id,
            number: connection.take(),
            connection,
            hop: Some(origin),
        };
        self.take(taken).await
    }

    async fn take(&self, taken: Taken) -> Response<Body> {
        let setup = self.setup();
        let (id, number, is_hop, connection) = (taken.id, taken.number, taken.hop.is_some(), taken.connection.clone());
        let request = &taken.request;
        let origin = taken.hop.unwrap_or_else(|| {
            let (peer, tls) = (connection.peer, connection.tls);
            setup.trust.origin(peer, tls.is_some(), request.headers())
        });
        let (method, version) = (request.method().clone(), request.version());
        let reader = Reader::of(&method, request.headers());
        let has_body = !request.body().is_end_stream();
        let (metrics, log) = (self.metrics.clone(), setup.log.clone());
        let client = origin.client.ip();
        if !is_hop {
            self.metrics.received(version);
        }
        let mut record = Record::begin(request, id, client, connection.clone(), metrics, log);
        let served = isolated(self.serve(&setup, taken, origin, &mut record), &self.metrics.panics).await;
        let result = served.unwrap_or_else(|| Err(Error::new(Kind::Internal, "a panic while the request was served")));
        let mut answer = result.unwrap_or_else(|error| {
            report(&error, &id);
            record.failed(&error);
            if is_hop && error.side() == Side::Upstream {
                return answer::fault(&error);
            }
            let mut page = answer::page(&error, reader, &id);
            if has_body && version < Version::HTTP_2 && !is_hop {
                page.headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            page
        });
        sign(&mut answer, id);
        if !is_hop && let Some(alternative) = self.alternatives.of(&connection, &setup) {
            answer.headers_mut().insert(header::ALT_SVC, alternative);
        }
        let is_upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let is_last = self.scope.is_draining() || self.leaving.has(connection.local.ip());
        if version < Version::HTTP_2 && !is_upgraded && !is_hop && is_last {
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        connection.settle(number, is_upgraded);
        record.follow(answer, &method)
    }

    async fn serve(
        &self,
        setup: &Setup,
        taken: Taken,
        origin: Origin,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        if let Some(refused) = taken.connection.refused(taken.number) {
            self.metrics.refused(refused.refusal.kind);
            record.asked(refused.line);
            return Err(Error::new(refused.refusal.kind, refused.refusal.why));
        }
        let request = &taken.request;
        if let Some(refusal) = request.extensions().get::<Refusal>() {
            self.metrics.refused(refusal.kind);
            return Err(Error::new(refusal.kind, refusal.why));
        }
        if request.method() == Method::OPTIONS && request.uri().path() == "*" {
            return Ok(answer::options());
        }
        if let Some(authorization) = self.answers.get(request.uri().path()) {
            return Ok(answer::challenge(authorization));
        }
        let fault = Fault::default();
        let admitted = admit(setup, taken, origin, &fault);
        let (mut exchange, body) = admitted.inspect_err(|error| self.metrics.refused(error.kind))?;
        if !exchange.is_hop {
            // The front that the client reached has counted it.
            self.flood.enter(&setup.quotas, &exchange)?;
        }
        let Inspected { body, watch } = match &setup.firewall {
            // Another front has judged what it sends on.
            Some(firewall) if !exchange.is_hop => {
                // In a box: where there is no firewall, no request shall have room for it.
                let inspected = Box::pin(firewall.inspect(&exchange, body, &self.metrics)).await;
                inspected.map_err(|error| blame(error, &fault))?
            }
            _ => Inspected { body, watch: None },
        };
        let site = setup.sites.of(&exchange.host);
        let is_push = setup.is_push_only(exchange.local.port());
        if !exchange.is_secure && !is_push {
            let is_secured = match site.secure.known() {
                Some(is_secured) => is_secured,
                None => Box::pin(site.secure.look(&site.files)).await,
            };
            if is_secured {
                return answer::secured(&secure::location(&exchange, setup.https_port), &exchange.request.method);
            }
        }
        let mut visit = Visit {
            setup,
            site,
            balancer: &self.balancer,
            flood: &self.flood,
            exchange: &mut exchange,
            record: Some(record),
            metrics: &self.metrics,
            watch,
        };
        let answered = match &setup.edge {
            Some(edge) if !is_push => edge.serve(&mut visit, body, &|exchange| self.refresh(exchange)).await,
            _ => visit.route(body).await,
        };
        let answer = answered.map_err(|error| blame(error, &fault))?;
        let mut answer = finish(answer, &exchange);
        if exchange.target == Target::Static {
            setup.cdn.share(&site.cdn_host, &exchange.path, answer.headers_mut());
        }
        if setup.prefixes.find(exchange.path.as_str()).is_none() {
            answer = setup.cdn.lead(&site.cdn_host, &exchange, answer);
        }
        Ok(self
            .compressor
            .apply(&setup.compression, &exchange, answer, &self.metrics))
    }
}

impl Front {
    /// Fetches what the cache keeps of an address again, while its clients have the old one.
    fn refresh(&self, mut exchange: Exchange) {
        let Some(front) = self.me.get().and_then(Weak::upgrade) else {
            return;
        };
        self.scope.spawn(async move {
            let setup = front.setup();
            let Some(edge) = &setup.edge else { return };
            let watch = match &setup.firewall {
                Some(firewall) => firewall.watch(&exchange, &front.metrics).await,
                None => Ok(None),
            };
            let Ok(watch) = watch else { return };
            let mut visit = Visit {
                setup: &setup,
                site: setup.sites.of(&exchange.host),
                balancer: &front.balancer,
                flood: &front.flood,
                exchange: &mut exchange,
                record: None,
                metrics: &front.metrics,
                watch,
            };
            let _ = isolated(edge.refresh(&mut visit), &front.metrics.panics).await;
        });
    }
}

/// Runs a future to its end or its panic, which is counted: then `None`. Not an `async fn`: that would keep room for the task twice.
pub fn isolated<F: Future>(task: F, panics: &Counter) -> impl Future<Output = Option<F::Output>> {
    let running = AssertUnwindSafe(task).catch_unwind();
    running.map(|result| result.inspect_err(|_| _ = panics.inc()).ok())
}

/// The limits that a request meets before it is routed. On HTTP/1 the guard has seen to most of them, and where another front
/// sent it, that one to all but the size of the body, which it may be told otherwise.
fn admit(setup: &Setup, taken: Taken, origin: Origin, fault: &Fault) -> Result<(Exchange, Body), Error> {
    let Taken {
        request,
        id,
        connection,
        hop,
        ..
    } = taken;
    let is_hop = hop.is_some();
    let (parts, incoming) = request.into_parts();
    if parts.headers.len() > setup.limits.fields && !is_hop {
        return Err(Error::new(Kind::HeaderTooLarge, "more header fields than the limit"));
    }
    let silence = (parts.version >= Version::HTTP_2 && !is_hop).then_some(setup.patience.body);
    let is_ours = |host: &str, is_address| setup.sites.find(host, is_address).is_some();
    let mut exchange = intake::exchange(parts, id, &connection, origin, is_ours)?;
    exchange.is_hop = is_hop;
    let max_body = setup.sites.of(&exchange.host).max_body;
    let body = request_body::limited(incoming, max_body, silence, fault)?;
    Ok((exchange, body))
}

/// A request and where it came from.
struct Taken {
    request: Request<Inflow>,
    id: Id,
    number: u64,
    connection: Arc<Connection>,
    /// Another front sent it, and says where it comes from.
    hop: Option<Origin>,
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
    accel::strip(answer.headers_mut());
    if exchange.target != Target::Upstream {
        frame::guard(&exchange.path, answer.headers_mut());
    }
    if exchange.is_hop {
        // Only the front says something there.
        hop::strip(answer.headers_mut());
        if exchange.is_file(&answer) {
            hop::write_file(answer.headers_mut());
        }
    }
    if exchange.target == Target::Static {
        deny::disarm(&exchange.path, answer.headers_mut());
    }
    answer
}

fn sign(answer: &mut Response<Body>, id: Id) {
    let headers = answer.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("bitrix-node"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REQUEST_ID, id.value());
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
