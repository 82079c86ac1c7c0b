//! A state in memory behind `Calls`: one machine, no log. It ignores request keys, so that what is executed twice shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;

use crate::base::service::BoxFuture;
use crate::storage::call::*;
use crate::storage::door::{Calls, RequestKey};

/// Largest file.
const SIZE_MAX: usize = 16 << 20;

pub struct Memory {
    state: Mutex<State>,
    pub is_durable: AtomicBool,
    pub verifier: AtomicU64,
    /// So many calls find no leader.
    pub unavailable: AtomicU32,
    pub mutations: AtomicU32,
    pub commits: AtomicU32,
    /// Closed: writes wait.
    pub gate: tokio::sync::watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<Inode, Node>,
    last: u64,
    clock: i64,
}

struct Node {
    attributes: Attributes,
    data: Vec<u8>,
    names: BTreeMap<u64, (Vec<u8>, Inode)>,
    cookies: HashMap<Vec<u8>, u64>,
    last_cookie: u64,
    parent: Inode,
    exclusive: Option<u64>,
}

impl Memory {
    pub fn new() -> Self {
        let mut state = State {
            last: 100,
            ..State::default()
        };
        for root in [PORTAL, REGISTRY] {
            let mut attributes = state.fresh(Kind::Folder, 0o777);
            attributes.inode = root;
            attributes.generation = 0;
            state.nodes.insert(root, Node::new(attributes, root));
        }
        Memory {
            state: Mutex::new(state),
            is_durable: AtomicBool::new(true),
            verifier: AtomicU64::new(1),
            unavailable: AtomicU32::new(0),
            mutations: AtomicU32::new(0),
            commits: AtomicU32::new(0),
            gate: tokio::sync::watch::Sender::new(true),
        }
    }

    fn is_leaderless(&self) -> bool {
        let step = |left: u32| left.checked_sub(1);
        self.unavailable
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .is_ok()
    }
}

impl Calls for Memory {
    fn query<'a>(&'a self, caller: &'a Caller, query: Query) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(async move {
            if self.is_leaderless() {
                return Err(Error::Unavailable);
            }
            self.state.lock().unwrap().query(caller, query)
        })
    }

    fn mutate<'a>(
        &'a self,
        caller: &'a Caller,
        _key: RequestKey,
        mutation: Mutation,
    ) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(async move {
            if self.is_leaderless() {
                return Err(Error::Unavailable);
            }
            let mut gate = self.gate.subscribe();
            gate.wait_for(|is_open| *is_open).await.unwrap();
            self.mutations.fetch_add(1, Ordering::Relaxed);
            self.state.lock().unwrap().mutate(caller, mutation)
        })
    }

    fn commit(&self, _inode: Inode) -> BoxFuture<'_, Result<(), Error>> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn is_durable(&self) -> bool {
        self.is_durable.load(Ordering::Relaxed)
    }

    fn verifier(&self) -> u64 {
        self.verifier.load(Ordering::Relaxed)
    }
}

impl Node {
    fn new(attributes: Attributes, parent: Inode) -> Self {
        Node {
            attributes,
            data: Vec::new(),
            names: BTreeMap::new(),
            cookies: HashMap::new(),
            last_cookie: 0,
            parent,
            exclusive: None,
        }
    }

    fn find(&self, name: &[u8]) -> Result<Inode, Error> {
        let cookie = self.cookies.get(name).ok_or(Error::NotFound)?;
        Ok(self.names[cookie].1)
    }

    /// The permission bits of `wanted` that the caller has; owners may always read and write, as over NFS they must.
    fn granted(&self, caller: &Caller, wanted: u32) -> u32 {
        let attributes = &self.attributes;
        if caller.uid == 0 {
            return wanted;
        }
        let is_group = caller.gid == attributes.gid || caller.groups.contains(&attributes.gid);
        let shift = match () {
            () if caller.uid == attributes.uid => 6,
            () if is_group => 3,
            () => 0,
        };
        (attributes.mode >> shift) & wanted
    }

