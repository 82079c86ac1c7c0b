//! A node's storage in this process: started, killed, asked.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::base::service::{NamedSocket, Socket};
use crate::base::{Cx, Scope, Service};
use crate::config;
use crate::net::mesh::Caller;
use crate::net::mesh::trust::Trust;
use crate::storage::command::{self, Command, Report, Role};
use crate::storage::mesh::LIMITS;
use crate::storage::service::Storage;

/// No step takes longer on the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Client = Nfs3Client<TokioIo<UnixStream>>;

pub struct Node {
    pub name: String,
    pub folder: TempDir,
    /// An address of loopback that nobody else uses: its port is free again as soon as it is closed.
    address: Ipv4Addr,
    /// The storage's end of the pair by which a mount is handed over.
    pub fuse: Option<OwnedFd>,
    running: Option<(Runtime, Scope)>,
}

impl Node {
    /// `number` is also the last byte of its loopback address.
    pub fn new(number: u8, founder: Option<&Node>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("n{number}");
        let trust = Trust::new(folder.path().join("trust"));
        match founder {
            None => {
                crate::storage::opening::found(&folder.path().join("storage"), None).unwrap();
                trust.found("test".parse().unwrap(), &name.parse().unwrap(), None)
            }
            Some(first) => Trust::new(first.folder.path().join("trust")).issue(&name.parse().unwrap(), &trust),
        }
        .unwrap();
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let address = Ipv4Addr::new(127, random[0].max(1), random[1], number);
        Node {
            name,
            folder,
            address,
            fuse: None,
            running: None,
        }
    }

    pub fn mesh(&self) -> String {
        format!("{}:7401", self.address)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&mut self) {
        let text = format!(
            "[node]\nname = {:?}\ndata_dir = {:?}\n[cluster]\naddress = \"{}\"",
            self.name,
            self.folder.path(),
            self.address
        );
        let loaded = config::parse(&text, std::iter::empty()).unwrap();
        let storage = Storage::new(&loaded.config);
        let unix = |name: &str| {
            let path = self.path(&format!("{name}.sock"));
            let _ = std::fs::remove_file(&path);
            NamedSocket {
                name: name.into(),
                socket: Socket::Unix(UnixListener::bind(path).unwrap()),
            }
        };
        let address = loaded.config.storage_mesh().unwrap();
        let start = Instant::now();
        // The listener of a node that was killed goes with its tasks, which may take a moment.
        let mesh = loop {
            match crate::net::listen::tcp(address) {
                Ok(mesh) => break mesh,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{address}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // Threads beside its runtime end a moment later, and those that begin just then hold for a moment what all of this process
        // have open.
        let lock = self.path("storage/state/lock");
        while lock.exists() && crate::base::file::try_lock(&lock).unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "{}: what it had is still in use", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        let scope = Scope::new();
        let named = |name: &str, socket| NamedSocket {
            name: name.into(),
            socket,
        };
        let mut sockets = vec![
            unix("nfs-unix"),
            unix("storage"),
            named("storage-mesh", Socket::Tcp(mesh)),
        ];
        let fuse = self.fuse.as_ref().map(|end| end.try_clone().unwrap());
        sockets.extend(fuse.map(|end| named("fuse", Socket::Pair(end))));
        let cx = Cx {
            scope: scope.clone(),
            sockets,
        };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        {
            let _entered = runtime.enter();
            // It ends by itself where a supervisor would start it anew.
            scope.spawn(async move {
                let ended = storage.run(cx).await;
                ended.inspect_err(|error| drop(writeln!(std::io::stderr(), "the storage has ended: {error:#}")))
            });
        }
        self.running = Some((runtime, scope));
    }

    pub fn kill(&mut self) {
        let (runtime, _) = self.running.take().unwrap();
        // Until all of it is gone, as after `kill -9`: no task answers, no thread writes.
        let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE));
        ended.join().unwrap();
    }

