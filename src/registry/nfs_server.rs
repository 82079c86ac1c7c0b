//! Which NFS server, and byte streams to it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nfs3_client::{PortmapperClient, io as client_io};
use nfs3_types::{mount, nfs3, portmap};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::net::name::Names;

/// The portmapper's own port (RFC 1833).
const PORTMAP: u16 = 111;
/// On a LAN a SYN is answered in a millisecond or, after one loss, in a second.
const CONNECT: Duration = Duration::from_secs(3);

/// An export, and the folder in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub transport: Transport,
    /// What MOUNT is asked for.
    pub export: String,
    /// Below the export; made if it is not there. Empty: the export itself.
    pub folder: String,
}

/// How to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// NFS and MOUNT on one socket: the storage's own door.
    Unix(PathBuf),
    /// Ports that are not given are asked of the portmapper.
    Tcp {
        host: String,
        nfs: Option<u16>,
        mount: Option<u16>,
    },
}

/// A program of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Nfs,
    Mount,
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream as nfs3_client wants it. Its own adapter reads on for ever after the server closed; this one says so.
pub struct Io(pub Box<dyn Stream>);

impl client_io::AsyncRead for Io {
    async fn async_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer).await? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

impl client_io::AsyncWrite for Io {
    async fn async_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes).await? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }
}

impl Transport {
    /// A fresh stream to the program; bounded in time.
    pub async fn dial(&self, program: Program) -> io::Result<Box<dyn Stream>> {
        match self {
            Transport::Unix(path) => {
                let stream = bounded(UnixStream::connect(path)).await;
                Ok(Box::new(stream.map_err(|error| named(error, path.display()))?))
            }
            Transport::Tcp { host, nfs, mount } => {
                let known = match program {
                    Program::Nfs => *nfs,
                    Program::Mount => *mount,
                };
                let port = match known {
                    Some(port) => port,
                    None => port_of(host, program).await?,
                };
                Ok(Box::new(tcp(host, port).await?))
            }
        }
    }
}

async fn port_of(host: &str, program: Program) -> io::Result<u16> {
    let (number, version) = match program {
        Program::Nfs => (nfs3::PROGRAM, nfs3::VERSION),
        Program::Mount => (mount::PROGRAM, mount::VERSION),
    };
    let mut client = PortmapperClient::new(Io(Box::new(tcp(host, PORTMAP).await?)));
    let port = bounded(async {
        let port = client.getport(number, version, portmap::IPPROTO_TCP).await;
        port.map_err(|error| io::Error::other(format!("{program:?} over TCP: {error}")))
    });
    port.await
        .map_err(|error| named(error, format!("portmapper of {host}")))
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = bounded(async { Names::system()?.resolve(host, port).await }).await;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses.map_err(|error| named(error, host))? {
        match connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = named(error, address),
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = bounded(TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn bounded<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let result = tokio::time::timeout(CONNECT, work).await;
    result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn named(error: io::Error, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
