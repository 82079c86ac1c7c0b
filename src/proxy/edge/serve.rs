//! The way of a request through the cache: answered from it, or by the target, whose answer may then be kept.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LOCATION, COOKIE, DATE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, PRAGMA, RANGE,
    UPGRADE,
};
use http::{Method, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use tokio::time::Instant;

use super::Edge;
use super::entry::Entry;
use super::fill::{Fill, length};
use super::flights::{Flight, Turn};
use super::freshness::Life;
use super::judge::{Verdict, is_only_stored, judge};
use super::reply::{STATUS, reply};
use super::storable::{is_private, may_guess, may_store};
use super::store::Slot;
use crate::base::clock;
use crate::proxy::balance::hop;
use crate::proxy::error::{Error, Side};
use crate::proxy::exchange::{Body, Exchange, Target};
use crate::proxy::headers::strip_hop_by_hop;
use crate::proxy::visit::Visit;

/// Conditions and ranges: the client's own, which are met out of what is kept.
const CONDITIONS: [HeaderName; 6] = [
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
];

const HIT: &str = "bitrix-node; hit";
const STALE: &str = "bitrix-node; hit; detail=stale";
const SHARED: &str = "bitrix-node; hit; collapsed";
const VALIDATED: &str = "bitrix-node; fwd=stale; fwd-status=304";
const STOOD_IN: &str = "bitrix-node; hit; detail=error";
const MISS: &str = "bitrix-node; fwd=uri-miss";
const KEPT: &str = "bitrix-node; fwd=uri-miss; stored";
const ABSENT: &str = "bitrix-node; fwd=bypass; detail=only-if-cached";

/// An answer that is kept, and what it is good for when the target fails.
struct Known {
    entry: Arc<Entry>,
    if_error: bool,
    if_gone: bool,
}

impl Edge {
    /// Answers a request. `refresh` fetches an address again, beside this.
    pub async fn serve(
        &self,
        visit: &mut Visit<'_>,
        body: Body,
        refresh: &(dyn Fn(Exchange) + Sync),
    ) -> Result<Response<Body>, Error> {
        let key = key(visit.exchange);
        if !visit.exchange.request.method.is_safe() {
            let answer = visit.route(body).await?;
            self.invalidate(visit.exchange, &key, &answer);
            return Ok(answer);
        }
        if !is_ours(visit.exchange, &body) {
            return visit.route(body).await;
        }
        if let Some(answer) = self.kept(visit.exchange, &key, HIT, refresh)? {
            self.store.count(true);
            return Ok(answer);
        }
        if is_only_stored(&visit.exchange.request.headers) {
            return Ok(absent());
        }
        let turn = match may_share(&visit.exchange.request.headers) {
            true => self.flights.enter(&key).await,
            false => Turn::Free,
        };
        if let Turn::Waited = turn
            && let Some(answer) = self.kept(visit.exchange, &key, SHARED, refresh)?
        {
            self.store.count(true);
            return Ok(answer);
        }
        self.store.count(false);
        self.ask(visit, body, key, turn.flight()).await
    }

    /// Fetches an address again, unless somebody does already.
    pub async fn refresh(&self, visit: &mut Visit<'_>) {
        let key = key(visit.exchange);
        let Some(flight) = self.flights.try_enter(&key) else {
            return;
        };
        if let Ok(answer) = self.ask(visit, empty(), key, Some(flight)).await {
            // Read to its end, it is kept.
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    }

    /// What may be served without asking.
    fn kept(
        &self,
        exchange: &mut Exchange,
        key: &str,
        note: &'static str,
        refresh: &(dyn Fn(Exchange) + Sync),
    ) -> Result<Option<Response<Body>>, Error> {
        let request = &exchange.request.headers;
        let Some(entry) = self.store.get(key, request) else {
            return Ok(None);
        };
        let age = entry.age(Instant::now());
        let note = match judge(&entry.life, age, request) {
            Verdict::Serve => note,
            Verdict::ServeAndRefresh => {
                refresh(again(exchange));
                STALE
            }
            Verdict::Ask { .. } => return Ok(None),
        };
        self.out_of(exchange, &entry, age, note).map(Some)
    }

    /// Asks the target, by what is known of its last answer where that helps.
    async fn ask(
        &self,
        visit: &mut Visit<'_>,
        body: Body,
        key: String,
        flight: Option<Flight>,
    ) -> Result<Response<Body>, Error> {
        let slot = self.store.slot(key);
        let request = &visit.exchange.request.headers;
        let known = self.store.get(slot.key(), request).map(|entry| {
            let verdict = judge(&entry.life, entry.age(Instant::now()), request);
            let (if_error, if_gone) = match verdict {
                Verdict::Ask { if_error, if_gone } => (if_error, if_gone),
                Verdict::Serve | Verdict::ServeAndRefresh => (true, true),
            };
            Known {
                entry,
                if_error,
                if_gone,
            }
        });
        let conditional = known.as_ref().filter(|known| known.entry.has_validator());
        // With the client's own conditions, for afterwards.
        let client = conditional.map(|known| {
            let client = visit.exchange.request.headers.clone();
            put_conditions(&mut visit.exchange.request.headers, &known.entry);
            client
        });
        let is_conditional = client.is_some();
        let asked = clock::wall_of_tick();
        let answered = visit.route(body).await;
        if let Some(client) = client {
            visit.exchange.request.headers = client;
        }
        let Some(known) = known else {
            return Ok(self.keep(visit.exchange, answered?, asked, slot, flight));
        };
        match answered {
            Ok(answer) if is_conditional && answer.status() == StatusCode::NOT_MODIFIED => {
                match self.freshen(visit.exchange, &known.entry, answer, asked, &slot) {
                    Some(entry) => self.out_of(visit.exchange, &entry, entry.age(Instant::now()), VALIDATED),
                    // It speaks of another state: that one is wanted.
                    None => {
                        let asked = clock::wall_of_tick();
                        let answer = visit.route(empty()).await?;
                        Ok(self.keep(visit.exchange, answer, asked, slot, flight))
                    }
                }
            }
            Ok(answer) if answer.status().is_server_error() && known.if_error => {
                self.out_of(visit.exchange, &known.entry, known.entry.age(Instant::now()), STOOD_IN)
            }
            Err(error) if error.side() == Side::Upstream && (known.if_error || known.if_gone) => {
                self.out_of(visit.exchange, &known.entry, known.entry.age(Instant::now()), STOOD_IN)
            }
            answered => Ok(self.keep(visit.exchange, answered?, asked, slot, flight)),
        }
    }

    /// What a 304 makes of what is kept. `None`: it is not about that.
    fn freshen(
        &self,
        exchange: &Exchange,
        entry: &Entry,
        mut answer: Response<Body>,
        asked: std::time::SystemTime,
        slot: &Slot,
    ) -> Option<Entry> {
        let is_file = exchange.is_file(&answer);
        let said = answer.headers_mut();
        clean(said);
        let is_other = said.get(ETAG).is_some_and(|tag| {
            let opaque = |tag: &HeaderValue| tag.to_str().unwrap_or_default().trim_start_matches("W/").to_string();
            entry
                .headers
                .get(ETAG)
                .is_some_and(|known| opaque(known) != opaque(tag))
        });
        // A file has come to the address of what was made.
        if is_other || is_file {
            self.store.remove(slot.key());
            return None;
        }
        let request = &exchange.request.headers;
        let mut merged = entry.refreshed(said, entry.life.clone(), clock::wall());
        let is_guessed = exchange.target == Target::Upstream && may_guess(request, entry.status, &merged.headers);
        merged.life = Life::of(&merged.headers, asked, clock::wall(), is_guessed);
        match may_store(&Method::GET, request, entry.status, &merged.headers, &merged.life) {
            true => slot.put(merged.clone()),
            false => self.store.remove(slot.key()),
        }
        Some(merged)
    }

    fn out_of(
        &self,
        exchange: &mut Exchange,
        entry: &Entry,
        age: Duration,
        note: &'static str,
    ) -> Result<Response<Body>, Error> {
        exchange.target = entry.target;
        let request = &exchange.request;
        let answer = reply(&request.method, &request.headers, entry, age, clock::wall(), note)?;
        self.store
            .count_sent(answer.body().size_hint().exact().unwrap_or_default());
        Ok(answer)
    }

    /// Keeps a copy of what passes, if it may be kept.
    fn keep(
        &self,
        exchange: &Exchange,
        mut answer: Response<Body>,
        asked: std::time::SystemTime,
        slot: Slot,
        flight: Option<Flight>,
    ) -> Response<Body> {
        let (request, status, came) = (&exchange.request, answer.status(), clock::wall_of_tick());
        let is_made = exchange.target != Target::None && !exchange.is_file(&answer);
        let headers = answer.headers_mut();
        if !is_made || is_private(headers) {
            flight.iter().for_each(Flight::is_in_vain);
            return missed(answer);
        }
        let is_guessed = exchange.target == Target::Upstream && may_guess(&request.headers, status, headers);
        let life = Life::of(headers, asked, came, is_guessed);
        if !may_store(&request.method, &request.headers, status, headers, &life) {
            flight.iter().for_each(Flight::is_in_vain);
            return missed(answer);
        }
        if length(headers).is_some_and(|length| length > self.most) {
            self.flights.is_in_vain(slot.key());
            return missed(answer);
        }
        clean(headers);
        if !headers.contains_key(DATE)
            && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(came))
        {
            headers.insert(DATE, date);
        }
        let mut entry = Entry::new(&request.headers, status, headers, life, came);
        entry.target = exchange.target;
        if entry.has_long_choice() {
            // Of this request alone: others may be kept.
            return missed(answer);
        }
        headers.append(STATUS, HeaderValue::from_static(KEPT));
        answer.map(|body| Fill::new(self, body, entry, slot, flight).boxed_unsync())
    }

    /// What a change at an address makes of what is kept of it (RFC 9111 §4.4).
    fn invalidate(&self, exchange: &Exchange, key: &str, answer: &Response<Body>) {
        if !(answer.status().is_success() || answer.status().is_redirection()) {
            return;
        }
        self.store.invalidate(key);
        for name in [LOCATION, CONTENT_LOCATION] {
            let place = answer.headers().get(name).and_then(|place| place.to_str().ok());
            let Some(place) = place.and_then(|place| place.parse::<Uri>().ok()) else {
                continue;
            };
            let host = exchange.request.headers.get(HOST).map(HeaderValue::as_bytes);
            let is_here = place
                .authority()
                .is_none_or(|authority| Some(authority.as_str().as_bytes()) == host);
            if is_here && let Some(target) = place.path_and_query().filter(|target| target.as_str().starts_with('/')) {
                self.store.invalidate(&named(exchange, target.as_str()));
            }
        }
    }
}

/// The address of a request, as it is kept.
fn key(exchange: &Exchange) -> String {
    let target = exchange.request.uri.path_and_query();
    named(exchange, target.map_or("/", |target| target.as_str()))
}

fn named(exchange: &Exchange, target: &str) -> String {
    let scheme = if exchange.is_secure { "https" } else { "http" };
    let host = exchange.request.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or(&exchange.host);
    let mut name = String::with_capacity(scheme.len() + 3 + host.len() + target.len());
    name.push_str(scheme);
    name.push_str("://");
    name.push_str(host);
    name.make_ascii_lowercase();
    name.push_str(target);
    name
}

/// Requests that the cache has to do with: another front's are that one's business.
fn is_ours(exchange: &Exchange, body: &Body) -> bool {
    let request = &exchange.request;
    matches!(request.method, Method::GET | Method::HEAD)
        && !exchange.is_hop
        && !request.headers.contains_key(UPGRADE)
        && body.is_end_stream()
}

/// Whether one answer is likely to serve all who ask so.
fn may_share(request: &HeaderMap) -> bool {
    let own = [AUTHORIZATION, COOKIE, CACHE_CONTROL, PRAGMA];
    !own.iter().chain(&CONDITIONS).any(|name| request.contains_key(name))
}

/// Asks for a change of what is kept.
fn put_conditions(request: &mut HeaderMap, entry: &Entry) {
    for name in CONDITIONS {
        request.remove(name);
    }
    for (ours, theirs) in [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)] {
        if let Some(value) = entry.headers.get(theirs) {
            request.insert(ours, value.clone());
        }
    }
}

