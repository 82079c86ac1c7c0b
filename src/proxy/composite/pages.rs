//! `Pages`: what the portal says of its stored pages, as it is now, and a request's page as an answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, EXPIRES, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH, VARY,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tracing::{info, warn};

use super::content::{charset, is_whole};
use super::decide;
use super::options::{Off, Options, Storage};
use super::shelf::Shelf;
use super::stored::Stored;
use crate::base::error::chain;
use crate::config::Coding;
use crate::proxy::conditional::choose;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::static_file::{Files, Found, Stamp, Text};

const SWITCH: &str = "bitrix/html_pages/.enabled";
const SETTINGS: &str = "bitrix/html_pages/.config.php";

/// The portal's own settings are a few KiB.
const MOST: u64 = 256 << 10;

/// The portal's files are looked at this often, in milliseconds, while there are requests.
const RECHECK: u64 = 1000;

/// Says to the portal's scripts, and to who looks, where a page came from.
const COMPOSITE: HeaderName = HeaderName::from_static("x-bitrix-composite");
const FROM_FILE: HeaderValue = HeaderValue::from_static("Nginx (file)");
const FROM_CACHE: HeaderValue = HeaderValue::from_static("Nginx (memcached)");

/// Where files of pages lie; what follows is a page's name in the cache.
const FOLDER: &str = "/bitrix/html_pages";

/// The stored pages of a portal.
pub struct Pages {
    /// Hosts that may be answered by them; `*` is any.
    hosts: Vec<String>,
    /// Doors of the cache's composite storage.
    shelves: Arc<[Shelf]>,
    opened: Instant,
    /// When the portal's files are looked at next, in milliseconds since `opened`.
    due: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    stamp: Option<Stamp>,
    /// `None`: no pages are served.
    options: Option<Arc<Options>>,
}

impl Pages {
    pub fn new(hosts: Vec<String>, shelves: Arc<[Shelf]>) -> Self {
        Pages {
            hosts,
            shelves,
            opened: Instant::now(),
            due: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }

    /// The stored page for a request that PHP would answer otherwise. A fault of the files is no fault of the request: `None`.
    pub async fn answer(&self, files: &Files, exchange: &Exchange) -> Option<Response<Body>> {
        if self.hosts.is_empty() {
            return None;
        }
        let options = self.options(files).await?;
        let path = decide::page(&options, &self.hosts, &exchange.request).ok()?;
        if let Storage::Cache(place) = &options.storage {
            let stored = self
                .shelf(place.as_ref())?
                .get(path.as_str().strip_prefix(FOLDER)?)
                .await?;
            return from_cache(&exchange.request.headers, &stored);
        }
        self.page(files, exchange, &path).await.unwrap_or_else(|error| {
            if error.kind != Kind::NotFound {
                let cause = chain(&error);
                warn!(path = path.as_str(), cause, "a stored page could not be read");
            }
            None
        })
    }

    async fn page(
        &self,
        files: &Files,
        exchange: &Exchange,
        path: &crate::proxy::path::Path,
    ) -> Result<Option<Response<Body>>, Error> {
        let Found::File(entry) = files.look(path).await? else {
            return Ok(None);
        };
        let Some((entry, content)) = files.load(entry).await? else {
            return Ok(None);
        };
        if !is_whole(&content) {
            return Ok(None);
        }
        let kind = kind(&content);
        let mut answer = files.serve(exchange, entry).await?;
        let headers = answer.headers_mut();
        describe(headers, FROM_FILE);
        if let Some(kind) = kind.filter(|_| headers.contains_key(CONTENT_TYPE) && !is_joined(headers)) {
            headers.insert(CONTENT_TYPE, kind);
        }
        Ok(Some(answer))
    }

    /// The door that the portal means. `None`: it stores its pages elsewhere.
    fn shelf(&self, place: Option<&(String, u16)>) -> Option<&Shelf> {
        let is_meant = |shelf: &&Shelf| match place {
            None => true,
            Some((host, port)) => {
                let is_host = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| shelf.address.ip() == ip);
                is_host && shelf.address.port() == *port
            }
        };
        self.shelves.iter().find(is_meant)
    }

    /// What holds now. One request a second looks at the portal's files, others go on with what is known.
    async fn options(&self, files: &Files) -> Option<Arc<Options>> {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.due.load(Ordering::Relaxed);
        let is_ours = now >= due
            && self
                .due
                .compare_exchange(due, now + RECHECK, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            self.look(files).await;
        }
        self.known().options.clone()
    }

    async fn look(&self, files: &Files) {
        let stamp = self.known().stamp.clone();
        let found = async {
            match files.text(SWITCH, None, MOST).await? {
                Text::Missing => Ok(Text::Missing),
                _ => files.text(SETTINGS, stamp, MOST).await,
            }
        };
        let mut next = Known::default();
        match found.await {
            Ok(Text::Same) => return,
            Ok(Text::Missing) => {}
            Ok(Text::Changed(stamp, text)) => {
                next.stamp = Some(stamp);
                match Options::read(&text) {
                    Ok(options) => next.options = Some(Arc::new(options)),
                    Err(Off::NotWanted) => {}
                    Err(Off::Unreadable) => {
                        warn!(
                            file = SETTINGS,
                            "the settings of stored pages are more than an array of texts; PHP answers"
                        );
                    }
                }
            }
            // The file system fails, not the file: what is known goes on.
            Err(error) if error.kind == Kind::Internal => return,
            Err(error) => {
                let cause = chain(&error);
                if self.known().options.is_some() {
                    warn!(cause, "the settings of stored pages cannot be read; PHP answers");
                }
            }
        }
        let mut known = self.known();
        if known.options.is_some() != next.options.is_some() {
            info!(is_on = next.options.is_some(), "stored pages of the portal");
        }
        *known = next;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page out of the cache, as it lies there where the client takes it so. `None`: it is damaged.
fn from_cache(request: &HeaderMap, stored: &Stored) -> Option<Response<Body>> {
    let beginning = stored.beginning()?;
    let tag = stored.tag();
    let mut headers = HeaderMap::new();
    describe(&mut headers, FROM_CACHE);
    headers.insert(ETAG, HeaderValue::try_from(&tag).ok()?);
    if stored.is_packed {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    let none_match = request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let is_known = none_match
        .flat_map(|value| value.split(','))
        .any(|known| known.trim() == tag);
    let (status, body) = match is_known {
        true => (StatusCode::NOT_MODIFIED, Bytes::new()),
        false => {
            let kind = kind(&beginning).unwrap_or(HeaderValue::from_static("text/html"));
            headers.insert(CONTENT_TYPE, kind);
            let is_taken = stored.is_packed && choose(request, [Coding::Gzip].into_iter()).is_some();
            if is_taken {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(Coding::Gzip.name()));
            }
            let page = if is_taken {
                stored.bytes.clone()
            } else {
                stored.plain()?
            };
            headers.insert(CONTENT_LENGTH, page.len().into());
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
            (StatusCode::OK, page)
        }
    };
    let mut answer = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Some(answer)
}

/// Fields of every stored page.
fn describe(headers: &mut HeaderMap, source: HeaderValue) {
    headers.insert(COMPOSITE, source);
    // The portal says when a page changes; a browser's own copy would not know.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(EXPIRES, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:01 GMT"));
}

/// The type that a page states in its head.
fn kind(page: &[u8]) -> Option<HeaderValue> {
    charset(page).and_then(|name| HeaderValue::try_from(format!("text/html; charset={name}")).ok())
}

/// Several parts of the page in one answer have a type of their own.
fn is_joined(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"multipart/"))
}