    fn require(&self, caller: &Caller, wanted: u32) -> Result<(), Error> {
        let is_owners = self.attributes.kind == Kind::File && caller.uid == self.attributes.uid;
        if is_owners || self.granted(caller, wanted) == wanted {
            Ok(())
        } else {
            Err(Error::Access)
        }
    }
}

impl State {
    fn now(&mut self) -> Time {
        self.clock += 1;
        Time {
            seconds: self.clock,
            nanoseconds: 5,
        }
    }

    fn fresh(&mut self, kind: Kind, mode: u32) -> Attributes {
        self.last += 1;
        let now = self.now();
        Attributes {
            inode: Inode(self.last),
            generation: 3,
            kind,
            mode,
            links: if kind == Kind::Folder { 2 } else { 1 },
            uid: 0,
            gid: 0,
            size: 0,
            used: 0,
            device: (0, 0),
            accessed: now,
            modified: now,
            changed: now,
        }
    }

    fn node(&self, inode: Inode) -> Result<&Node, Error> {
        self.nodes.get(&inode).ok_or(Error::Stale)
    }

    fn folder(&self, inode: Inode) -> Result<&Node, Error> {
        let node = self.node(inode)?;
        let is_folder = node.attributes.kind == Kind::Folder;
        if is_folder { Ok(node) } else { Err(Error::NotFolder) }
    }

    fn query(&mut self, caller: &Caller, query: Query) -> Result<Reply, Error> {
        Ok(match query {
            Query::Attributes { inode } => Reply::Attributes(self.node(inode)?.attributes.clone()),
            Query::Access { inode, wanted } => Reply::Access(self.node(inode)?.granted(caller, wanted)),
            Query::ReadLink { inode } => {
                let node = self.node(inode)?;
                if node.attributes.kind != Kind::Link {
                    return Err(Error::WrongType);
                }
                Reply::Target(node.data.clone())
            }
            Query::Lookup { folder, name } => {
                let node = self.folder(folder)?;
                node.require(caller, 1)?;
                let found = if name == b".." { node.parent } else { node.find(&name)? };
                let now = node.attributes.clone();
                Reply::Object {
                    attributes: self.node(found)?.attributes.clone(),
                    folder: Some(Changed {
                        before: now.clone(),
                        after: now,
                    }),
                }
            }
            Query::Read { inode, offset, count } => {
                let node = self.node(inode)?;
                if node.attributes.kind == Kind::Folder {
                    return Err(Error::IsFolder);
                }
                node.require(caller, 4)?;
                let start = (offset as usize).min(node.data.len());
                let end = (start + count as usize).min(node.data.len());
                Reply::Data {
                    data: Bytes::copy_from_slice(&node.data[start..end]),
                    is_end: end == node.data.len(),
                    attributes: node.attributes.clone(),
                }
            }
            Query::List { folder, cookie, limit } => {
                let node = self.folder(folder)?;
                node.require(caller, 4)?;
                let mut rest = node.names.range(cookie + 1..);
                let entries = rest.by_ref().take(limit as usize).map(|(cookie, (name, inode))| Entry {
                    name: name.clone(),
                    inode: *inode,
                    cookie: *cookie,
                    attributes: self.nodes[inode].attributes.clone(),
                });
                Reply::List {
                    entries: entries.collect(),
                    is_end: rest.next().is_none(),
                    folder: node.attributes.clone(),
                }
            }
            Query::Space { .. } => Reply::Space(Space {
                total_bytes: 1 << 40,
                free_bytes: 1 << 39,
                total_inodes: 1000,
                free_inodes: 900,
            }),
            Query::TestLock { .. } => Reply::Holder(None),
        })
    }

