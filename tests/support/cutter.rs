//! A proxy before an NFS server that cuts connections after some LINK requests went through, so that their replies are lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitrix_node::base::Scope;
use bitrix_node::registry::{Program, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Where a call's record says which program and procedure it is for (RFC 5531 §9), and the values of interest.
const PROGRAM: usize = 16;
const PROCEDURE: usize = 24;
const MOUNT: u32 = 100_005;
const LINK: u32 = 15;

pub struct Cutter {
    socket: PathBuf,
    scope: Scope,
    pub cuts: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Rule {
    server: Transport,
    /// Of a hundred LINKs.
    percent: u64,
    links: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
}

impl Cutter {
    /// Listens in `folder`.
    pub fn start(server: Transport, folder: &Path, percent: u64) -> Self {
        let socket = folder.join("cut.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (scope, cuts) = (Scope::new(), Arc::new(AtomicU64::new(0)));
        let rule = Rule {
            server,
            percent,
            links: Arc::default(),
            cuts: cuts.clone(),
        };
        let connections = scope.clone();
        scope.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, rule.clone()));
            }
        });
        Cutter { socket, scope, cuts }
    }

    pub fn transport(&self) -> Transport {
        Transport::Unix(self.socket.clone())
    }

    pub async fn stop(self) {
        self.scope.stop(Duration::ZERO).await;
        std::fs::remove_file(self.socket).unwrap();
    }
}

/// Requests and replies by turns, for a client has one call under way.
async fn pass(mut client: UnixStream, rule: Rule) {
    let mut server = None;
    while let Some(request) = receive(&mut client).await {
        let program = match word(&request, PROGRAM) {
            MOUNT => Program::Mount,
            _ => Program::Nfs,
        };
        let is_cut = program == Program::Nfs && word(&request, PROCEDURE) == LINK && rule.is_next_cut();
        if server.is_none() {
            server = rule.server.dial(program).await.ok();
        }
        let Some(server) = &mut server else { return };
        if server.write_all(&request).await.is_err() {
            return;
        }
        // Every other time it is certain that the server did it.
        if is_cut && rule.cuts.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return;
        }
        let Some(reply) = receive(server).await else { return };
        if is_cut || client.write_all(&reply).await.is_err() {
            return;
        }
    }
}

impl Rule {
    /// Spread evenly, always the same ones.
    fn is_next_cut(&self) -> bool {
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        (link + 1) * self.percent / 100 > link * self.percent / 100
    }
}

/// A whole record with its mark; `None`: the end.
async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mark = from.read_u32().await.ok()?;
    let mut record = mark.to_be_bytes().to_vec();
    record.resize(4 + (mark & 0x7fff_ffff) as usize, 0);
    from.read_exact(record.get_mut(4..)?).await.ok()?;
    Some(record)
}

fn word(record: &[u8], at: usize) -> u32 {
    let bytes = record.get(at..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