/// The request again, for everybody.
fn again(exchange: &Exchange) -> Exchange {
    let mut request = exchange.request.clone();
    request.method = Method::GET;
    request.extensions.clear();
    for name in CONDITIONS.iter().chain(&[COOKIE, AUTHORIZATION, CACHE_CONTROL, PRAGMA]) {
        request.headers.remove(name);
    }
    Exchange {
        request,
        path: exchange.path.clone(),
        host: exchange.host.clone(),
        target: Target::None,
        ..*exchange
    }
}

/// Fields between us and the target.
fn clean(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    hop::strip(headers);
}

/// An answer that is not kept.
fn missed(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().append(STATUS, HeaderValue::from_static(MISS));
    answer
}

/// To a client that wants what is kept or nothing.
fn absent() -> Response<Body> {
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    answer.headers_mut().insert(STATUS, HeaderValue::from_static(ABSENT));
    answer
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proxy::fixture::{exchange, full, headers};
    use crate::proxy::metrics::OfEdge;

    /// Largest body that is kept.
    const MOST: usize = 10;

    /// What `Cache-Status` says of an answer for all with such fields.
    fn keep(edge: &Edge, request: &[(&str, &str)], answer: &[(&'static str, &'static str)]) -> HeaderValue {
        let mut exchange = exchange("GET", "/", request);
        exchange.target = Target::Php;
        let mut response = Response::new(full("0123456789"));
        *response.headers_mut() = headers(answer);
        let age = HeaderValue::from_static("public, max-age=60");
        response.headers_mut().insert(CACHE_CONTROL, age);
        let slot = edge.store.slot(key(&exchange));
        let kept = edge.keep(&exchange, response, clock::wall(), slot, None);
        kept.headers()[STATUS].clone()
    }

    #[tokio::test]
    async fn nobody_waits_for_what_says_that_it_is_too_large() {
        let edge = Edge::new(1 << 20, MOST, OfEdge::default());
        for (length, note, is_waited_for) in [("10", KEPT, true), ("11", MISS, false)] {
            assert_eq!(keep(&edge, &[], &[("content-length", length)]), note);
            let turn = edge.flights.enter(&key(&exchange("GET", "/", &[]))).await;
            assert_eq!(turn.flight().is_some(), is_waited_for, "{length}");
        }
    }

    #[test]
    fn what_a_long_request_chose_is_not_kept() {
        let edge = Edge::new(1 << 20, MOST, OfEdge::default());
        let vary = [("vary", "x")];
        assert_eq!(keep(&edge, &[("x", "1")], &vary), KEPT);
        assert_eq!(keep(&edge, &[("x", &"1".repeat(4 << 10))], &vary), MISS);
    }
}
