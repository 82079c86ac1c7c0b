//! FastCGI to the local PHP-FPM: `Php` sends it requests and streams both ways.
//!
//! - A body of known length goes through as it comes. PHP reads no further than CONTENT_LENGTH (measured with PHP-FPM 8.2: without the variable
//!   `php://input` is empty), so a body of unknown length is first collected, beyond 256 KiB in an unlinked file (`spool`).
//! - PHP may answer before it has read the body; upload and download then run side by side, each at the pace of its slower end.
//! - A kept-alive connection occupies a PHP process even when idle. `PhpSettings::kept` bounds them; requests beyond it get a connection of their own,
//!   which serves others too while there are PHP processes for all (`pool`).
//! - Dropping the future or the answer's body closes the connection: PHP sees it at its next output.
//! - Failures: no socket or full backlog `Unavailable`, silence `UpstreamSlow`, broken protocol or connection `Upstream`.

mod client;
mod complaint;
pub mod head;
mod outgoing;
pub mod params;
mod pool;
pub mod record;
mod spool;
mod unread;

#[cfg(test)]
mod fpm_tests;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod responder_tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;

use self::client::Session;
use self::outgoing::Outgoing;
pub use self::pool::Counts;
use self::pool::Pool;
use super::error::Error;
use super::exchange::{Body, Exchange};
use super::id::Id;

/// Where bodies of unknown length wait. Not `/tmp`, which may be memory.
pub const SPOOL: &str = "/var/tmp";

#[derive(Clone, Debug)]
pub struct PhpSettings {
    /// PHP-FPM's unix socket.
    pub socket: PathBuf,
    /// Most connections kept for long, idle and busy together. Must stay below PHP-FPM's children. 0: none is kept.
    pub kept: usize,
    /// PHP-FPM's children at most; 0: not known.
    pub children: usize,
    /// Longest time in which PHP neither reads nor writes.
    pub silence: Duration,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Document root, as PHP sees it.
    pub root: Arc<str>,
    /// Path below the document root: `/index.php`.
    pub name: String,
    /// What follows the script's name in the request's path, decoded; empty or starts with `/`.
    pub path_info: String,
}

/// A PHP-FPM pool. Must live in a tokio runtime from the first call on.
pub struct Php {
    silence: Duration,
    pool: Arc<Pool>,
}

impl Php {
    pub fn new(settings: PhpSettings) -> Php {
        Php {
            silence: settings.silence,
            pool: Arc::new(Pool::new(settings.socket, settings.kept, settings.children)),
        }
    }

    /// Connections to PHP-FPM now.
    pub fn counts(&self) -> Counts {
        self.pool.counts()
    }

    /// Whether PHP-FPM takes connections. Costs it one that ends at once.
    pub async fn probe(&self) -> Result<(), Error> {
        self.pool.probe().await
    }

    /// Runs a script. Resolves with the head of its answer; the body streams.
    ///
    /// A kept connection that turns out to be dead is replaced once, if PHP took nothing of the request,
    /// or if the request may run twice (RFC 9110 §9.2.2) and has no body.
    pub async fn call(&self, exchange: &Exchange, script: &Script, body: Body) -> Result<Response<Body>, Error> {
        let (length, body) = match announced(exchange, &body) {
            Some(length) => (length, body),
            None => spool::collect(body, Path::new(SPOOL), &exchange.id).await?,
        };
        let pairs = params::encode(exchange, script, length);
        let mut outgoing = Outgoing::new(pairs, body);
        let method = &exchange.request.method;
        let may_run_twice = method.is_idempotent() && length == 0;
        if let Some(connection) = self.pool.idle() {
            let mut session = self.session(connection, outgoing, exchange.id);
            match session.head().await {
                Ok(head) => return session.answer(head, method).await,
                Err(_) if session.may_repeat(may_run_twice) => outgoing = session.into_outgoing(),
                Err(error) => return Err(error),
            }
        }
        let connection = self.pool.connect(self.silence).await?;
        let mut session = self.session(connection, outgoing, exchange.id);
        let head = session.head().await?;
        session.answer(head, method).await
    }

    fn session(&self, connection: pool::Connection, outgoing: Outgoing, id: Id) -> Session {
        Session::new(self.pool.clone(), connection, outgoing, id)
    }
}

/// Length of the body, when it is known beforehand. The header field was checked by the front.
fn announced(exchange: &Exchange, body: &Body) -> Option<u64> {
    if body.is_end_stream() {
        return Some(0);
    }
    let field = exchange.request.headers.get(CONTENT_LENGTH);
    field
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .or_else(|| body.size_hint().exact())
}
