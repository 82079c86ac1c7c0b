//! The load: at each door a writer whose calls must not happen twice, a rival for tickets that only one can have, and a reader that must
//! never see the past. What the writers were promised is the model that the files are compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bitrix_node::base::Scope;
use nfs3_types::nfs3::{nfs_fh3, nfsstat3};
use tokio::task::JoinHandle;

use super::client::Client;
use super::history::History;

/// Between two tickets, and between two looks of a reader: the writers shall have most of the machine.
const PAUSE: Duration = Duration::from_millis(15);
/// A file in so many is large.
const LARGE: u64 = 60;

/// Bytes that no other file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub seed: u64,
    pub length: usize,
}

impl Content {
    /// Of the `item`th file that the writer at `door` makes.
    fn of(door: usize, item: u64) -> Self {
        let seed = mix((door as u64) << 56 | item);
        let length = match item % LARGE {
            LARGE_AT => 1 << 20,
            _ => (seed % 16_384) as usize + 1,
        };
        Content { seed, length }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length + 8);
        for word in 0..self.length.div_ceil(8) as u64 {
            bytes.extend_from_slice(&mix(self.seed ^ word).to_be_bytes());
        }
        bytes.truncate(self.length);
        bytes
    }
}

const LARGE_AT: u64 = LARGE - 1;

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What must be there in the end, by path from the root.
#[derive(Default)]
pub struct Model {
    pub files: BTreeMap<String, Content>,
    pub folders: BTreeSet<String>,
    /// Counters and tickets: there, with this content.
    pub exact: BTreeMap<String, Vec<u8>>,
    /// What a violation left open: names that end so are not compared.
    pub open: BTreeSet<String>,
}

impl Model {
    pub fn merge(&mut self, other: Model) {
        self.files.extend(other.files);
        self.folders.extend(other.folders);
        self.exact.extend(other.exact);
        self.open.extend(other.open);
    }

    pub fn is_open(&self, path: &str) -> bool {
        self.open.iter().any(|open| path.starts_with(open.as_str()))
    }
}

/// The value of a counter as its writer and all readers know it.
#[derive(Default)]
struct Counter {
    /// Highest value that any reader saw or the writer was promised.
    floor: AtomicU64,
    /// Highest value that may be there.
    ceiling: AtomicU64,
}

struct Shared {
    history: Arc<History>,
    stop: AtomicBool,
    counters: Vec<Counter>,
}

/// Load that runs until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Option<Model>>>,
    _scope: Scope,
}

impl Load {
    /// At these doors; `round` tells its names from those of other loads.
    pub async fn start(doors: &[(usize, PathBuf)], round: &str, history: &Arc<History>) -> Self {
        let count = doors.iter().map(|(door, _)| door + 1).max().unwrap_or_default();
        let shared = Arc::new(Shared {
            history: history.clone(),
            stop: AtomicBool::new(false),
            counters: (0..count).map(|_| Counter::default()).collect(),
        });
        let scope = Scope::new();
        let client = |kind: &str, door: usize, socket: &PathBuf| {
            Client::new(format!("{round}-{kind}{door}"), door, socket.clone(), history.clone())
        };
        let (first, socket) = &doors[0];
        let mut opener = client("opener", *first, socket);
        let root = opener.mount().await;
        let tickets_name = format!("{round}-tickets");
        let tickets = opener.make_folder(&root, &tickets_name).await.unwrap();
        let mut counters = Vec::new();
        let mut folders = Vec::new();
        for (door, _) in doors {
            let folder = opener.make_folder(&root, &format!("{round}-{door}")).await.unwrap();
            let file = opener.create(&folder, "counter").await.unwrap();
            opener.write(&file, "counter", 0, &0_u64.to_be_bytes()).await.unwrap();
            counters.push((*door, file));
            folders.push(folder);
        }
        let mut tasks = Vec::new();
        for (at, (door, socket)) in doors.iter().enumerate() {
            let writer = Writer {
                client: client("writer", *door, socket),
                path: format!("{round}-{door}"),
                folder: folders[at].clone(),
                counter: counters[at].1.clone(),
                shared: shared.clone(),
                model: Model::default(),
            };
            tasks.push(scope.spawn(writer.run()));
            let rival = client("rival", *door, socket).patient();
            let (shared_too, place) = (shared.clone(), (tickets_name.clone(), tickets.clone()));
            let spare = folders[at].clone();
            tasks.push(scope.spawn(compete(rival, format!("{round}-{door}"), spare, place, shared_too)));
            let reader = client("reader", *door, socket);
            tasks.push(scope.spawn(watch(reader, counters.clone(), shared.clone())));
        }
        Load {
            shared,
            tasks,
            _scope: scope,
        }
    }

