//! One kind of load on one NFSv3 server, through an independent client. `storage.py` drives it; it prints the rate and for how many
//! seconds it lasted: what was begun is finished.
//!
//! ```text
//! storage_load ADDRESS PORT MOUNT_PORT EXPORT CASE CONNECTIONS SECONDS [FILES]
//! ```
//! Each connection has one call under way. `prepare` must come first. Rates are per second; `write` and `read` are in MB/s.
// Tasks end with the process, which has one load.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;

type Client = Nfs3Client<TokioIo<TcpStream>>;

/// Small files that LOOKUP, GETATTR and small reads use.
const FILES: u64 = 1000;
/// Names in the folder that is listed.
const NAMES: u64 = 10_000;
const SMALL: usize = 4096;
/// Largest READ and WRITE of both servers.
const CHUNK: usize = 1 << 20;
/// Length of the large file.
const LARGE: u64 = 128 << 20;
/// Data that one connection writes before its COMMIT.
const WRITTEN: u64 = 64 << 20;
/// Only from below here a server believes who calls.
const PORTS: std::ops::Range<u16> = 300..1023;

struct Target {
    server: SocketAddr,
    mount: SocketAddr,
    export: String,
}

#[derive(Clone)]
struct Place {
    target: Arc<Target>,
    root: nfs_fh3,
}

async fn connect(address: SocketAddr) -> TokioIo<TcpStream> {
    for port in PORTS.rev() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.set_nodelay(true).unwrap();
        if socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).is_err() {
            continue;
        }
        // EADDRNOTAVAIL: the port still waits from an earlier connection to this server.
        if let Ok(stream) = socket.connect(address).await {
            return TokioIo::new(stream);
        }
    }
    panic!("no connection to {address} from a privileged port");
}

fn root_credential() -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix::default())
}

impl Place {
    async fn mount(target: Target) -> Self {
        let mut client =
            MountClient::new_with_auth(connect(target.mount).await, root_credential(), opaque_auth::default());
        let path = dirpath(Opaque::borrowed(target.export.as_bytes()));
        let mounted = client.mnt(path).await.unwrap();
        let data = mounted.fhandle.0;
        let root = nfs_fh3 {
            data: Opaque::owned(data.into_owned()),
        };
        let target = Arc::new(target);
        Place { target, root }
    }

    async fn client(&self) -> Client {
        Nfs3Client::new_with_auth(
            connect(self.target.server).await,
            root_credential(),
            opaque_auth::default(),
        )
    }
}

fn at<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 {
        dir: dir.clone(),
        name: filename3::from(name.as_bytes()),
    }
}

async fn find(client: &mut Client, dir: &nfs_fh3, name: &str) -> nfs_fh3 {
    let what = at(dir, name);
    client.lookup(&LOOKUP3args { what }).await.unwrap().unwrap().object
}

/// A folder; it may be there.
async fn folder(client: &mut Client, dir: &nfs_fh3, name: &str) -> nfs_fh3 {
    let attributes = sattr3 {
        mode: Nfs3Option::Some(0o755),
        ..sattr3::default()
    };
    let where_ = at(dir, name);
    let made = client.mkdir(&MKDIR3args { where_, attributes }).await.unwrap();
    match made {
        Nfs3Result::Ok(made) => made.obj.unwrap(),
        Nfs3Result::Err((nfsstat3::NFS3ERR_EXIST, _)) => find(client, dir, name).await,
        Nfs3Result::Err((status, _)) => panic!("{name}: {status}"),
    }
}

async fn create(client: &mut Client, dir: &nfs_fh3, name: &str) -> nfs_fh3 {
    let how = createhow3::UNCHECKED(sattr3 {
        mode: Nfs3Option::Some(0o644),
        ..sattr3::default()
    });
    let where_ = at(dir, name);
    let made = client.create(&CREATE3args { where_, how }).await.unwrap().unwrap();
    made.obj.unwrap()
}

async fn write(client: &mut Client, file: &nfs_fh3, offset: u64, data: &[u8], stable: stable_how) {
    let args = WRITE3args {
        file: file.clone(),
        offset,
        count: data.len() as u32,
        stable,
        data: Opaque::borrowed(data),
    };
    let written = client.write(&args).await.unwrap().unwrap();
    assert_eq!(written.count as usize, data.len());
}

async fn commit(client: &mut Client, file: &nfs_fh3) {
    let args = COMMIT3args {
        file: file.clone(),
        offset: 0,
        count: 0,
    };
    client.commit(&args).await.unwrap().unwrap();
}

async fn read(client: &mut Client, file: &nfs_fh3, offset: u64, count: usize) -> usize {
    let args = READ3args {
        file: file.clone(),
        offset,
        count: count as u32,
    };
    client.read(&args).await.unwrap().unwrap().count as usize
}

async fn write_whole(client: &mut Client, file: &nfs_fh3, length: u64) {
    let data = vec![0x5a; CHUNK];
    for offset in (0..length).step_by(CHUNK) {
        write(client, file, offset, &data, stable_how::UNSTABLE).await;
    }
    commit(client, file).await;
}

/// Names of the folder, by READDIRPLUS in pieces.
async fn list(client: &mut Client, dir: &nfs_fh3) -> usize {
    let (mut cookie, mut cookieverf, mut count) = (0, cookieverf3::default(), 0);
    loop {
        let args = READDIRPLUS3args {
            dir: dir.clone(),
            cookie,
            cookieverf,
            dircount: 64 << 10,
            maxcount: 256 << 10,
        };
        let page = client.readdirplus(&args).await.unwrap().unwrap();
        cookieverf = page.cookieverf;
        count += page.reply.entries.0.len();
        match page.reply.entries.0.last() {
            Some(last) if !page.reply.eof => cookie = last.cookie,
            _ => return count,
        }
    }
}

