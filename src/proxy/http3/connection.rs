//! One HTTP/3 connection: accepts requests until it is idle, stuck, misused, or the front drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, ConnectionError};
use h3::server;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use super::stream::{Resolver, Stream};
use super::wire::{self, End, Newest, number};
use crate::proxy::connection::Connection;
use crate::proxy::http::STREAMS;
use crate::proxy::service::{Front, isolated};
use crate::proxy::watch::{self, Watch, last_chance};

/// Requests that a client may give up before their answers are whole, beyond those that it let be answered: twice what a browser has
/// open when its user goes away. Opening and giving up streams is work for us and none for the client (CVE-2023-44487).
const GIVEN_UP: usize = 2 * STREAMS as usize;

/// Requests whose tasks live: a client may open a stream for one that it has had whole before that one's task knows.
const SEATS: u32 = 2 * STREAMS;

/// A client that was told to make no further requests may have made some before it heard of that.
const ROUND_TRIPS: u32 = 3;
const LEAST_QUIET: Duration = Duration::from_millis(250);

/// How far beyond the limit a header is read, so that it can be answered; what is longer ends its stream.
const ROOM: u64 = 16 << 10;

pub struct Session {
    pub front: Arc<Front>,
    pub connection: Arc<Connection>,
    pub quic: quinn::Connection,
}

impl Session {
    pub async fn serve(self) {
        if let Err(error) = self.run().await {
            debug!(client.addr = %self.connection.peer, %error, "a connection broke");
        }
    }

    async fn run(&self) -> Result<(), ConnectionError> {
        let setup = self.front.setup();
        let (limits, patience) = (setup.limits, setup.patience);
        drop(setup);
        let size = u64::try_from(limits.size).unwrap_or(u64::MAX).saturating_add(ROOM);
        let wire = wire::Connection::new(self.quic.clone(), size);
        let newest = wire.newest();
        let mut builder = server::builder();
        builder.max_field_section_size(size).send_grease(false);
        // It waits for the client to let us open three streams.
        let Ok(http) = timeout(patience.header, builder.build(wire)).await else {
            return Ok(());
        };
        let mut http: server::Connection<_, Bytes> = http?;
        let mut watch = Watch::new(self.connection.clone(), patience);
        let streams = Arc::new(Semaphore::new(SEATS as usize));
        let given_up = Arc::new(AtomicUsize::new(0));
        let mut is_leaving = false;
        loop {
            let is_idle = tokio::select! {
                accepted = http.accept() => {
                    let Some(resolver) = accepted? else { return Ok(()) };
                    self.begin(resolver, &newest, &streams, &given_up);
                    false
                }
                _ = last_chance(&self.front, &self.connection), if !is_leaving => true,
                () = self.quiet(&streams), if is_leaving => return Ok(()),
                end = watch.look() => match end {
                    None => false,
                    Some(watch::End::Idle) => true,
                    Some(watch::End::Stuck) => return Ok(()),
                },
            };
            if is_idle && !is_leaving {
                is_leaving = true;
                // As many as can be open: whatever the client has sent before it hears of this is answered (RFC 9114 §5.2).
                let told = timeout(patience.body, http.shutdown(STREAMS as usize)).await;
                let Ok(told) = told else { return Ok(()) };
                told?;
            }
        }
    }

    fn begin(&self, resolver: Resolver, newest: &Newest, streams: &Arc<Semaphore>, given_up: &Arc<AtomicUsize>) {
        let stopped = newest.lock().expect("nothing panics under this lock").take();
        // quinn lets no client have so many open.
        let (Some(stopped), Ok(seat)) = (stopped, streams.clone().try_acquire_owned()) else {
            return;
        };
        let stream = Stream {
            front: self.front.clone(),
            connection: self.connection.clone(),
            resolver,
            stopped,
        };
        let (front, quic, given_up) = (self.front.clone(), self.quic.clone(), given_up.clone());
        self.front.scope.spawn(async move {
            let end = isolated(stream.serve(), &front.metrics.panics).await;
            drop(seat);
            if end.is_none() {
                error!(client.addr = %quic.remote_address(), "a request's task panicked");
            }
            if is_misused(&given_up, end == Some(End::Whole)) {
                debug!(client.addr = %quic.remote_address(), "a client gives up too many requests");
                front.metrics.refused_resets();
                quic.close(number(Code::H3_EXCESSIVE_LOAD.value()), b"too many requests given up");
            }
        });
    }

    /// Resolves when nothing is under way, and nothing has come for a while.
    async fn quiet(&self, streams: &Semaphore) {
        // The semaphore is never closed.
        drop(streams.acquire_many(SEATS).await);
        sleep(LEAST_QUIET.max(self.quic.rtt() * ROUND_TRIPS)).await;
    }
}

/// Counts a request; whether it is the one that was too much.
fn is_misused(given_up: &AtomicUsize, is_whole: bool) -> bool {
    if is_whole {
        let _ = given_up.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        return false;
    }
    given_up.fetch_add(1, Ordering::Relaxed) == GIVEN_UP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_is_paid_for_by_taking_answers() {
        let count = AtomicUsize::new(0);
        assert!((0..GIVEN_UP).all(|_| !is_misused(&count, false)));
        assert!(!is_misused(&count, true));
        assert!(!is_misused(&count, false));
        assert!(is_misused(&count, false));
        let fresh = AtomicUsize::new(0);
        assert!(
            !is_misused(&fresh, true) && fresh.load(Ordering::Relaxed) == 0,
            "nothing is saved up"
        );
    }
}
