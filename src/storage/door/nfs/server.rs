//! The door's listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::warn;

use super::clients::{Clients, Trust};
use super::connection;
use super::dispatch::{Door, Peer};
use crate::base::Scope;
use crate::net::serve::serve;

/// Connections over TCP at once. A kernel client has one or a few; each may hold 16 MiB at its busiest.
/// Further ones wait in the kernel's queue.
const TCP_MAX: usize = 256;
/// Of these, from ports that any user can bind: they shall not take the places of kernel clients. Further ones are closed.
const STRANGERS_MAX: usize = 16;
/// Connections of the agent, which has a handful.
const UNIX_MAX: usize = 64;

/// Serves NFS, MOUNT and portmap.
pub struct Server {
    door: Arc<Door>,
    clients: Clients,
    strangers: Semaphore,
}

impl Server {
    pub fn new(door: Door, clients: Clients) -> Arc<Self> {
        Arc::new(Server {
            door: Arc::new(door),
            clients,
            strangers: Semaphore::new(STRANGERS_MAX),
        })
    }

    /// Starts to accept on these; ends with the scope: when it drains, calls under way are finished and answered.
    /// Who can open a unix socket has the agent's rights, the registry included: its folder must say who.
    pub fn start(self: &Arc<Self>, tcp: Vec<TcpListener>, unix: Vec<UnixListener>, scope: &Scope) {
        let (tcp_permits, unix_permits) = (Arc::new(Semaphore::new(TCP_MAX)), Arc::new(Semaphore::new(UNIX_MAX)));
        for listener in tcp {
            let (server, tasks) = (self.clone(), scope.clone());
            let handle = move |stream, address| server.clone().tcp(stream, address, tasks.clone());
            scope.spawn(serve(listener, tcp_permits.clone(), scope.clone(), handle));
        }
        for listener in unix {
            let (server, tasks) = (self.clone(), scope.clone());
            let handle = move |stream, _| server.clone().unix(stream, tasks.clone());
            scope.spawn(serve(listener, unix_permits.clone(), scope.clone(), handle));
        }
    }

    async fn tcp(self: Arc<Self>, stream: TcpStream, address: SocketAddr, scope: Scope) {
        let trust = self.clients.trust(address);
        let is_stranger = trust == Trust::Ping;
        let place = is_stranger.then(|| self.strangers.try_acquire());
        if trust == Trust::Refused || matches!(place, Some(Err(_))) {
            return warn!(client.addr = %address, "NFS client refused");
        }
        let peer = Peer {
            address: Some(address.ip()),
            // It may be gone already; then the first read says so.
            port: stream.local_addr().map_or(0, |address| address.port()),
            is_stranger,
        };
        connection::serve(stream, peer, self.door.clone(), scope).await;
    }

    async fn unix(self: Arc<Self>, stream: UnixStream, scope: Scope) {
        let peer = Peer {
            address: None,
            port: 0,
            is_stranger: false,
        };
        connection::serve(stream, peer, self.door.clone(), scope).await;
    }
}
