//! `Pages`: what the portal says of its stored pages, as it is now, and a request's page as an answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderName, HeaderValue};
use tracing::{info, warn};

use super::content::{charset, is_whole};
use super::decide;
use super::options::{Off, Options};
use crate::base::error::chain;
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

/// The stored pages of a portal.
pub struct Pages {
    /// Hosts that may be answered by them; `*` is any.
    hosts: Vec<String>,
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
    pub fn new(hosts: Vec<String>) -> Self {
        Pages {
            hosts,
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
        let kind = charset(&content).and_then(|name| HeaderValue::try_from(format!("text/html; charset={name}")).ok());
        let mut answer = files.serve(exchange, entry).await?;
        let headers = answer.headers_mut();
        headers.insert(COMPOSITE, FROM_FILE);
        // The portal says when a page changes; a browser's own copy would not know.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(EXPIRES, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:01 GMT"));
        if let Some(kind) = kind.filter(|_| headers.contains_key(CONTENT_TYPE) && !is_joined(headers)) {
            headers.insert(CONTENT_TYPE, kind);
        }
        Ok(Some(answer))
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

/// Several parts of the page in one answer have a type of their own.
fn is_joined(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"multipart/"))
}