    /// Lets the calls under way end; what must be there now.
    pub async fn stop(self) -> Model {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut model = Model::default();
        for task in self.tasks {
            let part = task.await.expect("clients do not panic").expect("they are not cut off");
            model.merge(part);
        }
        model
    }
}

/// Not done, or not known to be.
enum Wrong {
    /// Answered as it must not be.
    Answer(String),
    /// The door does not know.
    Unknown,
}

fn must<T>(what: &str, item: u64, result: Result<T, nfsstat3>) -> Result<T, Wrong> {
    result.map_err(|status| match status {
        nfsstat3::NFS3ERR_IO => Wrong::Unknown,
        status => Wrong::Answer(format!("{what} of item {item}: {status}")),
    })
}

struct Writer {
    client: Client,
    path: String,
    folder: nfs_fh3,
    counter: nfs_fh3,
    shared: Arc<Shared>,
    model: Model,
}

impl Writer {
    async fn run(mut self) -> Model {
        let mut item = 0;
        self.model.folders.insert(self.path.clone());
        while !self.shared.stop.load(Ordering::Relaxed) {
            if let Err(wrong) = self.item(item).await {
                match wrong {
                    Wrong::Answer(what) => self.shared.history.violation(format!("{}: {what}", self.client.name)),
                    Wrong::Unknown => drop(self.shared.history.failed.fetch_add(1, Ordering::Relaxed)),
                }
                for kind in ["f", "r", "d"] {
                    self.model.open.insert(format!("{}/{kind}{item}.", self.path));
                }
            }
            item += 1;
        }
        self.model
    }

    /// A file's life: none of the calls would succeed twice, or leave the same.
    async fn item(&mut self, item: u64) -> Result<(), Wrong> {
        let name = format!("f{item}.");
        let content = Content::of(self.client.door, item);
        let file = must("CREATE", item, self.client.create(&self.folder.clone(), &name).await)?;
        let data = content.bytes();
        let (head, tail) = data.split_at(data.len() / 3);
        must("WRITE", item, self.client.write(&file, &name, 0, head).await)?;
        let changed = must(
            "WRITE",
            item,
            self.client.write(&file, &name, head.len() as u64, tail).await,
        )?;
        if item.is_multiple_of(3) {
            must(
                "SETATTR",
                item,
                self.client.set_mode(&file, &name, 0o640, changed).await,
            )?;
        }
        let name = match item % 5 {
            0 => self.carry(item, &name, &file).await?,
            _ => name,
        };
        self.model.files.insert(format!("{}/{name}", self.path), content);
        if item.is_multiple_of(7) && item > 20 {
            self.drop_old(item - 20).await?;
        }
        self.count(item + 1).await
    }

    /// Into a folder and out again, then under another name.
    async fn carry(&mut self, item: u64, name: &str, file: &nfs_fh3) -> Result<String, Wrong> {
        let (root, inner) = (self.folder.clone(), format!("d{item}."));
        let folder = must("MKDIR", item, self.client.make_folder(&root, &inner).await)?;
        must("LINK", item, self.client.link(file, &folder, "link").await)?;
        let links = must("GETATTR", item, self.client.attributes(file, name).await)?.nlink;
        if links != 2 {
            return Err(Wrong::Answer(format!("item {item} has {links} names, not 2")));
        }
        let renamed = format!("r{item}.");
        must("RENAME", item, self.client.rename(&root, name, &renamed).await)?;
        must("REMOVE", item, self.client.remove(&folder, "link").await)?;
        must("RMDIR", item, self.client.remove_folder(&root, &inner).await)?;
        Ok(renamed)
    }

