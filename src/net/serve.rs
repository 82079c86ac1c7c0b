//! The one accept loop: a connection limit, a task per connection, drain.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::base::Scope;

/// Wait after an accept that failed for want of descriptors or memory: the listener stays readable, a loop would spin.
const STARVED: Duration = Duration::from_millis(50);

/// Something that accepts connections.
pub trait Accept: Send + Sync + 'static {
    type Stream: Send + 'static;
    type Peer: Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    type Peer = tokio::net::unix::SocketAddr;

    async fn accept(&self) -> io::Result<(UnixStream, tokio::net::unix::SocketAddr)> {
        UnixListener::accept(self).await
    }
}

/// Accepts until the scope drains. Each connection runs as a task of the scope and holds one permit;
/// when none is left, further connections wait in the kernel's queue.
pub async fn serve<A, F, H>(listener: A, permits: Arc<Semaphore>, scope: Scope, handle: H)
where
    A: Accept,
    H: Fn(A::Stream, A::Peer) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let permit = tokio::select! {
            () = scope.draining() => return,
            permit = permits.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            () = scope.draining() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Moved by its address: a task would hold it twice.
                let connection = Box::pin(handle(stream, peer));
                scope.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept");
                tokio::time::sleep(STARVED).await;
            }
        }
    }
}

/// The peer went away between its SYN and our accept: nothing is wrong with the listener.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
