//! QUIC endpoints (RFC 9000) by quinn, over sockets that the supervisor bound: who reads such a socket, and the bounds of a connection.
//!
//! Two processes that read one UDP socket would steal each other's packets, and unlike a TCP connection, one of QUIC has no descriptor
//! of its own. So a socket is read by whoever holds the record lock on it, which the kernel gives back when a process ends, however it
//! does. A successor waits for it (`claimed`), and begins when its predecessor has finished its connections.
//!
//! After a crash the successor answers packets of connections that it does not know with a reset (§10.3), which their clients believe,
//! because the keys come from a secret that both have (`Seal`). No 0-RTT: such requests can be sent again by whoever recorded them
//! (RFC 9001 §9.2), and a portal's are not safe to repeat.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{hkdf, hmac};

use super::tls::Store;
use crate::base::Scope;

/// Between two looks whether a predecessor has let go of a socket; its connections take seconds to finish.
const LOOK: Duration = Duration::from_millis(50);

/// Of one connection: what a client may have sent and we not read, and what we have sent and it not taken. Together the 8 MiB of
/// an HTTP/2 connection.
const RECEIVE_WINDOW: u32 = 4 << 20;
const SEND_WINDOW: u64 = 4 << 20;
/// Of one stream: a second at 8 Mbit/s, or a round trip of 80 ms at 100 Mbit/s.
const STREAM_WINDOW: u32 = 1 << 20;

/// Connection attempts that wait to be looked at, and what clients have sent with them.
const WAITING: usize = 1024;
const WAITING_BYTES: u64 = 8 << 20;
const WAITING_BYTES_EACH: u64 = 64 << 10;

/// What one connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Streams in both directions that a client may have open, and those from it to us.
    pub streams: u32,
    pub unidirectional: u32,
    /// A silent client is asked whether it still lives after this long, and gone when it does not answer within the second.
    pub ping_after: Duration,
    pub ping_answer: Duration,
}

/// Keys that a process and its successor have in common.
pub struct Seal(hmac::Key);

impl Seal {
    /// `secret`: known to this node alone, such as the text of a private key.
    pub fn new(secret: &[u8]) -> Self {
        Seal(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn derive(&self, label: &str) -> hmac::Tag {
        hmac::sign(&self.0, format!("bitrix-node quic {label}").as_bytes())
    }
}

/// Resolves when this process alone reads the socket. Holds until the socket is closed; no copy of it may be closed before. Cancel safe.
pub async fn claimed(socket: &UdpSocket) -> io::Result<()> {
    while !claim(socket)? {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn claim(socket: &UdpSocket) -> io::Result<bool> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(socket, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A server on a claimed socket. Its certificates are the store's; its tasks are the scope's, and end with the last connection and handle.
pub fn open(
    socket: UdpSocket,
    store: &Arc<Store>,
    protocol: &[u8],
    bounds: Bounds,
    seal: &Seal,
    scope: &Scope,
) -> io::Result<Endpoint> {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, seal.derive("reset").as_ref());
    let mut config = EndpointConfig::new(Arc::new(reset));
    let ids = seal.derive("connection ids");
    let ids = ids.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    let crypto = QuicServerConfig::try_from(store.quic(protocol)).map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    let tokens = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(seal.derive("tokens").as_ref());
    server
        .token_key(Arc::new(tokens))
        .transport_config(Arc::new(transport(bounds)?))
        .max_incoming(WAITING)
        .incoming_buffer_size(WAITING_BYTES_EACH)
        .incoming_buffer_size_total(WAITING_BYTES);
    socket.set_nonblocking(true)?;
    Endpoint::new(config, Some(server), socket, Arc::new(OnScope(scope.clone())))
}

fn transport(bounds: Bounds) -> io::Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    let silence = bounds.ping_after + bounds.ping_answer;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(bounds.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(bounds.unidirectional))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(bounds.ping_after))
        .max_idle_timeout(Some(IdleTimeout::try_from(silence).map_err(io::Error::other)?))
        .datagram_receive_buffer_size(None);
    Ok(transport)
}

/// Runs an endpoint's tasks in a scope.
struct OnScope(Scope);

impl fmt::Debug for OnScope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("OnScope")
    }
}

impl Runtime for OnScope {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}
