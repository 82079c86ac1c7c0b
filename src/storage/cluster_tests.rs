//! Several nodes' storage in one process, over the real mesh on loopback: they join, any door serves, and a leader that dies
//! under calls loses none and doubles none. A kill ends a node's tasks where they stand, as after `kill -9`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
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

use super::command::{self, Command, Report, Role};
use super::mesh::LIMITS;
use super::service::Storage;
use crate::base::service::{NamedSocket, Socket};
use crate::base::{Cx, Scope, Service};
use crate::config;
use crate::net::mesh::Caller;
use crate::net::mesh::trust::Trust;

/// No step takes longer on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

type Client = Nfs3Client<TokioIo<UnixStream>>;

struct Node {
    name: String,
    folder: TempDir,
    /// An address of loopback that nobody else uses: its port is free again as soon as it is closed.
    address: Ipv4Addr,
    running: Option<(Runtime, Scope)>,
}

impl Node {
    /// `number` is also the last byte of its loopback address.
    fn new(number: u8, founder: Option<&Node>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("n{number}");
        let trust = Trust::new(folder.path().join("trust"));
        match founder {
            None => {
                super::opening::found(&folder.path().join("storage"), None).unwrap();
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
            running: None,
        }
    }

    fn mesh(&self) -> String {
        format!("{}:7401", self.address)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
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
        let scope = Scope::new();
        let cx = Cx {
            scope: scope.clone(),
            sockets: vec![
                unix("nfs-unix"),
                unix("storage"),
                NamedSocket {
                    name: "storage-mesh".into(),
                    socket: Socket::Tcp(mesh),
                },
            ],
        };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        {
            let _entered = runtime.enter();
            // It ends by itself where a supervisor would start it anew.
            scope.spawn(async move { storage.run(cx).await });
        }
        self.running = Some((runtime, scope));
    }

    fn kill(&mut self) {
        let (runtime, _) = self.running.take().unwrap();
        // Until all of it is gone, as after `kill -9`: no task answers, no thread writes.
        let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE));
        ended.join().unwrap();
    }

    async fn command<T: DeserializeOwned>(&self, command: &Command) -> anyhow::Result<T> {
        let scope = Scope::new();
        let stream = UnixStream::connect(self.path("storage.sock")).await?;
        let caller = Caller::start(stream, LIMITS, &scope);
        let answer = command::ask(&caller, command).await;
        drop(caller);
        scope.stop(Duration::ZERO).await;
        answer
    }

    /// Asks until the answer pleases.
    async fn until(&self, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
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

    async fn client(&self) -> Client {
        let stream = TokioIo::new(UnixStream::connect(self.path("nfs-unix.sock")).await.unwrap());
        Nfs3Client::new_with_auth(
            stream,
            opaque_auth::auth_unix(&auth_unix::default()),
            opaque_auth::default(),
        )
    }

    async fn root(&self) -> nfs_fh3 {
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
async fn three() -> Vec<Node> {
    let nodes = nodes(&[false, false]).await;
    nodes[0].until("has three voters", is_whole).await;
    nodes
}

/// A leader and the members that it takes in, told whether they are witnesses.
async fn nodes(others: &[bool]) -> Vec<Node> {
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

fn is_whole(report: &Report) -> bool {
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
async fn create(client: &mut Client, root: &nfs_fh3, name: &str, data: &[u8]) {
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
fn mirror(folder: &Path) -> BTreeSet<(String, Bytes)> {
    let entries = std::fs::read_dir(folder.join("storage/state/tree")).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap().into())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_and_any_door_serves_the_same_files() {
    let nodes = three().await;
    let root = nodes[0].root().await;
    for node in &nodes {
        assert_eq!(node.root().await, root, "handles are the same everywhere");
        create(&mut node.client().await, &root, &node.name, node.name.as_bytes()).await;
    }
    let expected: BTreeSet<_> = nodes
        .iter()
        .map(|node| (node.name.clone(), Bytes::from(node.name.clone())))
        .collect();
    for node in &nodes {
        let start = Instant::now();
        while mirror(node.folder.path()) != expected {
            assert!(
                start.elapsed() < PATIENCE,
                "{}: {:?}",
                node.name,
                mirror(node.folder.path())
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let again = Command::Add {
        name: "n2".into(),
        address: nodes[1].mesh(),
        witness: false,
    };
    nodes[2]
        .command::<()>(&again)
        .await
        .expect("passed on, and safe to repeat");
    let stranger = Command::Remove { name: "n9".into() };
    let refused = nodes[1].command::<()>(&stranger).await.unwrap_err().to_string();
    assert!(refused.contains("no member is called n9"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_under_writes_loses_nothing() {
    let mut nodes = three().await;
    let root = nodes[1].root().await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let leader = nodes[2 - round % 2]
            .until("has a leader", |report| report.leader.is_some())
            .await;
        let at = nodes
            .iter()
            .position(|node| Some(&node.name) == leader.leader.as_ref())
            .unwrap();
        let door = (at + 1) % 3;
        let mut client = nodes[door].client().await;
        for file in 0..20 {
            if file == 5 {
                nodes[at].kill();
            }
            let name = format!("{round}-{file}");
            create(&mut client, &root, &name, name.as_bytes()).await;
            acknowledged.insert((name.clone(), Bytes::from(name)));
        }
        nodes[at].start();
        nodes[door].until("is led", |report| report.leader.is_some()).await;
        let leader = nodes[door].command::<Report>(&Command::Status).await.unwrap().leader;
        let now = nodes.iter().find(|node| Some(&node.name) == leader.as_ref()).unwrap();
        now.until("is whole again", is_whole).await;
    }
    for node in &nodes {
        let start = Instant::now();
        while mirror(node.folder.path()) != acknowledged {
            assert!(start.elapsed() < PATIENCE, "{} differs", node.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_three_has_every_acknowledged_byte_and_goes_on_when_told() {
    let mut nodes = three().await;
    let root = nodes[2].root().await;
    create(&mut nodes[2].client().await, &root, "upload", b"precious").await;
    nodes[0].kill();
    nodes[1].kill();
    let recover = |lost: &[&str]| Command::Recover {
        lost: lost.iter().map(ToString::to_string).collect(),
        accepts_loss: false,
    };
    nodes[2]
        .until("misses its leader", |report| report.role == Role::Follower)
        .await;
    let start = Instant::now();
    while let Err(error) = nodes[2].command::<()>(&recover(&["n1", "n2"])).await {
        assert!(error.to_string().contains("leads"), "{error}");
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nodes[2].kill();
    nodes[2].start();
    nodes[2]
        .until("leads alone", |report| {
            report.role == Role::Leader && report.members.len() == 1
        })
        .await;
    assert_eq!(nodes[2].root().await, root, "handles are what they were");
    create(&mut nodes[2].client().await, &root, "after", b"more").await;
    let expected = [("after", "more"), ("upload", "precious")].map(|(name, data)| (name.to_owned(), Bytes::from(data)));
    assert_eq!(mirror(nodes[2].folder.path()), expected.into());
    let refused = nodes[2].command::<()>(&recover(&["n1"])).await.unwrap_err();
    assert!(refused.to_string().contains("leads"), "{refused}");
    // One that was given up comes back: it is refused as it is, and welcome when emptied.
    let address = nodes[0].mesh();
    let add = Command::Add {
        name: "n1".into(),
        address,
        witness: false,
    };
    nodes[0].start();
    nodes[0]
        .until("stands without leader", |report| {
            report.leader.is_none() || report.role == Role::Follower
        })
        .await;
    let refused = nodes[2].command::<()>(&add).await.unwrap_err();
    assert!(refused.to_string().contains("empty its storage folder"), "{refused:#}");
    nodes[0].kill();
    std::fs::remove_dir_all(nodes[0].path("storage")).unwrap();
    nodes[0].start();
    nodes[0].until("waits", |report| report.role == Role::Waiting).await;
    nodes[2].command::<()>(&add).await.unwrap();
    nodes[2].until("has two copies", |report| report.copies == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_and_a_witness_survive_the_loss_of_the_leader() {
    let mut nodes = nodes(&[false, true]).await;
    nodes[0]
        .until("has three voters and two copies", |report| {
            report.copies == 2 && report.members.iter().filter(|member| member.votes).count() == 3
        })
        .await;
    assert_eq!(
        nodes[2].command::<Report>(&Command::Status).await.unwrap().role,
        Role::Witness
    );
    let root = nodes[1].root().await;
    create(&mut nodes[1].client().await, &root, "before", b"1").await;
    // Its door has no files of its own, and serves all the same.
    create(&mut nodes[2].client().await, &root, "by-witness", b"2").await;
    nodes[0].kill();
    create(&mut nodes[1].client().await, &root, "after", b"3").await;
    let expected = [("after", "3"), ("before", "1"), ("by-witness", "2")];
    let expected = expected.map(|(name, data)| (name.to_owned(), Bytes::from(data)));
    assert_eq!(mirror(nodes[1].folder.path()), expected.into());
    assert!(
        !nodes[2].path("storage/state/meta.db").exists(),
        "a witness holds no files"
    );
    nodes[0].start();
    nodes[1]
        .until("has both copies again", |report| report.copies == 2)
        .await;
}

/// A tree with what archives hold: folders, many small files, one of several parts, an empty one, links of both kinds.
fn sample(folder: &Path) -> Vec<u8> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for number in 0..300 {
        let place = folder.join(format!("a/{}", number % 7));
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(number.to_string()), format!("file {number}")).unwrap();
    }
    let large: Vec<u8> = (0..(2 << 20) + 5_u32).map(|byte| byte as u8).collect();
    std::fs::write(folder.join("large"), large).unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::set_permissions(folder.join("empty"), std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("a/1", folder.join("link")).unwrap();
    std::fs::hard_link(folder.join("large"), folder.join("twin")).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all("", folder).unwrap();
    archive.into_inner().unwrap()
}

/// What an archive holds, in order of paths.
fn contents(archive: &[u8]) -> Vec<(String, u32, u64, u8, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let mut found: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                data = target.to_str().unwrap().into();
            }
            let header = entry.header();
            (
                path,
                header.mode().unwrap() & 0o7777,
                header.mtime().unwrap(),
                header.entry_type().as_byte(),
                data,
            )
        })
        .filter(|(path, ..)| !path.is_empty())
        .collect();
    found.sort();
    found
}

#[derive(Clone, Default)]
struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_in_and_comes_out_as_an_archive() {
    use std::sync::Arc;

    use super::archive::{Progress, export, import};
    use super::call::PORTAL;
    use super::client;
    use super::door::Calls;
    use super::mesh::ToSocket;
    use super::operation::Place;

    let mut node = Node::new(1, None);
    node.start();
    node.until("leads", |report| report.role == Role::Leader).await;
    let scope = Scope::new();
    let stream = UnixStream::connect(node.path("storage.sock")).await.unwrap();
    let way = Arc::new(ToSocket::new(Caller::start(stream, LIMITS, &scope)));
    let client = client::Client::start(way, Place("n1/test".into()), false, &scope);
    let calls: Arc<dyn Calls> = Arc::new(client.clone());
    let folder = tempfile::tempdir().unwrap();
    let archive = sample(folder.path());
    // Twice: what is there is replaced.
    for _ in 0..2 {
        let progress = Arc::new(Progress::default());
        let source = std::io::Cursor::new(archive.clone());
        import(calls.clone(), source, PORTAL, progress.clone(), &scope)
            .await
            .unwrap();
        assert!(progress.files() > 300 && progress.bytes() > 2 << 20);
    }
    let written = Written::default();
    export(calls.clone(), PORTAL, written.clone(), Arc::default())
        .await
        .unwrap();
    let out = written.0.lock().unwrap().clone();
    let (expected, found) = (contents(&archive), contents(&out));
    let kinds =
        |all: &[(String, u32, u64, u8, Vec<u8>)]| all.iter().map(|each| (each.0.clone(), each.3)).collect::<Vec<_>>();
    assert_eq!(kinds(&found).len(), kinds(&expected).len());
    // Which of two names of one file comes first is the walk's choice.
    let is_twin = |path: &str| matches!(path, "large" | "twin");
    for (one, other) in expected.iter().zip(&found).filter(|(one, _)| !is_twin(&one.0)) {
        let is_link = one.3 == b'2';
        assert_eq!((&one.0, one.3, &one.4), (&other.0, other.3, &other.4));
        assert!(
            is_link || (one.1, one.2) == (other.1, other.2),
            "{}: mode and time",
            one.0
        );
    }
    let outside = {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    let refused = import(calls, std::io::Cursor::new(outside), PORTAL, Arc::default(), &scope).await;
    assert!(refused.unwrap_err().to_string().contains("leads out of it"));
    client.end().await;
    scope.stop(Duration::ZERO).await;
}
