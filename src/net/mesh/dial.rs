//! From a node's name to an encrypted stream: the seam behind which tests and simulations put their own network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;

use crate::base::BoxFuture;

use super::error::ConnectError;
use super::identity::Name;
use super::tls::{Protocol, Renewal, Tls};

/// A dial that takes longer than this will not come: on a LAN a SYN is answered in a millisecond or, after one
/// loss, in a second.
const CONNECT: Duration = Duration::from_secs(3);

/// Sent bytes that stay unacknowledged for so long end a connection, so that the kernel does not keep it for
/// minutes after our own watch gave it up (spec: link down is otherwise unnoticed for over 20 s).
const USER_TIMEOUT: Duration = Duration::from_secs(4);

/// Bytes that the kernel takes ahead of the line. What it holds cannot be overtaken by a PING.
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// One read: two records of TLS. rustls itself asks for 4 KiB at a time.
const READ: usize = 32 * 1024;

/// A byte stream to or from a node.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Makes streams to nodes.
pub trait Dial: Send + Sync + 'static {
    /// A fresh stream to exactly this node, or why there is none. Bounded in time. Cancel safe.
    fn dial<'a>(&'a self, node: &'a Name, protocol: Protocol) -> BoxFuture<'a, Result<Box<dyn Stream>, ConnectError>>;
    /// Resolves when streams should be made anew because our certificate was replaced.
    fn renewed(&self) -> BoxFuture<'static, ()>;
}

/// Where a node listens now; asked at every dial.
pub type Addresses = Arc<dyn Fn(&Name) -> Option<SocketAddr> + Send + Sync>;

/// TCP with mutual TLS.
pub struct TcpDial {
    pub tls: Arc<Tls>,
    pub addresses: Addresses,
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, node: &'a Name, protocol: Protocol) -> BoxFuture<'a, Result<Box<dyn Stream>, ConnectError>> {
        Box::pin(async move {
            let address = (self.addresses)(node).ok_or(ConnectError::NoAddress)?;
            let connect = tokio::time::timeout(CONNECT, TcpStream::connect(address));
            let tcp = connect.await.map_err(|_| ConnectError::TimedOut)??;
            let stream = self.tls.connect(tuned(tcp)?, node, protocol).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn renewed(&self) -> BoxFuture<'static, ()> {
        let mut renewal: Renewal = self.tls.renewed();
        Box::pin(async move { renewal.next().await })
    }
}

/// What a connection between nodes needs.
pub fn tuned(tcp: TcpStream) -> std::io::Result<BufReader<TcpStream>> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    Ok(BufReader::with_capacity(READ, tcp))
}