/// A cheap sequence of numbers without order.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

async fn prepare(place: &Place) {
    let mut client = place.client().await;
    let small = folder(&mut client, &place.root, "small").await;
    let names = folder(&mut client, &place.root, "names").await;
    folder(&mut client, &place.root, "new").await;
    for number in 0..FILES {
        let file = create(&mut client, &small, &format!("file{number}")).await;
        write(&mut client, &file, 0, &[1; SMALL], stable_how::UNSTABLE).await;
    }
    let large = create(&mut client, &place.root, "large").await;
    write_whole(&mut client, &large, LARGE).await;
    let workers = (0..16).map(|part| {
        let (place, names) = (place.clone(), names.clone());
        tokio::spawn(async move {
            let mut client = place.client().await;
            for number in (part..NAMES).step_by(16) {
                create(&mut client, &names, &format!("name{number}")).await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

/// Fills the tree with files in folders of 1000.
async fn fill(place: &Place, files: u64) {
    let workers = (0..16).map(|part| {
        let place = place.clone();
        tokio::spawn(async move {
            let mut client = place.client().await;
            let base = folder(&mut client, &place.root, "fill").await;
            for group in (part..files / 1000).step_by(16) {
                let dir = folder(&mut client, &base, &format!("group{group}")).await;
                for number in 0..1000 {
                    create(&mut client, &dir, &format!("file{number}.php")).await;
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

/// One connection for so long, once all are ready; returns how much was done, in the case's unit, and when that was.
async fn load(place: Place, case: String, number: u64, (ready, lasts): (Arc<Barrier>, Duration)) -> (f64, Instant) {
    let mut client = place.client().await;
    let small = find(&mut client, &place.root, "small").await;
    let mut numbers = Numbers(number + std::process::id() as u64);
    let mut done = 0.0;
    let mut handles = Vec::new();
    for file in 0..FILES / 10 {
        handles.push(find(&mut client, &small, &format!("file{file}")).await);
    }
    let large = find(&mut client, &place.root, "large").await;
    let names = find(&mut client, &place.root, "names").await;
    let new = find(&mut client, &place.root, "new").await;
    let new = folder(&mut client, &new, &format!("{}-{number}", std::process::id())).await;
    let mut turn = 0_u64;
    ready.wait().await;
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        turn += 1;
        done += match case.as_str() {
            "getattr" => {
                let object = handles[numbers.below(handles.len() as u64) as usize].clone();
                client.getattr(&GETATTR3args { object }).await.unwrap().unwrap();
                1.0
            }
            "lookup" => {
                find(&mut client, &small, &format!("file{}", numbers.below(FILES))).await;
                1.0
            }
            "create" => {
                let file = create(&mut client, &new, &format!("file{turn}")).await;
                write(&mut client, &file, 0, &[7; 1024], stable_how::UNSTABLE).await;
                commit(&mut client, &file).await;
                1.0
            }
            "read4k" => {
                let offset = numbers.below(LARGE / SMALL as u64) * SMALL as u64;
                assert_eq!(read(&mut client, &large, offset, SMALL).await, SMALL);
                1.0
            }
            "read" => {
                let offset = turn * CHUNK as u64 % LARGE;
                assert_eq!(read(&mut client, &large, offset, CHUNK).await, CHUNK);
                1.048_576
            }
            "write" => {
                let file = create(&mut client, &new, &format!("large{}", turn % 2)).await;
                write_whole(&mut client, &file, WRITTEN).await;
                WRITTEN as f64 / 1e6
            }
            "list" => {
                assert!(list(&mut client, &names).await as u64 >= NAMES);
                1.0
            }
            other => panic!("no case {other}"),
        };
    }
    let ended = Instant::now();
    if case == "write" {
        // Gigabytes in each round, and on each copy.
        for large in 0..turn.min(2) {
            let name = format!("large{}", 1 - large);
            let object = at(&new, &name);
            let _ = client.remove(&REMOVE3args { object }).await.unwrap();
        }
    }
    (done, ended)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo bench` adds a word of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [address, port, mount_port, export, case, connections, seconds, rest @ ..] = &words[..] else {
        return println!("storage_load ADDRESS PORT MOUNT_PORT EXPORT CASE CONNECTIONS SECONDS [FILES]");
    };
    let at = |port: &str| SocketAddr::new(address.parse().unwrap(), port.parse().unwrap());
    let target = Target {
        server: at(port),
        mount: at(mount_port),
        export: export.clone(),
    };
    let place = Place::mount(target).await;
    match case.as_str() {
        "prepare" => return prepare(&place).await,
        "fill" => return fill(&place, rest[0].parse().unwrap()).await,
        _ => {}
    }
    let lasts = Duration::from_secs_f64(seconds.parse().unwrap());
    let connections: u64 = connections.parse().unwrap();
    let ready = Arc::new(Barrier::new(connections as usize + 1));
    let workers: Vec<_> = (0..connections)
        .map(|number| tokio::spawn(load(place.clone(), case.clone(), number, (ready.clone(), lasts))))
        .collect();
    ready.wait().await;
    let started = Instant::now();
    let (mut done, mut ended) = (0.0, started);
    for worker in workers {
        let (by_one, at) = worker.await.unwrap();
        done += by_one;
        ended = ended.max(at);
    }
    let lasted = (ended - started).as_secs_f64();
    println!("{:.1} {lasted:.3}", done / lasted);
}