    fn mutate(&mut self, caller: &Caller, mutation: Mutation) -> Result<Reply, Error> {
        match mutation {
            Mutation::Set { inode, change, guard } => {
                let before = self.node(inode)?.attributes.clone();
                if guard.is_some_and(|guard| guard != before.changed) {
                    return Err(Error::NotSync);
                }
                if caller.uid != 0 && caller.uid != before.uid {
                    return Err(Error::NotOwner);
                }
                if change.size.is_some_and(|size| size > SIZE_MAX as u64) {
                    return Err(Error::TooLarge);
                }
                let after = self.set(inode, &change);
                Ok(Reply::Set(Changed { before, after }))
            }
            Mutation::Write { inode, offset, data } => {
                let node = self.node(inode)?;
                node.require(caller, 2)?;
                let before = node.attributes.clone();
                let end = offset as usize + data.len();
                if end > SIZE_MAX {
                    return Err(Error::TooLarge);
                }
                let size = before.size.max(end as u64);
                let change = Change {
                    size: Some(size),
                    ..Change::default()
                };
                let after = self.set(inode, &change);
                self.nodes.get_mut(&inode).unwrap().data[offset as usize..end].copy_from_slice(&data);
                let changed = Changed { before, after };
                Ok(Reply::Written { offset, changed })
            }
            other => self.mutate_names(caller, other),
        }
    }

    fn mutate_names(&mut self, caller: &Caller, mutation: Mutation) -> Result<Reply, Error> {
        match mutation {
            Mutation::Remove { folder, name } | Mutation::RemoveFolder { folder, name } => {
                let found = self.folder(folder)?.find(&name)?;
                if !self.node(found)?.names.is_empty() {
                    return Err(Error::NotEmpty);
                }
                let folder = self.detach(caller, folder, &name)?;
                Ok(Reply::Removed { folder })
            }
            Mutation::Rename {
                from,
                name,
                to,
                new_name,
            } => {
                let inode = self.folder(from)?.find(&name)?;
                self.node(inode).map(|node| node.attributes.links)?;
                if self.folder(to)?.find(&new_name).is_ok() {
                    self.detach(caller, to, &new_name)?;
                }
                let to = self.attach(caller, to, new_name, inode)?;
                self.nodes.get_mut(&inode).unwrap().attributes.links += 1;
                let from = self.detach(caller, from, &name)?;
                Ok(Reply::Renamed { from, to })
            }
            Mutation::Link { inode, folder, name } => {
                self.node(inode)?;
                let folder = self.attach(caller, folder, name, inode)?;
                let attributes = &mut self.nodes.get_mut(&inode).unwrap().attributes;
                attributes.links += 1;
                let attributes = attributes.clone();
                Ok(Reply::Linked { attributes, folder })
            }
            other => self.mutate_new(caller, other),
        }
    }

    fn mutate_new(&mut self, caller: &Caller, mutation: Mutation) -> Result<Reply, Error> {
        match mutation {
            Mutation::Create {
                folder,
                name,
                how,
                change,
            } => match self.folder(folder)?.find(&name) {
                Err(_) => {
                    let made = self.make(caller, folder, name, Kind::File, &change)?;
                    if let (Creation::Exclusive(verifier), Reply::Object { attributes, .. }) = (how, &made) {
                        self.nodes.get_mut(&attributes.inode).unwrap().exclusive = Some(verifier);
                    }
                    Ok(made)
                }
                Ok(found) => {
                    let node = self.node(found)?;
                    let is_same = matches!(how, Creation::Exclusive(verifier) if node.exclusive == Some(verifier));
                    if how != Creation::Unchecked && !is_same {
                        return Err(Error::Exists);
                    }
                    let size = change.size.filter(|size| *size <= SIZE_MAX as u64);
                    let attributes = self.set(found, &Change { size, ..change });
                    let folder = None;
                    Ok(Reply::Object { attributes, folder })
                }
            },
            Mutation::MakeFolder { folder, name, change } => self.make(caller, folder, name, Kind::Folder, &change),
            Mutation::MakeLink {
                folder,
                name,
                target,
                change,
            } => {
                let made = self.make(caller, folder, name, Kind::Link, &change)?;
                if let Reply::Object { attributes, .. } = &made {
                    self.nodes.get_mut(&attributes.inode).unwrap().data = target;
                }
                Ok(made)
            }
            Mutation::MakeNode {
                folder,
                name,
                kind,
                device,
                change,
            } => {
                let mut made = self.make(caller, folder, name, kind, &change)?;
                if let Reply::Object { attributes, .. } = &mut made {
                    attributes.device = device;
                }
                Ok(made)
            }
            other => panic!("no call of NFS: {other:?}"),
        }
    }