    /// As a supervisor does it.
    pub async fn stop(&mut self) {
        let (runtime, scope) = self.running.take().unwrap();
        assert!(scope.stop(PATIENCE).await);
        let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE));
        ended.join().unwrap();
    }

    pub async fn command<T: DeserializeOwned>(&self, command: &Command) -> anyhow::Result<T> {
        let scope = Scope::new();
        let stream = UnixStream::connect(self.path("storage.sock")).await?;
        let caller = Caller::start(stream, LIMITS, &scope);
        let answer = command::ask(&caller, command).await;
        drop(caller);
        scope.stop(Duration::ZERO).await;
        answer
    }

    /// Asks until the answer pleases.
    pub async fn until(&self, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
        let start = Instant::now();
        loop {
            let report = self.command::<Report>(&Command::Status).await;
            if let Some(report) = report.as_ref().ok().filter(|report| holds(report)) {
                return report.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{}: never {what}: {report:?}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn client(&self) -> Client {
        let stream = TokioIo::new(UnixStream::connect(self.path("nfs-unix.sock")).await.unwrap());
        Nfs3Client::new_with_auth(
            stream,
            opaque_auth::auth_unix(&auth_unix::default()),
            opaque_auth::default(),
        )
    }

    pub async fn root(&self) -> nfs_fh3 {
        let stream = TokioIo::new(UnixStream::connect(self.path("nfs-unix.sock")).await.unwrap());
        let mounted = MountClient::new(stream)
            .mnt(dirpath(Opaque::borrowed(b"/portal")))
            .await;
        nfs_fh3 {
            data: mounted.unwrap().fhandle.0,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

/// Three replicas, all in sync; the first leads.
pub async fn three() -> Vec<Node> {
    let nodes = nodes(&[false, false]).await;
    nodes[0].until("has three voters", is_whole).await;
    nodes
}

/// A leader and the members that it takes in, told whether they are witnesses.
pub async fn nodes(others: &[bool]) -> Vec<Node> {
    let mut nodes = vec![Node::new(1, None)];
    for number in 2..=others.len() + 1 {
        nodes.push(Node::new(number as u8, Some(&nodes[0])));
    }
    nodes.iter_mut().for_each(Node::start);
    nodes[0].until("leads", |report| report.role == Role::Leader).await;
    for (number, witness) in (1..).zip(others) {
        let add = Command::Add {
            name: nodes[number].name.clone(),
            address: nodes[number].mesh(),
            witness: *witness,
        };
        nodes[number]
            .until("waits", |report| report.role == Role::Waiting)
            .await;
        nodes[0].command::<()>(&add).await.unwrap();
    }
    nodes
}

pub fn is_whole(report: &Report) -> bool {
    report.copies == 3
        && report
            .members
            .iter()
            .filter(|member| member.votes && member.in_sync)
            .count()
            == 3
}

/// Makes a file; a call that the door could not finish is repeated as a kernel client does, with the same name. So is one
/// whose name is there: then an earlier try had done it, and that must be told apart by its key.
pub async fn create(client: &mut Client, root: &nfs_fh3, name: &str, data: &[u8]) {
    let file = loop {
        let args = CREATE3args {
            where_: diropargs3 {
                dir: root.clone(),
                name: filename3::from(name.as_bytes()),
            },
            how: createhow3::EXCLUSIVE(createverf3(*b"verifier")),
        };
        match client.create(&args).await.unwrap() {
            Nfs3Result::Ok(made) => break made.obj.unwrap(),
            Nfs3Result::Err((nfsstat3::NFS3ERR_JUKEBOX, _)) => {}
            Nfs3Result::Err((status, _)) => panic!("{name}: {status}"),
        }
    };
    let write = WRITE3args {
        file,
        offset: 0,
        count: data.len() as u32,
        stable: stable_how::FILE_SYNC,
        data: Opaque::borrowed(data),
    };
    loop {
        match client.write(&write).await.unwrap() {
            Nfs3Result::Ok(_) => return,
            Nfs3Result::Err((nfsstat3::NFS3ERR_JUKEBOX, _)) => {}
            Nfs3Result::Err((status, _)) => panic!("{name}: {status}"),
        }
    }
}

/// Contents by name, from a replica's mirror.
pub fn mirror(folder: &Path) -> BTreeSet<(String, Bytes)> {
    let entries = std::fs::read_dir(folder.join("storage/state/tree")).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap().into())
        })
        .collect()
}
