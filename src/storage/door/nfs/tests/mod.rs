//! The door over loopback, before a state in memory.
#![allow(clippy::unwrap_used)]

mod fuzz;
mod listing;
mod memory;
mod probe;
mod procedure;
mod program;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::nfs_fh3;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::{Clients, Door, Handles, Server};
use crate::base::Scope;
use memory::Memory;

/// No reply takes longer on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub type Client = Nfs3Client<TokioIo<TcpStream>>;

/// A running door.
pub struct World {
    pub memory: Arc<Memory>,
    pub address: SocketAddr,
    pub socket: PathBuf,
    pub scope: Scope,
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::start_for(Clients {
            allows_any_port: true,
            ..Clients::default()
        })
        .await
    }

    pub async fn start_for(clients: Clients) -> Self {
        let memory = Arc::new(Memory::new());
        let door = Door::new(memory.clone(), Handles::new(7, [9; 16]));
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nfs.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(&socket).unwrap();
        let scope = Scope::new();
        Server::new(door, clients).start(vec![tcp], vec![unix], &scope);
        World {
            memory,
            address,
            socket,
            scope,
            _folder: folder,
        }
    }

    pub async fn raw(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    /// A connection from this port of loopback.
    pub async fn raw_from(&self, port: u16) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        Raw(socket.connect(self.address).await.unwrap())
    }

    pub async fn client(&self, uid: u32) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        Nfs3Client::new_with_auth(TokioIo::new(stream), credential(uid), opaque_auth::default())
    }

    pub async fn root(&self) -> nfs_fh3 {
        let stream = TcpStream::connect(self.address).await.unwrap();
        mount(MountClient::new(TokioIo::new(stream)), "/portal").await
    }

    pub async fn agent(&self) -> (Nfs3Client<TokioIo<UnixStream>>, nfs_fh3) {
        let connect = async || TokioIo::new(UnixStream::connect(&self.socket).await.unwrap());
        let root = mount(MountClient::new(connect().await), "/registry").await;
        let client = Nfs3Client::new_with_auth(connect().await, credential(0), opaque_auth::default());
        (client, root)
    }
}

async fn mount<S>(mut client: MountClient<TokioIo<S>>, path: &str) -> nfs_fh3
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    let mounted = client.mnt(dirpath(Opaque::borrowed(path.as_bytes()))).await.unwrap();
    nfs_fh3 {
        data: mounted.fhandle.0,
    }
}

pub fn credential(uid: u32) -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix {
        uid,
        gid: uid,
        ..auth_unix::default()
    })
}

/// A connection that speaks bytes.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next record, from its xid on; `None`: the server closed.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        tokio::time::timeout(PATIENCE, async {
            let mark = self.0.read_u32().await.ok()?;
            let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
            self.0.read_exact(&mut record).await.ok()?;
            Some(record)
        })
        .await
        .expect("a reply in time")
    }

    pub async fn ask(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.send(bytes).await;
        self.receive().await
    }
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A whole record: a call of uid 0 with these arguments.
pub fn call(xid: u32, program: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
    let version = if program == nfs3_types::portmap::PROGRAM { 2 } else { 3 };
    let mut bytes = words(&[xid, 0, 2, program, version, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(arguments);
    let mut record = super::record::header(bytes.len()).to_vec();
    record.append(&mut bytes);
    record
}

pub fn nfs(xid: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
    call(xid, nfs3_types::nfs3::PROGRAM, procedure, arguments)
}

pub fn packed(value: &impl nfs3_types::xdr_codec::Pack) -> Vec<u8> {
    let mut out = Vec::new();
    super::xdr::pack(value, &mut out);
    out
}

/// Status of an accepted and executed NFS call.
pub fn status(reply: &[u8]) -> u32 {
    assert_eq!(reply[4..24], words(&[1, 0, 0, 0, 0]), "accepted and executed");
    u32::from_be_bytes(*reply[24..].first_chunk().unwrap())
}