    fn set(&mut self, inode: Inode, change: &Change) -> Attributes {
        let now = self.now();
        let node = self.nodes.get_mut(&inode).unwrap();
        let attributes = &mut node.attributes;
        attributes.mode = change.mode.unwrap_or(attributes.mode);
        attributes.uid = change.uid.unwrap_or(attributes.uid);
        attributes.gid = change.gid.unwrap_or(attributes.gid);
        if let Some(size) = change.size {
            node.data.resize(size as usize, 0);
            (attributes.size, attributes.used, attributes.modified) = (size, size, now);
        }
        let time = |set: Option<SetTime>, old| match set {
            None => old,
            Some(SetTime::Now) => now,
            Some(SetTime::At(time)) => time,
        };
        attributes.accessed = time(change.accessed, attributes.accessed);
        attributes.modified = time(change.modified, attributes.modified);
        attributes.changed = now;
        attributes.clone()
    }

    fn make(
        &mut self,
        caller: &Caller,
        folder: Inode,
        name: Vec<u8>,
        kind: Kind,
        change: &Change,
    ) -> Result<Reply, Error> {
        let mut attributes = self.fresh(kind, 0o600);
        (attributes.uid, attributes.gid) = (caller.uid, caller.gid);
        let inode = attributes.inode;
        let changed = self.attach(caller, folder, name, inode)?;
        self.nodes.insert(inode, Node::new(attributes, folder));
        if change.size.is_some_and(|size| size > SIZE_MAX as u64) {
            return Err(Error::TooLarge);
        }
        Ok(Reply::Object {
            attributes: self.set(inode, change),
            folder: Some(changed),
        })
    }

    fn attach(&mut self, caller: &Caller, folder: Inode, name: Vec<u8>, inode: Inode) -> Result<Changed, Error> {
        let node = self.folder(folder)?;
        node.require(caller, 3)?;
        if node.find(&name).is_ok() {
            return Err(Error::Exists);
        }
        let before = node.attributes.clone();
        let node = self.nodes.get_mut(&folder).unwrap();
        node.last_cookie += 1;
        node.cookies.insert(name.clone(), node.last_cookie);
        node.names.insert(node.last_cookie, (name, inode));
        let after = self.touched(folder);
        Ok(Changed { before, after })
    }

    fn detach(&mut self, caller: &Caller, folder: Inode, name: &[u8]) -> Result<Changed, Error> {
        let node = self.folder(folder)?;
        node.require(caller, 3)?;
        let before = node.attributes.clone();
        let node = self.nodes.get_mut(&folder).unwrap();
        let cookie = node.cookies.remove(name).ok_or(Error::NotFound)?;
        let (_, inode) = node.names.remove(&cookie).unwrap();
        let gone = self.nodes.get_mut(&inode).unwrap();
        gone.attributes.links -= 1;
        if gone.attributes.links == 0 || gone.attributes.links == 1 && gone.attributes.kind == Kind::Folder {
            self.nodes.remove(&inode);
        }
        let after = self.touched(folder);
        Ok(Changed { before, after })
    }

    fn touched(&mut self, folder: Inode) -> Attributes {
        let now = Some(SetTime::Now);
        let change = Change {
            modified: now,
            ..Change::default()
        };
        self.set(folder, &change)
    }
}
