//! The sockets of HTTP/3: who holds them, whom they let in, and how a front leaves them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use h3::error::Code;
use quinn::{Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, info};

use super::connection::Session;
use super::wire::number;
use crate::net::quic::{self, Seal};
use crate::net::tls::Store;
use crate::proxy::connection::Connection;
use crate::proxy::http::{PING_AFTER, PING_ANSWER, STREAMS};
use crate::proxy::limit::Permit;
use crate::proxy::service::{Front, isolated};
use crate::proxy::{access_log, answer};

const PROTOCOL: &[u8] = b"h3";

/// Unidirectional streams that a client may have open: three of its own (RFC 9114 §6.2), and some that mean nothing.
const UNIDIRECTIONAL: u32 = 8;

/// Handshakes under way, from which on a client has to show first that it is at its address (Retry, RFC 9000 §8.1.2).
const HANDSHAKES: usize = 64;

/// What is left of a draining front's requests is cut after this, with a word to their clients. Less than the process has.
const LONGEST_DRAIN: Duration = Duration::from_secs(25);
/// For that word to go out.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves one socket until the scope drains and its connections have come to their end.
pub async fn accept(front: Arc<Front>, socket: UdpSocket, store: Arc<Store>, seal: Arc<Seal>) -> io::Result<()> {
    let scope = front.scope.clone();
    tokio::select! {
        () = scope.draining() => return Ok(()),
        claimed = quic::claimed(&socket) => claimed?,
    }
    let bounds = quic::Bounds {
        streams: STREAMS,
        unidirectional: UNIDIRECTIONAL,
        ping_after: PING_AFTER,
        ping_answer: PING_ANSWER,
    };
    let address = socket.local_addr()?;
    let endpoint = quic::open(socket, &store, PROTOCOL, bounds, &seal, &scope)?;
    info!(%address, "HTTP/3");
    let offer = front.alternatives.offer(address.port());
    let door = Door {
        front,
        address,
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
    };
    loop {
        tokio::select! {
            () = scope.draining() => break,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => door.receive(incoming),
                None => return Err(io::Error::other("the endpoint has ended")),
            },
        }
    }
    drop(offer);
    drain(endpoint).await;
    Ok(())
}

/// Connections end by themselves; who comes now is sent to where a successor answers.
async fn drain(endpoint: Endpoint) {
    let deadline = Instant::now() + LONGEST_DRAIN;
    loop {
        tokio::select! {
            () = endpoint.wait_idle() => return,
            () = sleep_until(deadline) => break,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming.refuse(),
                None => break,
            },
        }
    }
    endpoint.close(number(Code::H3_NO_ERROR.value()), b"the server stops");
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
}

#[derive(Clone)]
struct Door {
    front: Arc<Front>,
    /// Of the socket.
    address: SocketAddr,
    handshakes: Arc<Semaphore>,
}

impl Door {
    fn receive(&self, incoming: Incoming) {
        let (setup, peer) = (self.front.setup(), incoming.remote_address());
        // A proxy that must say for whom it connects has no way to say it here.
        if !setup.http3 || setup.trust.announces(peer.ip()) {
            return incoming.refuse();
        }
        let seat = self.handshakes.clone().try_acquire_owned().ok();
        if seat.is_none() && !incoming.remote_address_validated() {
            // Who has not shown its address can always be asked to.
            let _ = incoming.retry();
            return;
        }
        // Behind a trusted proxy are many clients.
        let counted = (!setup.trust.has(peer.ip())).then(|| peer.ip());
        match self.front.limit.admit(counted) {
            Ok(permit) => self.spawn(incoming, peer, permit, seat),
            Err(kind) => {
                self.front.metrics.refused(kind);
                if let Some(log) = &setup.log {
                    log.write(&access_log::Line::turned_away(peer.ip(), answer::status(kind).as_u16()));
                }
                incoming.refuse();
            }
        }
    }

    fn spawn(&self, incoming: Incoming, peer: SocketAddr, permit: Permit, seat: Option<OwnedSemaphorePermit>) {
        let door = self.clone();
        self.front.scope.spawn(async move {
            let served = isolated(door.serve(incoming, seat), &door.front.metrics.panics).await;
            if served.is_none() {
                error!(client.addr = %peer, "a connection panicked");
            }
            drop(permit);
        });
    }

    async fn serve(&self, incoming: Incoming, seat: Option<OwnedSemaphorePermit>) {
        let (front, peer) = (self.front.clone(), incoming.remote_address());
        let patience = front.setup().patience.header;
        let quic = match timeout(patience, incoming).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => {
                debug!(client.addr = %peer, %error, "no QUIC handshake");
                return front.metrics.refused_handshake();
            }
            Err(_) => return front.metrics.refused_handshake(),
        };
        drop(seat);
        // A socket for any address learns with each packet which one the client reached.
        let ip = quic.local_ip().unwrap_or(self.address.ip());
        let local = SocketAddr::new(ip, self.address.port());
        front.metrics.opened(http::Version::HTTP_3);
        let session = Session {
            connection: Arc::new(Connection::new(peer, local, Some("TLSv1.3"))),
            front,
            quic,
        };
        session.serve().await;
    }
}