    async fn drop_old(&mut self, item: u64) -> Result<(), Wrong> {
        let name = format!("{}{item}.", if item.is_multiple_of(5) { "r" } else { "f" });
        let path = format!("{}/{name}", self.path);
        // Not there: its own turn went wrong.
        if self.model.files.remove(&path).is_some() {
            self.model.open.insert(path.clone());
            must("REMOVE", item, self.client.remove(&self.folder.clone(), &name).await)?;
            self.model.open.remove(&path);
        }
        Ok(())
    }

    async fn count(&mut self, value: u64) -> Result<(), Wrong> {
        let counter = &self.shared.counters[self.client.door];
        counter.ceiling.store(value, Ordering::SeqCst);
        let file = self.counter.clone();
        must(
            "WRITE",
            value,
            self.client.write(&file, "counter", 0, &value.to_be_bytes()).await,
        )?;
        self.shared.counters[self.client.door]
            .floor
            .fetch_max(value, Ordering::SeqCst);
        self.model
            .exact
            .insert(format!("{}/counter", self.path), value.to_be_bytes().to_vec());
        Ok(())
    }
}

/// Takes tickets by LINK, as the registry publishes its versions: each number has one owner.
async fn compete(
    mut client: Client,
    path: String,
    folder: nfs_fh3,
    (tickets, place): (String, nfs_fh3),
    shared: Arc<Shared>,
) -> Model {
    let mut model = Model::default();
    let wrong = |what: String| shared.history.violation(format!("{path}: {what}"));
    let own = client.create(&folder, "ticket").await.expect("a new name");
    let id = client.attributes(&own, "ticket").await.expect("it was made").fileid;
    let text = path.clone().into_bytes();
    client.write(&own, "ticket", 0, &text).await.expect("it was made");
    model.folders.insert(tickets.clone());
    model.exact.insert(format!("{path}/ticket"), text.clone());
    let (mut next, mut owned) = (0, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let name = format!("v{next}");
        match client.link(&own, &place, &name).await {
            Ok(()) => {
                owned += 1;
                model.exact.insert(format!("{tickets}/{name}"), text.clone());
            }
            Err(nfsstat3::NFS3ERR_EXIST) => match client.look_up(&place, &name).await {
                Ok((_, found)) if found.fileid == id => wrong(format!("LINK {name} said EXIST, but had been done")),
                Ok(_) => {}
                Err(status) => wrong(format!("LINK {name} said EXIST, LOOKUP {status}")),
            },
            Err(nfsstat3::NFS3ERR_IO) => {
                shared.history.failed.fetch_add(1, Ordering::Relaxed);
                if let Ok((_, found)) = client.look_up(&place, &name).await
                    && found.fileid == id
                {
                    owned += 1;
                    model.exact.insert(format!("{tickets}/{name}"), text.clone());
                }
            }
            Err(status) => wrong(format!("LINK {name}: {status}")),
        }
        next += 1;
        tokio::time::sleep(PAUSE).await;
    }
    match client.attributes(&own, "ticket").await {
        Ok(found) if u64::from(found.nlink) == owned + 1 => {}
        Ok(found) => wrong(format!("{owned} tickets were won, but {} are held", found.nlink - 1)),
        Err(status) => wrong(format!("GETATTR: {status}")),
    }
    model
}

/// Reads counters over its own door: never less than was promised or seen before the call, never more than was written.
async fn watch(mut client: Client, counters: Vec<(usize, nfs_fh3)>, shared: Arc<Shared>) -> Model {
    let mut turn = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let (door, file) = &counters[turn % counters.len()];
        let counter = &shared.counters[*door];
        let floor = counter.floor.load(Ordering::SeqCst);
        match client.read(file, "counter", 0).await {
            Ok((bytes, _)) => {
                let seen = bytes.try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX);
                let ceiling = counter.ceiling.load(Ordering::SeqCst);
                if seen < floor || seen > ceiling {
                    let what = format!(
                        "{} read {seen} of {door}, which was in {floor}..={ceiling}",
                        client.name
                    );
                    shared.history.violation(what);
                }
                counter.floor.fetch_max(seen.min(ceiling), Ordering::SeqCst);
            }
            Err(status) => shared.history.violation(format!("{} READ: {status}", client.name)),
        }
        turn += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Model::default()
}
