//! `Service`: what a module is, `Cx`: what it is given, `Status`: what it reports.
//! A service knows nothing about processes; a test runs one with a hand-made `Cx`.

use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::Scope;

/// The future type at the seams; plain `async fn` everywhere else.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A module of bitrix-node.
pub trait Service: Send + Sync {
    /// Name in the process table, in logs and in `status`.
    fn name(&self) -> &'static str;
    /// Runs until `cx.scope` is drained. `Err` or a panic means "restart me".
    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>>;
    /// What the module says of itself now. Called every second; must not block.
    fn status(&self) -> Status;
    /// The configuration file changed and was found valid. Listening sockets do not change before a restart.
    fn reload(&self) {}
    /// The module's numbers in OpenMetrics text without the closing `# EOF`.
    fn metrics(&self) -> String {
        String::new()
    }
}

/// What a service is given to run.
pub struct Cx {
    /// Owns every task of the service; tells when to drain.
    pub scope: Scope,
    /// Listening sockets, bound by the supervisor, and ends of pairs with it.
    pub sockets: Vec<NamedSocket>,
}

impl Cx {
    /// Takes all TCP listeners of that name.
    pub fn take_tcp(&mut self, name: &str) -> Vec<TcpListener> {
        self.take(name, |socket| match socket {
            Socket::Tcp(listener) => Ok(listener),
            other => Err(other),
        })
    }

    /// Takes all UDP sockets of that name.
    pub fn take_udp(&mut self, name: &str) -> Vec<UdpSocket> {
        self.take(name, |socket| match socket {
            Socket::Udp(socket) => Ok(socket),
            other => Err(other),
        })
    }

    /// Takes all unix listeners of that name.
    pub fn take_unix(&mut self, name: &str) -> Vec<UnixListener> {
        self.take(name, |socket| match socket {
            Socket::Unix(listener) => Ok(listener),
            other => Err(other),
        })
    }

    /// Takes what leads to the supervisor under that name.
    pub fn take_pair(&mut self, name: &str) -> Option<OwnedFd> {
        let mut taken = self.take(name, |socket| match socket {
            Socket::Pair(end) => Ok(end),
            other => Err(other),
        });
        taken.pop()
    }

    fn take<T>(&mut self, name: &str, pick: impl Fn(Socket) -> Result<T, Socket>) -> Vec<T> {
        let mut taken = Vec::new();
        let mut rest = Vec::new();
        for entry in self.sockets.drain(..) {
            if entry.name != name {
                rest.push(entry);
                continue;
            }
            match pick(entry.socket) {
                Ok(listener) => taken.push(listener),
                Err(socket) => rest.push(NamedSocket {
                    name: entry.name,
                    socket,
                }),
            }
        }
        self.sockets = rest;
        taken
    }
}

/// A socket and the name under which the supervisor hands it down.
pub struct NamedSocket {
    pub name: String,
    pub socket: Socket,
}

pub enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
    Unix(UnixListener),
    /// No listener: one end of a pair whose other end the supervisor has.
    Pair(OwnedFd),
}

/// How well a module or daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Good,
    Starting,
    Degraded,
    Failed,
}

/// What a module reports of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub health: Health,
    /// One short line for the table of `bitrix-node status`.
    pub detail: String,
}

impl Status {
    pub fn good(detail: impl Into<String>) -> Self {
        Status {
            health: Health::Good,
            detail: detail.into(),
        }
    }

    pub fn starting() -> Self {
        Status {
            health: Health::Starting,
            detail: "starting".into(),
        }
    }
}
