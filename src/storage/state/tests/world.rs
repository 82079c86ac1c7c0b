//! A machine, its folder and disk, and short words for what tests do with them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::faulty::FaultyDisk;
use super::model::Model;
use crate::storage::call::{
    Attributes, Caller, Change, Changed, Creation, Entry, Error, Inode, Kind, Lock, LockFamily, Mutation, PORTAL,
    Query, Reply, Time,
};
use crate::storage::operation::{Operation, Place, Session};
use crate::storage::state::disk::{Disk, FoundKind, SystemDisk};
use crate::storage::state::{Failure, Machine};

pub const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

pub fn user(uid: u32) -> Caller {
    Caller {
        uid,
        gid: uid,
        groups: Vec::new(),
    }
}

/// In memory where there is such a place: SQLite syncs at each checkpoint.
pub fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Begins a session at a place of its own.
pub fn begin(session: Session, adopts: bool) -> Operation {
    Operation::Begin {
        session,
        place: Place(format!("node1/{}", session.0)),
        adopts,
    }
}

/// The machine with one session of root, numbering calls by itself.
pub struct World {
    pub machine: Option<Machine>,
    pub disk: Arc<dyn Disk>,
    pub faulty: Arc<FaultyDisk>,
    pub folder: TempDir,
    pub caller: Caller,
    pub session: Session,
    sequences: BTreeMap<Session, u64>,
    pub index: u64,
    fresh: u64,
    clock: i64,
}

impl World {
    /// On the disk in memory.
    pub fn new() -> Self {
        let faulty = Arc::new(FaultyDisk::default());
        World::on(faulty.clone(), faulty)
    }

    /// On the real one.
    pub fn real() -> Self {
        World::on(Arc::new(SystemDisk), Arc::default())
    }

    fn on(disk: Arc<dyn Disk>, faulty: Arc<FaultyDisk>) -> Self {
        let folder = temporary();
        let mut world = World {
            machine: Some(Machine::open(folder.path(), disk.clone()).unwrap()),
            disk,
            faulty,
            folder,
            caller: ROOT,
            session: Session(1),
            sequences: BTreeMap::new(),
            index: 0,
            fresh: 100,
            clock: 1_000,
        };
        world.begin(Session(1));
        world
    }

    pub fn machine(&self) -> &Machine {
        self.machine.as_ref().unwrap()
    }

    pub fn reopen(&mut self) {
        self.machine = None;
        self.machine = Some(Machine::open(self.folder.path(), self.disk.clone()).unwrap());
    }

    pub fn begin(&mut self, session: Session) {
        self.index += 1;
        let answers = self.machine().apply(self.index, &[begin(session, false)]).unwrap();
        assert!(matches!(answers[..], [Ok(Reply::Begun { .. })]), "{answers:?}");
    }

    pub fn end(&mut self, session: Session) {
        self.index += 1;
        self.machine().apply(self.index, &[Operation::End { session }]).unwrap();
    }

    pub fn operation(&mut self, mutation: Mutation) -> Operation {
        let sequence = self.sequences.entry(self.session).or_default();
        *sequence += 1;
        self.fresh += 1;
        self.clock += 1;
        Operation::Mutate {
            session: self.session,
            sequence: *sequence,
            acknowledged: sequence.saturating_sub(5),
            key: None,
            caller: self.caller.clone(),
            time: self.now(),
            fresh: Inode(self.fresh),
            mutation,
        }
    }

    pub fn now(&self) -> Time {
        Time {
            seconds: self.clock,
            nanoseconds: 7,
        }
    }

    pub fn call(&mut self, mutation: Mutation) -> Result<Reply, Error> {
        self.try_call(mutation).unwrap()
    }

    pub fn try_call(&mut self, mutation: Mutation) -> Result<Result<Reply, Error>, Failure> {
        let operation = self.operation(mutation);
        self.index += 1;
        let answers = self.machine().apply(self.index, &[operation]);
        if answers.is_err() {
            self.index -= 1;
        }
        Ok(answers?.remove(0))
    }

    pub fn ask(&self, query: Query) -> Result<Reply, Error> {
        self.machine().query(self.session, &self.caller, &query)
    }

    pub fn create(&mut self, folder: Inode, name: &str) -> Result<Inode, Error> {
        self.create_with(folder, name, Creation::Guarded, mode(0o644))
    }

