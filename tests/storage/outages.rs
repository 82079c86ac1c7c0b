//! What three copies must outlive: two machines lost at once, no majority for long, power lost everywhere, a full disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::check;
use nix::sys::signal::Signal;

use super::client::Client;
use super::cluster::Cluster;
use super::history::{History, distribution};
use super::rounds::{conclude, summary};
use super::workload::{Content, Load, Model};

/// Until a leader that lost its majority must have fallen silent: its lease is shorter, and calls are on their way.
const SILENT: Duration = Duration::from_secs(2);
/// A leader goes on without a replica that was silent for 2 s; this is less, so it must wait for the frozen one.
const FROZEN: Duration = Duration::from_millis(800);
/// How long a majority is missing.
const OUTAGE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);
/// A machine's disk: the reserve of the storage, its segments, and room for the load.
const DISK: u64 = 1500;
/// More than a replica has prepared room for in its log.
const UPLOAD: usize = 96 << 20;
const PIECE: usize = 1 << 20;
/// What a replica says when it finds no room.
const FULL: &str = "the disk is full";
/// Below the storage's reserve of 512 MiB, and enough to go on.
const NEARLY_FULL: u64 = 300 << 20;

fn doors(cluster: &Cluster) -> Vec<(usize, PathBuf)> {
    cluster
        .machines
        .iter()
        .map(|machine| machine.door())
        .enumerate()
        .collect()
}

/// Whether a replica's folder holds these bytes, in its log or among its files.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    let finder = memchr::memmem::Finder::new(bytes);
    let (mut folders, mut is_there) = (vec![folder.to_owned()], false);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let found = std::fs::read(entry.path()).unwrap_or_default();
                    is_there |= finder.find(&found).is_some();
                }
                _ => {}
            }
        }
    }
    is_there
}

