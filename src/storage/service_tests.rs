//! The storage as it really runs, on a disk, driven by an independent NFS client: stopped, killed, started again.
//! A kill here ends all tasks where they stand, without any closing step; what was written stays, as after `kill -9`.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::service::Storage;
use crate::base::service::{NamedSocket, Socket};
use crate::base::{Cx, Health, Scope, Service};
use crate::config;

/// No step takes longer on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

type Client = Nfs3Client<TokioIo<UnixStream>>;
type Ended = JoinHandle<Option<anyhow::Result<()>>>;

/// A folder, and the storage that runs in it on threads of its own.
struct World {
    folder: TempDir,
    running: Option<(Runtime, Scope, Arc<Storage>, Ended)>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        World { folder, running: None }
    }

    fn started() -> Self {
        let mut world = Self::new();
        world.start();
        world
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("nfs.sock")
    }

    fn start(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let unix = UnixListener::bind(self.socket()).unwrap();
        self.start_on("nfs-unix", Socket::Unix(unix));
    }

    fn start_on(&mut self, name: &str, socket: Socket) {
        let text = format!("[node]\ndata_dir = {:?}", self.folder.path());
        let loaded = config::parse(&text, std::iter::empty()).unwrap();
        let storage = Arc::new(Storage::new(&loaded.config));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let scope = Scope::new();
        let cx = Cx {
            scope: scope.clone(),
            sockets: vec![NamedSocket {
                name: name.into(),
                socket,
            }],
        };
        let ended = {
            let _entered = runtime.enter();
            let storage = storage.clone();
            scope.spawn(async move { storage.run(cx).await })
        };
        self.running = Some((runtime, scope, storage, ended));
    }

    /// Waits for a storage that drains, or that fails by itself.
    async fn end(&mut self) -> anyhow::Result<()> {
        let (runtime, _, _, ended) = self.running.take().unwrap();
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
        runtime.shutdown_background();
        ended.unwrap().expect("it was not killed")
    }

    async fn stop(&mut self) {
        self.running.as_ref().unwrap().1.drain();
        self.end().await.unwrap();
    }

    fn kill(&mut self) {
        let (runtime, ..) = self.running.take().unwrap();
        runtime.shutdown_background();
    }

    async fn connect(&self) -> TokioIo<UnixStream> {
        TokioIo::new(UnixStream::connect(self.socket()).await.unwrap())
    }

    async fn client(&self) -> Client {
        let credential = opaque_auth::auth_unix(&auth_unix::default());
        Nfs3Client::new_with_auth(self.connect().await, credential, opaque_auth::default())
    }

    async fn root(&self) -> nfs_fh3 {
        let mut client = MountClient::new(self.connect().await);
        let path = dirpath(Opaque::borrowed(b"/portal"));
        let mounted = tokio::time::timeout(PATIENCE, client.mnt(path)).await;
        nfs_fh3 {
            data: mounted.expect("it serves").unwrap().fhandle.0,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

fn at<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 {
        dir: dir.clone(),
        name: filename3::from(name.as_bytes()),
    }
}

async fn create(client: &mut Client, dir: &nfs_fh3, name: &str) -> nfs_fh3 {
    let args = CREATE3args {
        where_: at(dir, name),
        how: createhow3::GUARDED(sattr3::default()),
    };
    client.create(&args).await.unwrap().unwrap().obj.unwrap()
}

async fn write(client: &mut Client, file: &nfs_fh3, data: &[u8]) -> WRITE3resok {
    let args = WRITE3args {
        file: file.clone(),
        offset: 0,
        count: data.len() as u32,
        stable: stable_how::UNSTABLE,
        data: Opaque::borrowed(data),
    };
    client.write(&args).await.unwrap().unwrap()
}

async fn read(client: &mut Client, file: &nfs_fh3) -> Vec<u8> {
    let args = READ3args {
        file: file.clone(),
        offset: 0,
        count: 1 << 20,
    };
    let found = client.read(&args).await.unwrap().unwrap();
    assert!(found.eof);
    found.data.as_ref().to_vec()
}

async fn lookup(client: &mut Client, dir: &nfs_fh3, name: &str) -> Option<nfs_fh3> {
    match client.lookup(&LOOKUP3args { what: at(dir, name) }).await.unwrap() {
        Nfs3Result::Ok(found) => Some(found.object),
        Nfs3Result::Err((nfsstat3::NFS3ERR_NOENT, _)) => None,
        Nfs3Result::Err((status, _)) => panic!("{name}: {status}"),
    }
}

async fn link(client: &mut Client, file: &nfs_fh3, dir: &nfs_fh3, name: &str) -> Result<(), nfsstat3> {
    let args = LINK3args {
        file: file.clone(),
        link: at(dir, name),
    };
    match client.link(&args).await.unwrap() {
        Nfs3Result::Ok(_) => Ok(()),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

async fn rename(client: &mut Client, dir: &nfs_fh3, from: &str, to: &str) {
    let args = RENAME3args {
        from: at(dir, from),
        to: at(dir, to),
    };
    client.rename(&args).await.unwrap().unwrap();
}

async fn remove(client: &mut Client, dir: &nfs_fh3, name: &str) {
    let object = at(dir, name);
    client.remove(&REMOVE3args { object }).await.unwrap().unwrap();
}

/// Names in a small folder, in order.
async fn names(client: &mut Client, dir: &nfs_fh3) -> Vec<String> {
    let args = READDIR3args {
        dir: dir.clone(),
        cookie: 0,
        cookieverf: cookieverf3::default(),
        count: 64 << 10,
    };
    let found = client.readdir(&args).await.unwrap().unwrap();
    assert!(found.reply.eof);
    let names = found.reply.entries.into_inner().into_iter();
    let names = names.map(|entry| String::from_utf8(entry.name.as_ref().to_vec()).unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_and_handles_outlive_a_stop_and_kills() {
    let mut world = World::started();
    let (root, mut client) = (world.root().await, world.client().await);
    let large: Vec<u8> = (0..1 << 20).map(|index: u32| (index >> 3) as u8).collect();
    let one = create(&mut client, &root, "one").await;
    let written = write(&mut client, &one, &large).await;
    assert_eq!(
        (written.count, written.committed),
        (1 << 20, stable_how::FILE_SYNC),
        "acknowledged is durable"
    );
    let two = create(&mut client, &root, "two").await;
    write(&mut client, &two, b"second").await;
    link(&mut client, &one, &root, "link").await.unwrap();
    rename(&mut client, &root, "two", "moved").await;
    create(&mut client, &root, "gone").await;
    remove(&mut client, &root, "gone").await;
    let expected = ["link", "moved", "one"];
    assert_eq!(names(&mut client, &root).await, expected);

    world.stop().await;
    world.start();
    assert_eq!(world.root().await, root, "one handle for all time");
    let mut client = world.client().await;
    assert_eq!(names(&mut client, &root).await, expected);
    assert!(read(&mut client, &one).await == large);
    // Behind the checkpoint of the stop: only in the log when the process dies.
    // More than one transaction, too.
    for number in 0..12 {
        let file = create(&mut client, &root, "part").await;
        write(&mut client, &file, &large[number..]).await;
        remove(&mut client, &root, "part").await;
    }
    write(&mut client, &two, b"third!").await;
    rename(&mut client, &root, "moved", "one").await;

    let mut verifiers = vec![written.verf];
    for _ in 0..2 {
        world.kill();
        world.start();
        assert_eq!(world.root().await, root);
        let mut client = world.client().await;
        // What was written and not committed stays, but nobody has to rely on that.
        let verifier = write(&mut client, &two, b"third!").await.verf;
        assert!(!verifiers.contains(&verifier), "another process has another verifier");
        verifiers.push(verifier);
        assert_eq!(names(&mut client, &root).await, ["link", "one"]);
        assert_eq!(read(&mut client, &two).await, b"third!");
        assert!(read(&mut client, &one).await == large);
        assert_eq!(lookup(&mut client, &root, "one").await, Some(two.clone()));
    }
    world.stop().await;
}

#[tokio::test]
async fn every_acknowledged_file_survives_kills_under_load() {
    let mut world = World::started();
    let root = world.root().await;
    let mut made = Vec::new();
    for round in 0..3 {
        let mut client = world.client().await;
        for number in 0..40 {
            let name = format!("{round}-{number}");
            let file = create(&mut client, &root, &name).await;
            write(&mut client, &file, name.as_bytes()).await;
            made.push((name, file));
        }
        // One more is under way when it dies: it may be there or not.
        let last = format!("{round}-last");
        let (mut other, stranger) = (world.client().await, root.clone());
        let half = async { create(&mut other, &stranger, &last).await };
        let _ = tokio::time::timeout(Duration::from_millis(1), half).await;
        world.kill();
        world.start();
        assert_eq!(world.root().await, root);
    }
    let mut client = world.client().await;
    for (name, file) in made {
        assert_eq!(lookup(&mut client, &root, &name).await, Some(file.clone()), "{name}");
        assert_eq!(read(&mut client, &file).await, name.as_bytes());
    }
    // Numbers of files go on above all that were given.
    let file = create(&mut client, &root, "new").await;
    assert!(read(&mut client, &file).await.is_empty());
}

#[tokio::test]
async fn exclusive_creation_is_repeatable_also_after_a_kill() {
    let mut world = World::started();
    let root = world.root().await;
    let exclusive = |verifier| CREATE3args {
        where_: at(&root, "file"),
        how: createhow3::EXCLUSIVE(createverf3([verifier; 8])),
    };
    let mut client = world.client().await;
    let first = client.create(&exclusive(7)).await.unwrap().unwrap().obj.unwrap();
    assert_eq!(client.create(&exclusive(7)).await.unwrap().unwrap().obj.unwrap(), first);
    world.kill();
    world.start();
    let mut client = world.client().await;
    assert_eq!(client.create(&exclusive(7)).await.unwrap().unwrap().obj.unwrap(), first);
    match client.create(&exclusive(8)).await.unwrap() {
        Nfs3Result::Err((status, _)) => assert_eq!(status, nfsstat3::NFS3ERR_EXIST),
        Nfs3Result::Ok(_) => panic!("another client's file was taken"),
    }
}

#[tokio::test]
async fn of_two_racing_links_exactly_one_wins() {
    let world = World::started();
    let root = world.root().await;
    let (mut one, mut two) = (world.client().await, world.client().await);
    for round in 0..20 {
        let mine = create(&mut one, &root, &format!("one-{round}")).await;
        let other = create(&mut two, &root, &format!("two-{round}")).await;
        let name = format!("v{round}");
        let (first, second) = tokio::join!(
            link(&mut one, &mine, &root, &name),
            link(&mut two, &other, &root, &name)
        );
        let winner = match (first, second) {
            (Ok(()), Err(nfsstat3::NFS3ERR_EXIST)) => mine,
            (Err(nfsstat3::NFS3ERR_EXIST), Ok(())) => other,
            both => panic!("{both:?}"),
        };
        assert_eq!(lookup(&mut one, &root, &name).await, Some(winner));
    }
}

#[tokio::test]
async fn the_tcp_socket_serves_and_the_status_says_how_much() {
    let mut world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    world.start_on("nfs", Socket::Tcp(listener));
    let mut client = Nfs3Client::new(TokioIo::new(TcpStream::connect(address).await.unwrap()));
    client.null().await.unwrap();
    let storage = world.running.as_ref().unwrap().2.clone();
    let good = async {
        while storage.status().health != Health::Good {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, good).await.expect("it is good at last");
    let detail = storage.status().detail;
    assert!(detail.starts_with("leads, 1 copy, log "), "{detail}");
}

#[tokio::test]
async fn a_store_of_which_a_part_is_gone_is_refused() {
    for part in ["log", "state", "charter.json"] {
        let mut world = World::started();
        let root = world.root().await;
        create(&mut world.client().await, &root, "file").await;
        world.stop().await;
        let storage = world.folder.path().join("storage");
        std::fs::rename(storage.join(part), world.folder.path().join("aside")).unwrap();
        world.start();
        let error = format!("{:#}", world.end().await.unwrap_err());
        assert!(error.contains(part), "{part}: {error}");
        // Put back, all is well. A refusal must not have left anything in its place that hides it.
        let _ = std::fs::remove_dir_all(storage.join(part));
        std::fs::rename(world.folder.path().join("aside"), storage.join(part)).unwrap();
        world.start();
        assert_eq!(world.root().await, root);
        assert!(lookup(&mut world.client().await, &root, "file").await.is_some());
    }
}