    pub fn create_with(&mut self, folder: Inode, name: &str, how: Creation, change: Change) -> Result<Inode, Error> {
        made(self.call(Mutation::Create {
            folder,
            name: name.into(),
            how,
            change,
        }))
    }

    pub fn folder(&mut self, folder: Inode, name: &str, bits: u32) -> Result<Inode, Error> {
        made(self.call(Mutation::MakeFolder {
            folder,
            name: name.into(),
            change: mode(bits),
        }))
    }

    pub fn write(&mut self, inode: Inode, offset: u64, data: &[u8]) -> Result<Attributes, Error> {
        let data = Bytes::copy_from_slice(data);
        match self.call(Mutation::Write { inode, offset, data })? {
            Reply::Written { changed, .. } => Ok(changed.after),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn set(&mut self, inode: Inode, change: Change) -> Result<Attributes, Error> {
        let guard = None;
        match self.call(Mutation::Set { inode, change, guard })? {
            Reply::Set(changed) => Ok(changed.after),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn remove(&mut self, folder: Inode, name: &str) -> Result<(), Error> {
        let name = name.into();
        self.call(Mutation::Remove { folder, name }).map(drop)
    }

    pub fn rename(&mut self, (from, name): (Inode, &str), (to, new_name): (Inode, &str)) -> Result<(), Error> {
        self.call(Mutation::Rename {
            from,
            name: name.into(),
            to,
            new_name: new_name.into(),
        })
        .map(drop)
    }

    pub fn attributes(&self, inode: Inode) -> Result<Attributes, Error> {
        match self.ask(Query::Attributes { inode })? {
            Reply::Attributes(of) => Ok(of),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn look_up(&self, folder: Inode, name: &str) -> Result<Inode, Error> {
        let name = name.into();
        made(self.ask(Query::Lookup { folder, name }))
    }

    pub fn read(&self, inode: Inode, offset: u64, count: u32) -> Result<(Vec<u8>, bool), Error> {
        match self.ask(Query::Read { inode, offset, count })? {
            Reply::Data { data, is_end, .. } => Ok((data.to_vec(), is_end)),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn list(&self, folder: Inode, cookie: u64, limit: u32) -> Result<(Vec<Entry>, bool), Error> {
        match self.ask(Query::List { folder, cookie, limit })? {
            Reply::List { entries, is_end, .. } => Ok((entries, is_end)),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn mirror(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        walk(self.disk.as_ref(), &self.folder.path().join("tree"))
    }
}

pub fn mode(mode: u32) -> Change {
    Change {
        mode: Some(mode),
        ..Change::default()
    }
}

pub fn size(size: u64) -> Change {
    Change {
        size: Some(size),
        ..Change::default()
    }
}

fn made(answer: Result<Reply, Error>) -> Result<Inode, Error> {
    match answer? {
        Reply::Object { attributes, .. } => Ok(attributes.inode),
        other => panic!("unexpected {other:?}"),
    }
}

/// Everything below a folder: relative path and what is there (`None`: a folder).
pub fn walk(disk: &dyn Disk, root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        for (name, found) in disk.list(&root.join(&folder)).unwrap() {
            let path = folder.join(OsStr::from_bytes(&name));
            let full = root.join(&path);
            let what = match found.kind {
                FoundKind::Folder => {
                    left.push(path.clone());
                    None
                }
                FoundKind::Link => Some(disk.read_link(&full).unwrap()),
                _ => {
                    let mut content = vec![0; 1 << 17];
                    let count = disk.read_at(&full, 0, &mut content).unwrap();
                    content.truncate(count);
                    Some(content)
                }
            };
            all.insert(path, what);
        }
    }
    all
}

/// What the mirror of the model looks like.
fn wanted_mirror(model: &Model) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut left = vec![(PathBuf::new(), PORTAL.0)];
    while let Some((folder, inode)) = left.pop() {
        for (_, name, child) in &model.nodes[&inode].names {
            let path = folder.join(OsStr::from_bytes(name));
            let node = &model.nodes[child];
            match node.of.kind {
                Kind::Folder => {
                    left.push((path.clone(), *child));
                    all.insert(path, None);
                }
                Kind::File => {
                    all.insert(path, Some(node.bytes.clone()));
                }
                Kind::Link => {
                    all.insert(path, Some(node.target.clone()));
                }
                _ => {}
            }
        }
    }
    all
}

/// The mirror and the contents on the disk are exactly what the model says.
pub fn assert_same_files(disk: &dyn Disk, folder: &Path, model: &Model) {
    assert_eq!(walk(disk, &folder.join("tree")), wanted_mirror(model), "the mirror");
    let contents: BTreeMap<_, _> = walk(disk, &folder.join("data"))
        .into_iter()
        .filter_map(|(path, content)| Some((path.file_name()?.to_str()?.to_owned(), content?)))
        .collect();
    let files = model.nodes.values().filter(|node| node.of.kind == Kind::File);
    let wanted: BTreeMap<_, _> = files
        .map(|node| (node.of.inode.0.to_string(), node.bytes.clone()))
        .collect();
    assert_eq!(contents, wanted, "the contents");
}

/// Every query of root gives what the model has.
pub fn assert_same_state(machine: &Machine, model: &mut Model, highest: u64) {
    let ask = |query| machine.query(Session(99), &ROOT, &query).map(plain);
    for id in PORTAL.0..=highest {
        let inode = Inode(id);
        let Some(node) = model.nodes.get(&id).cloned() else {
            assert_eq!(ask(Query::Attributes { inode }), Err(Error::Stale), "inode {id}");
            continue;
        };
        assert_eq!(
            ask(Query::Attributes { inode }),
            Ok(plain(Reply::Attributes(node.of.clone())))
        );
        match node.of.kind {
            Kind::File => {
                let Ok(Reply::Data { data, is_end, .. }) = ask(Query::Read {
                    inode,
                    offset: 0,
                    count: 1 << 17,
                }) else {
                    panic!("inode {id} cannot be read")
                };
                assert!(is_end);
                assert_eq!(data, node.bytes, "content of inode {id}");
            }
            Kind::Folder => {
                let Ok(Reply::List { entries, is_end, .. }) = ask(Query::List {
                    folder: inode,
                    cookie: 0,
                    limit: 1000,
                }) else {
                    panic!("inode {id} cannot be listed")
                };
                assert!(is_end);
                let names: Vec<_> = entries
                    .into_iter()
                    .map(|entry| (entry.cookie, entry.name, entry.inode.0))
                    .collect();
                assert_eq!(names, node.names, "names of inode {id}");
            }
            Kind::Link => assert_eq!(ask(Query::ReadLink { inode }), Ok(Reply::Target(node.target))),
            _ => {}
        }
        for family in [LockFamily::Flock, LockFamily::Fcntl] {
            for start in 0..=super::model::CELLS {
                for is_exclusive in [false, true] {
                    let lock = Lock {
                        family,
                        owner: 0,
                        is_exclusive,
                        start,
                        end: start + 1,
                        pid: 0,
                    };
                    let is_locked = model.is_locked(99, id, &lock);
                    let Ok(Reply::Holder(holder)) = ask(Query::TestLock { inode, lock }) else {
                        panic!("the locks of inode {id} cannot be tested")
                    };
                    assert_eq!(holder.is_some(), is_locked, "byte {start} of inode {id}");
                }
            }
        }
    }
}

/// Without the generation numbers, which the model does not know.
pub fn plain(reply: Reply) -> Reply {
    let bare = |mut of: Attributes| {
        of.generation = 0;
        of
    };
    let both = |changed: Changed| Changed {
        before: bare(changed.before),
        after: bare(changed.after),
    };
    match reply {
        Reply::Attributes(of) => Reply::Attributes(bare(of)),
        Reply::Object { attributes, folder } => Reply::Object {
            attributes: bare(attributes),
            folder: folder.map(both),
        },
        Reply::Set(changed) => Reply::Set(both(changed)),
        Reply::Written { offset, changed } => Reply::Written {
            offset,
            changed: both(changed),
        },
        Reply::Removed { folder } => Reply::Removed { folder: both(folder) },
        Reply::Renamed { from, to } => Reply::Renamed {
            from: both(from),
            to: both(to),
        },
        Reply::Linked { attributes, folder } => Reply::Linked {
            attributes: bare(attributes),
            folder: both(folder),
        },
        other => other,
    }
}