/// Uploads over a machine's door, kills the two others with the acknowledgement, and looks into the survivor's files. A follower
/// that shall survive is frozen when the upload begins, so that the two others have it long before.
pub async fn survivor(turns: usize) {
    let mut cluster = Cluster::start(None).await;
    let history = Arc::new(History::new());
    let mut model = Model::default();
    for turn in 0..turns {
        let (leader, _) = cluster.whole().await;
        // Leader, follower, other follower in turn; the upload goes over a machine that dies.
        let survivor = (leader + turn) % 3;
        let door = (survivor + 1) % 3;
        let mut client = Client::new(
            format!("upload{turn}"),
            door,
            cluster.machines[door].door(),
            history.clone(),
        );
        let root = client.mount().await;
        let name = format!("upload{turn}");
        let content = Content {
            seed: turn as u64,
            length: 200_000,
        };
        let bytes = content.bytes();
        let file = client.create(&root, &name).await.unwrap();
        assert!(!holds(&cluster.machines[survivor].storage(), &bytes), "not yet");
        let is_frozen = survivor != leader;
        if is_frozen {
            cluster.machines[survivor].signal(Signal::SIGSTOP);
        }
        let thaw = async {
            tokio::time::sleep(FROZEN).await;
            if is_frozen {
                cluster.machines[survivor].signal(Signal::SIGCONT);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            written = client.write(&file, &name, 0, &bytes) => drop(written.unwrap()),
            () = thaw => {}
        }
        for other in (0..3).filter(|other| *other != survivor) {
            cluster.machines[other].kill();
        }
        if !holds(&cluster.machines[survivor].storage(), &bytes) {
            history.violation(format!("upload {turn} is not on the machine that survived"));
        }
        model.files.insert(name, content);
        // It must not depend on the process that got it either.
        cluster.machines[survivor].kill();
        cluster.machines.iter_mut().for_each(|machine| machine.start());
    }
    cluster.whole().await;
    check::everything(&cluster, &model, &history).await;
    conclude(&cluster, &history);
}

/// Two of three are gone for half a minute, under load.
pub async fn no_majority() {
    let mut cluster = Cluster::start(None).await;
    let history = Arc::new(History::new());
    let load = Load::start(&doors(&cluster), "outage", &history).await;
    tokio::time::sleep(SECOND).await;
    let (leader, _) = cluster.whole().await;
    for other in (0..3).filter(|other| *other != leader) {
        cluster.machines[other].kill();
    }
    let lost = history.now();
    tokio::time::sleep(OUTAGE).await;
    let back = history.now();
    for other in (0..3).filter(|other| *other != leader) {
        cluster.machines[other].start();
    }
    cluster.whole().await;
    let whole = history.now();
    tokio::time::sleep(SECOND).await;
    let model = load.stop().await;
    let is_alone = |call: &&super::history::Call| call.start > lost + SILENT && call.end < back;
    let answered = history.lock().iter().filter(is_alone).cloned().collect::<Vec<_>>();
    if let Some(call) = answered.first() {
        history.violation(format!(
            "{} calls were answered without a majority, such as {call:?}",
            answered.len()
        ));
    }
    println!(
        "without a majority for {} s, whole again after {} ms; waits, ms: {}",
        OUTAGE.as_secs(),
        (whole - back).as_millis(),
        distribution(&history.stalls(&[leader], lost, whole))
    );
    finish(&cluster, &model, &history).await;
}

/// A follower is cut off for longer than the leader keeps its session. What was under way at its door may be unknown then, and
/// is said to be; everything else goes on.
pub async fn long_cut() {
    let cluster = Cluster::start(None).await;
    let history = Arc::new(History::new());
    let load = Load::start(&doors(&cluster), "cut", &history).await;
    tokio::time::sleep(SECOND).await;
    let (leader, _) = cluster.whole().await;
    let at = (leader + 1) % 3;
    cluster.host(at).cut(true);
    tokio::time::sleep(OUTAGE + OUTAGE / 3).await;
    cluster.host(at).cut(false);
    let back = history.now();
    let written = || history.changes(&[at], back, history.now()) > 10;
    cluster
        .until("its door serves again", async || written().then_some(()))
        .await;
    println!("its door served again after {} ms", (history.now() - back).as_millis());
    cluster.whole().await;
    let model = load.stop().await;
    println!("{} calls of unknown outcome", history.unknown());
    // One writer and one rival were at that door, with a call each.
    if history.unknown() > 2 {
        history.violation(format!("{} calls of unknown outcome", history.unknown()));
    }
    finish(&cluster, &model, &history).await;
}

/// All machines lose power at once, again and again.
pub async fn power_loss(turns: usize) {
    let mut cluster = Cluster::start(None).await;
    let history = Arc::new(History::new());
    let load = Load::start(&doors(&cluster), "power", &history).await;
    let mut starts = Vec::new();
    for _ in 0..turns {
        tokio::time::sleep(3 * SECOND).await;
        for at in 0..3 {
            cluster.machines[at].kill();
            cluster.machines[at].close();
        }
        let lost = history.now();
        for at in 0..3 {
            cluster.reopen(at);
            cluster.machines[at].start();
        }
        cluster.whole().await;
        starts.push(history.now() - lost);
    }
    tokio::time::sleep(SECOND).await;
    let model = load.stop().await;
    println!(
        "power lost {turns} times; until whole again, ms: {}",
        distribution(&starts)
    );
    finish(&cluster, &model, &history).await;
}

/// The disk of a follower, then of the leader, gets full under load: nearly, and to the last byte.
pub async fn full_disk() {
    let mut cluster = Cluster::start(Some(DISK)).await;
    let history = Arc::new(History::new());
    let load = Load::start(&doors(&cluster), "full", &history).await;
    let (leader, _) = cluster.whole().await;
    let follower = (leader + 1) % 3;
    let door = cluster.machines[leader].door();
    let mut client = Client::new("upload".into(), leader, door, history.clone());
    let filled = fill(&mut cluster, follower, 0, &history, "follower, to the last byte");
    let ((), uploaded) = tokio::join!(filled, upload(&mut client));
    if !cluster.machines[follower].log().contains(FULL) {
        history.violation("the follower did not notice its full disk".into());
    }
    if history.refusals() > 0 {
        history.violation("a follower's full disk was told to clients".into());
    }
    let (leader, _) = cluster.whole().await;
    fill(&mut cluster, leader, NEARLY_FULL, &history, "leader, nearly").await;
    if history.refusals() == 0 {
        history.violation("the leader's disk was nearly full and took all".into());
    }
    let (leader, _) = cluster.whole().await;
    fill(&mut cluster, leader, 0, &history, "leader, to the last byte").await;
    let before = history.now();
    let written = || history.changes(&[0, 1, 2], before, history.now()) > 0;
    cluster
        .until("files are written again", async || written().then_some(()))
        .await;
    println!("written again after {} ms", (history.now() - before).as_millis());
    let mut model = load.stop().await;
    model.files.insert("upload".into(), uploaded);
    finish(&cluster, &model, &history).await;
}

async fn upload(client: &mut Client) -> Content {
    let content = Content {
        seed: 1,
        length: UPLOAD,
    };
    let root = client.mount().await;
    let file = client.create(&root, "upload").await.unwrap();
    for (piece, data) in content.bytes().chunks(PIECE).enumerate() {
        let offset = (piece * PIECE) as u64;
        client.write(&file, "upload", offset, data).await.unwrap();
    }
    content
}

async fn fill(cluster: &mut Cluster, at: usize, rest: u64, history: &History, what: &str) {
    let others: Vec<_> = (0..3).filter(|other| *other != at).collect();
    let (start, refusals) = (history.now(), history.refusals());
    cluster.disks[at].fill(rest);
    let mut revived = 0;
    for _ in 0..15 {
        tokio::time::sleep(SECOND).await;
        revived += usize::from(cluster.machines[at].revive());
    }
    let end = history.now();
    cluster.disks[at].clear();
    cluster.machines[at].revive();
    cluster.whole().await;
    println!(
        "full disk of {what}: {} changes elsewhere, {} refused, ended {revived} times, whole {} ms after there was room",
        history.changes(&others, start, end),
        history.refusals() - refusals,
        (history.now() - end).as_millis()
    );
}

async fn finish(cluster: &Cluster, model: &Model, history: &Arc<History>) {
    check::everything(cluster, model, history).await;
    summary(history);
    conclude(cluster, history);
}
