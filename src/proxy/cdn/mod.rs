//! A content delivery network before the static files: addresses in the portal's pages are led there (`address`, `body`), and what lies
//! in some folders is given out to signed addresses alone (`signature`).
//!
//! - Pages are HTML that PHP made, just now or stored, before it is compressed; what another node made, that node has led there.
//! - Only addresses that begin with `/` are changed, in attributes that load something and in CSS within the page (`style`), by folder
//!   and by the end of the name. An address that is more than ASCII, and all of a script, stays as it is.
//! - The network fetches what it has not from the portal's own name. Its host may lead to this front, too, which then serves the same
//!   files under it and nothing else: so a network that fails is gone by a change of its name in the DNS, and pages stay as they are.
//! - Whoever removes `proxy.cdn_host` has the pages as PHP made them at once.

mod address;
mod body;
mod signature;
mod style;

use std::sync::Arc;

use anyhow::Context;
use http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED,
};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;

pub use self::address::Rules;
use self::body::Led;
pub use self::signature::{Key, Signer};
use super::exchange::{Body, Exchange, Target};
use super::path::Path;
use crate::base::clock;
use crate::config::{self, Config};

/// On a page that the portal stored.
const COMPOSITE: HeaderName = HeaderName::from_static("x-bitrix-composite");

/// For caches before the portal alone, this cluster's own among them (RFC 9213).
const SHARED: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Fields that state a checksum of the page as it was.
const CHECKSUMS: [HeaderName; 3] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];

/// What holds for all sites.
pub struct Cdn {
    rules: Arc<Rules>,
    /// `None`: nothing is signed.
    signer: Option<Arc<Signer>>,
}

impl Cdn {
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let proxy = &config.proxy;
        let signer = match proxy.cdn_signed.is_empty() {
            true => None,
            false => {
                let key = Key::read(&proxy.cdn_key).context("read proxy.cdn_key")?;
                Some(Arc::new(Signer::new(
                    key,
                    proxy.cdn_signed.clone(),
                    proxy.cdn_signed_for.0,
                )))
            }
        };
        Ok(Cdn {
            rules: Arc::new(Rules::new(&proxy.cdn_paths, &proxy.cdn_extensions)),
            signer,
        })
    }

    /// Whether a file may be given out to who asks by this address.
    pub fn allows(&self, path: &Path, query: Option<&str>) -> bool {
        let signer = self.signer.as_ref();
        signer.is_none_or(|signer| signer.allows(path.as_str(), query.unwrap_or_default(), clock::wall()))
    }

    /// Leads the addresses of a page to the network.
    pub fn lead(&self, host: &str, exchange: &Exchange, mut answer: Response<Body>) -> Response<Body> {
        let is_phps = match exchange.target {
            Target::Php => true,
            Target::Static => answer.headers().contains_key(COMPOSITE),
            Target::None | Target::Peer | Target::Upstream => false,
        };
        if host.is_empty() || !is_phps || !is_page(&answer) {
            return answer;
        }
        mark(answer.headers_mut());
        if exchange.is_hop && self.signer.is_some() {
            // The other front would keep it longer than its addresses hold; one of its own it keeps as PHP made it.
            answer
                .headers_mut()
                .insert(SHARED, HeaderValue::from_static("no-store"));
        }
        if exchange.request.method == Method::HEAD {
            return answer;
        }
        let change = self.rules.clone().change(host, self.signer.clone(), clock::wall());
        answer.map(|body| Led::new(body, change).boxed_unsync())
    }

    /// A file that pages load from another host: scripts and fonts are asked for by name of the page's (Fetch §3.2).
    pub fn share(&self, host: &str, path: &Path, headers: &mut HeaderMap) {
        if !host.is_empty() && self.rules.has(path.as_str()) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
    }
}

/// Whether the network's host, which has perhaps a port, is this one.
pub fn is_at(network: &str, host: &str) -> bool {
    !network.is_empty() && config::host_of(network) == host
}

/// A whole page, as it was made.
fn is_page(answer: &Response<Body>) -> bool {
    let headers = answer.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let kind = text(CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    // Bytes of these are not those of ASCII.
    let is_wide = kind.contains("utf-16") || kind.contains("utf-32");
    let is_fixed = text(CACHE_CONTROL).is_some_and(|control| control.to_ascii_lowercase().contains("no-transform"));
    answer.status() == StatusCode::OK
        && kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html")
        && !is_wide
        && !is_fixed
        && !headers.contains_key(CONTENT_ENCODING)
        // A document that somebody takes home.
        && !headers.contains_key(CONTENT_DISPOSITION)
        && !CHECKSUMS.iter().any(|name| headers.contains_key(name))
}

/// The page is another one than its maker described: by his validators nobody could tell that the network has another name now, or that
/// the signatures in it have run out.
fn mark(headers: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, ACCEPT_RANGES, ETAG, LAST_MODIFIED] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::proxy::fixture::{exchange, full, read};

    fn cdn() -> Cdn {
        let key = Key::new(&[7; 32]).expect("long enough");
        let signer = Signer::new(key, vec!["/upload/private/".into()], Duration::from_secs(60));
        Cdn {
            rules: Arc::new(Rules::new(&["/upload/".into()], &["png".into()])),
            signer: Some(Arc::new(signer)),
        }
    }

    const PAGE: &str = "<img src=\"/upload/a.png\">";

    async fn led(exchange: &Exchange, fields: &[(&'static str, &'static str)]) -> (HeaderMap, bool) {
        let mut answer = Response::new(full(PAGE));
        *answer.headers_mut() = crate::proxy::fixture::headers(fields);
        let (head, body) = cdn().lead("cdn.example", exchange, answer).into_parts();
        let text = read(body).await.expect("whole");
        (head.headers, text != PAGE.as_bytes())
    }

    #[tokio::test]
    async fn pages_of_php_are_led_and_documents_are_not() {
        let html = ("content-type", "text/html; charset=UTF-8");
        let of = |target| Exchange {
            target,
            ..exchange("GET", "/", &[])
        };
        for (target, fields, expected) in [
            (Target::Php, vec![html], true),
            (Target::None, vec![html], false),
            (Target::Static, vec![html, ("x-bitrix-composite", "Nginx (file)")], true),
            (Target::Static, vec![html], false),
            (Target::Peer, vec![html], false),
            (Target::Upstream, vec![html], false),
            (Target::Php, vec![("content-type", "text/plain")], false),
            (Target::Php, vec![("content-type", "text/html; charset=utf-16")], false),
            (Target::Php, vec![html, ("content-encoding", "gzip")], false),
            (Target::Php, vec![html, ("content-disposition", "attachment")], false),
            (Target::Php, vec![html, ("cache-control", "no-transform")], false),
            (Target::Php, vec![html, ("repr-digest", "sha-256=:x:")], false),
        ] {
            assert_eq!(led(&of(target), &fields).await.1, expected, "{target:?} {fields:?}");
        }
        let described = [
            html,
            ("content-length", "25"),
            ("etag", "\"a\""),
            ("last-modified", "Sat, 28 Nov 2026 00:00:00 GMT"),
            ("accept-ranges", "bytes"),
        ];
        let (headers, _) = led(&of(Target::Php), &described).await;
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["content-type"]);
    }

    #[tokio::test]
    async fn what_another_front_gets_it_does_not_keep() {
        let mut exchange = exchange("GET", "/", &[]);
        exchange.target = Target::Php;
        exchange.is_hop = true;
        let (headers, is_led) = led(&exchange, &[("content-type", "text/html")]).await;
        assert!(is_led && headers[SHARED] == "no-store");
    }
}
