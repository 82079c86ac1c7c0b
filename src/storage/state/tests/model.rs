//! The same semantics once more, as plainly as can be: a map of nodes in memory, locks byte by byte.

use std::collections::{BTreeMap, BTreeSet};

use crate::storage::call::{
    Attributes, Caller, Change, Changed, Error, Kind, Lock, LockFamily, Mutation, PORTAL, REGISTRY, Reply, SetTime,
    Time,
};
use crate::storage::operation::Operation;
use crate::storage::state::inode::{blocks, used_after_write};

/// Lock ranges of tests lie in the first bytes or go to the end, which is the last cell.
pub const CELLS: u64 = 32;

#[derive(Clone, Debug)]
pub struct Node {
    pub of: Attributes,
    pub tree: u64,
    pub parent: Option<u64>,
    /// (cookie, name, inode), in the order of the cookies.
    pub names: Vec<(u64, Vec<u8>, u64)>,
    pub next_cookie: u64,
    pub verifier: Option<u64>,
    pub target: Vec<u8>,
    pub bytes: Vec<u8>,
}

type Cell = Vec<(u64, u64, bool)>;
type Answer = Result<Reply, Error>;

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub nodes: BTreeMap<u64, Node>,
    sessions: BTreeMap<u64, (u64, BTreeMap<u64, Answer>)>,
    adopting: BTreeSet<u64>,
    opens: BTreeMap<(u64, u64), u32>,
    locks: BTreeMap<(u64, LockFamily), Vec<Cell>>,
}

pub fn has(of: &Attributes, caller: &Caller, bit: u32) -> bool {
    if caller.uid == 0 {
        return bit != 1 || of.kind == Kind::Folder || of.mode & 0o111 > 0;
    }
    let class = if caller.uid == of.uid {
        of.mode / 0o100
    } else if caller.gid == of.gid || caller.groups.contains(&of.gid) {
        of.mode / 0o10
    } else {
        of.mode
    };
    class & bit > 0
}

pub fn owns(of: &Attributes, caller: &Caller) -> bool {
    caller.uid == 0 || caller.uid == of.uid
}

pub fn ensure(condition: bool, error: Error) -> Result<(), Error> {
    if condition { Ok(()) } else { Err(error) }
}

pub fn strip(mode: u32) -> u32 {
    let sgid = if mode & 0o10 > 0 { 0o2000 } else { 0 };
    mode & !(0o4000 | sgid)
}

pub fn valid(name: &[u8]) -> Result<(), Error> {
    ensure(name.len() <= 255, Error::NameTooLong)?;
    let bad = name.is_empty() || name == b"." || name == b".." || name.contains(&0) || name.contains(&b'/');
    ensure(!bad, Error::Invalid)
}

pub struct Asked<'a> {
    pub caller: &'a Caller,
    pub time: Time,
    pub fresh: u64,
    pub session: u64,
}

impl Model {
    pub fn new() -> Self {
        let mut model = Model::default();
        for (root, mode) in [(PORTAL, 0o755), (REGISTRY, 0o700)] {
            let of = Attributes {
                inode: root,
                generation: 1,
                kind: Kind::Folder,
                mode,
                links: 2,
                uid: 0,
                gid: 0,
                size: 0,
                used: 0,
                device: (0, 0),
                accessed: Time::default(),
                modified: Time::default(),
                changed: Time::default(),
            };
            model.nodes.insert(root.0, Node::new(of, root.0, None));
        }
        model
    }

    pub fn apply(&mut self, operation: &Operation) -> Answer {
        match operation {
            // One place each: none replaces another.
            Operation::Begin { session, adopts, .. } => {
                if *adopts && !self.sessions.contains_key(&session.0) {
                    self.adopting.insert(session.0);
                }
                let (known, kept) = self.sessions.entry(session.0).or_default();
                let last = kept.keys().max().copied().unwrap_or_default();
                Ok(Reply::Begun {
                    next: last.max(*known) + 1,
                })
            }
            Operation::End { session } => {
                self.sessions.remove(&session.0);
                self.adopting.remove(&session.0);
                for cells in self.locks.values_mut() {
                    cells
                        .iter_mut()
                        .for_each(|cell| cell.retain(|held| held.0 != session.0));
                }
                self.opens.retain(|(_, holder), _| *holder != session.0);
                self.sweep();
                Ok(Reply::Done)
            }
            Operation::Reap => {
                self.reap();
                Ok(Reply::Done)
            }
            Operation::Mutate {
                session,
                sequence,
                acknowledged,
                key: _,
                caller,
                time,
                fresh,
                mutation,
            } => {
                let (known, kept) = self.sessions.get_mut(&session.0).ok_or(Error::NoSession)?;
                *known = (*known).max((*acknowledged).min(sequence.saturating_sub(1)));
                kept.retain(|number, _| number > known);
                ensure(sequence > known && sequence - *known <= 4096, Error::Invalid)?;
                if let Some(answer) = kept.get(sequence) {
                    return answer.clone();
                }
                let asked = Asked {
                    caller,
                    time: *time,
                    fresh: fresh.0,
                    session: session.0,
                };
                let before = self.clone();
                let answer = self.mutate(&asked, mutation);
                if answer.is_err() {
                    *self = before;
                } else if !self.adopting.is_empty() {
                    let had_name = |id: &u64| before.nodes.get(id).is_some_and(|node| node.of.links > 0);
                    let orphans = self
                        .nodes
                        .iter()
                        .filter(|(id, node)| node.of.links == 0 && had_name(id));
                    let orphans: Vec<_> = orphans.map(|(id, _)| ((*id, u64::MAX), 1)).collect();
                    self.opens.extend(orphans);
                }
                self.sweep();
                self.sessions
                    .get_mut(&session.0)
                    .unwrap()
                    .1
                    .insert(*sequence, answer.clone());
                answer
            }
        }
    }

    fn reap(&mut self) {
        let (new, old) = (u64::MAX, u64::MAX - 1);
        if self.opens.keys().any(|(_, holder)| *holder == old) {
            self.opens.retain(|(_, holder), _| *holder != old);
        } else {
            let opens = std::mem::take(&mut self.opens).into_iter();
            let moved = opens.map(|((inode, by), count)| ((inode, if by == new { old } else { by }), count));
            self.opens = moved.collect();
        }
        self.sweep();
    }

    /// Frees what has no name and is held by nobody.
    fn sweep(&mut self) {
        let opens = &self.opens;
        self.nodes
            .retain(|id, node| node.of.links > 0 || opens.keys().any(|(inode, _)| inode == id));
        let nodes = &self.nodes;
        self.locks.retain(|(inode, _), _| nodes.contains_key(inode));
    }

    fn mutate(&mut self, asked: &Asked<'_>, mutation: &Mutation) -> Answer {
        match mutation {
            Mutation::Set { inode, change, guard } => self.set(asked, inode.0, change, *guard),
            Mutation::Write { inode, offset, data } => self.write(asked, inode.0, Some(*offset), data),
            Mutation::Append { inode, data } => self.write(asked, inode.0, None, data),
            Mutation::Create {
                folder,
                name,
                how,
                change,
            } => self.create(asked, folder.0, name, *how, change),
            Mutation::MakeFolder { folder, name, change } => {
                self.make(asked, (folder.0, name), Kind::Folder, change, |_| {})
            }
            Mutation::MakeLink {
                folder,
                name,
                target,
                change,
            } => {
                ensure(!target.is_empty(), Error::NotFound)?;
                ensure(target.len() <= 4095, Error::NameTooLong)?;
                ensure(!target.contains(&0), Error::Invalid)?;
                self.make(asked, (folder.0, name), Kind::Link, change, |node| {
                    node.of.size = target.len() as u64;
                    node.target = target.clone();
                })
            }
            Mutation::MakeNode {
                folder,
                name,
                kind,
                device,
                change,
            } => {
                let is_device = matches!(kind, Kind::Character | Kind::Block);
                ensure(is_device || matches!(kind, Kind::Fifo | Kind::Socket), Error::Invalid)?;
                ensure(!is_device || asked.caller.uid == 0, Error::NotOwner)?;
                self.make(asked, (folder.0, name), *kind, change, |node| {
                    node.of.device = if is_device { *device } else { (0, 0) };
                })
            }
            Mutation::Remove { folder, name } => self.remove(asked, folder.0, name, false),
            Mutation::RemoveFolder { folder, name } => self.remove(asked, folder.0, name, true),
            Mutation::Rename {
                from,
                name,
                to,
                new_name,
            } => self.rename(asked, (from.0, name), (to.0, new_name)),
            Mutation::Link { inode, folder, name } => self.link(asked, inode.0, folder.0, name),
            Mutation::Open { inode } => {
                let of = self.node(inode.0)?.of.clone();
                *self.opens.entry((inode.0, asked.session)).or_default() += 1;
                Ok(Reply::Attributes(of))
            }
            Mutation::Close { inode } => {
                let key = (inode.0, asked.session);
                if let Some(count) = self.opens.get_mut(&key) {
                    *count -= 1;
                }
                self.opens.retain(|_, count| *count > 0);
                Ok(Reply::Done)
            }
            Mutation::Lock { inode, lock } => {
                self.node(inode.0)?;
                self.lock(asked.session, inode.0, lock, true)
            }
            Mutation::Unlock { inode, lock } => self.lock(asked.session, inode.0, lock, false),
        }
    }

    pub(super) fn node(&self, inode: u64) -> Result<&Node, Error> {
        self.nodes.get(&inode).ok_or(Error::Stale)
    }

    pub(super) fn at(&mut self, inode: u64) -> &mut Node {
        self.nodes.get_mut(&inode).unwrap()
    }

    pub(super) fn folder(&self, asked: &Asked<'_>, inode: u64) -> Result<&Node, Error> {
        let node = self.node(inode)?;
        ensure(node.of.kind == Kind::Folder, Error::NotFolder)?;
        ensure(has(&node.of, asked.caller, 1), Error::Access)?;
        Ok(node)
    }

    pub fn find(&self, folder: u64, name: &[u8]) -> Option<u64> {
        let names = &self.nodes.get(&folder)?.names;
        names.iter().find(|(_, other, _)| other == name).map(|found| found.2)
    }

    pub(super) fn set(&mut self, asked: &Asked<'_>, inode: u64, change: &Change, guard: Option<Time>) -> Answer {
        let before = self.node(inode)?.of.clone();
        ensure(guard.is_none_or(|guard| guard == before.changed), Error::NotSync)?;
        let changed = |after: &Attributes| {
            Ok(Reply::Set(Changed {
                before: before.clone(),
                after: after.clone(),
            }))
        };
        if *change == Change::default() {
            return changed(&before);
        }
        let caller = asked.caller;
        let mine = owns(&before, caller);
        let root = caller.uid == 0;
        let member = |gid: u32| caller.gid == gid || caller.groups.contains(&gid);
        ensure(change.mode.is_none() || mine, Error::NotOwner)?;
        let may_give = root || mine && change.uid.is_none_or(|uid| uid == before.uid);
        ensure(change.uid.is_none() || may_give, Error::NotOwner)?;
        let may_group = root || mine && change.gid.is_none_or(|gid| gid == before.gid || member(gid));
        ensure(change.gid.is_none() || may_group, Error::NotOwner)?;
        let times: Vec<SetTime> = [change.accessed, change.modified].into_iter().flatten().collect();
        ensure(mine || !times.iter().any(|time| *time != SetTime::Now), Error::NotOwner)?;
        ensure(mine || times.is_empty() || has(&before, caller, 2), Error::Access)?;
        if let Some(size) = change.size {
            ensure(mine || has(&before, caller, 2), Error::Access)?;
            self.may_size(inode, size)?;
            let node = self.at(inode);
            node.bytes.resize(size as usize, 0);
            node.of.size = size;
            node.of.used = node.of.used.min(blocks(size));
            node.of.modified = asked.time;
        }
        let node = self.at(inode);
        node.verifier = None;
        let of = &mut node.of;
        if change.size.is_some() && !root {
            of.mode = strip(of.mode);
        }
        if let Some(mode) = change.mode {
            of.mode = mode & 0o7777;
            if !root && !member(change.gid.unwrap_or(of.gid)) {
                of.mode &= !0o2000;
            }
        }
        if (change.uid.is_some() || change.gid.is_some()) && of.kind != Kind::Folder {
            of.mode = strip(of.mode);
        }
        of.uid = change.uid.unwrap_or(of.uid);
        of.gid = change.gid.unwrap_or(of.gid);
        set_times(of, change, asked.time);
        of.changed = asked.time;
        changed(of)
    }

    pub(super) fn may_size(&self, inode: u64, size: u64) -> Result<(), Error> {
        match self.nodes[&inode].of.kind {
            Kind::File => ensure(size <= 8 << 40, Error::TooLarge),
            Kind::Folder => Err(Error::IsFolder),
            _ => Err(Error::Invalid),
        }
    }

    fn write(&mut self, asked: &Asked<'_>, inode: u64, offset: Option<u64>, data: &[u8]) -> Answer {
        let before = self.node(inode)?.of.clone();
        self.may_size(inode, 0)?;
        ensure(
            owns(&before, asked.caller) || has(&before, asked.caller, 2),
            Error::Access,
        )?;
        let offset = offset.unwrap_or(before.size);
        let end = offset.checked_add(data.len() as u64).ok_or(Error::TooLarge)?;
        self.may_size(inode, end)?;
        if !data.is_empty() {
            let node = self.at(inode);
            let range = offset as usize..end as usize;
            if node.bytes.len() < range.end {
                node.bytes.resize(range.end, 0);
            }
            node.bytes[range].copy_from_slice(data);
            node.verifier = None;
            node.of.used = used_after_write(before.used, before.size, offset, end);
            node.of.size = before.size.max(end);
            if asked.caller.uid != 0 {
                node.of.mode = strip(before.mode);
            }
            node.of.modified = asked.time;
            node.of.changed = asked.time;
        }
        Ok(Reply::Written {
            offset,
            changed: Changed {
                before,
                after: self.nodes[&inode].of.clone(),
            },
        })
    }

    fn cells(&mut self, inode: u64, lock: &Lock) -> &mut [Cell] {
        let all = self
            .locks
            .entry((inode, lock.family))
            .or_insert_with(|| vec![Cell::new(); CELLS as usize + 1]);
        &mut all[lock.start as usize..lock.end.min(CELLS + 1) as usize]
    }

    fn lock(&mut self, session: u64, inode: u64, lock: &Lock, takes: bool) -> Answer {
        ensure(lock.start < lock.end, Error::Invalid)?;
        ensure(!takes || !self.is_locked(session, inode, lock), Error::Locked)?;
        for cell in self.cells(inode, lock) {
            cell.retain(|held| (held.0, held.1) != (session, lock.owner));
            if takes {
                cell.push((session, lock.owner, lock.is_exclusive));
            }
        }
        Ok(Reply::Done)
    }

    pub fn is_locked(&mut self, session: u64, inode: u64, lock: &Lock) -> bool {
        let stands =
            |held: &(u64, u64, bool)| (held.0, held.1) != (session, lock.owner) && (held.2 || lock.is_exclusive);
        self.cells(inode, lock).iter().flatten().any(stands)
    }
}

pub fn set_times(of: &mut Attributes, change: &Change, now: Time) {
    for (set, time) in [(change.accessed, &mut of.accessed), (change.modified, &mut of.modified)] {
        match set {
            Some(SetTime::Now) => *time = now,
            Some(SetTime::At(at)) => *time = at,
            None => {}
        }
    }
}

impl Node {
    pub fn new(of: Attributes, tree: u64, parent: Option<u64>) -> Self {
        Node {
            of,
            tree,
            parent,
            names: Vec::new(),
            next_cookie: 3,
            verifier: None,
            target: Vec::new(),
            bytes: Vec::new(),
        }
    }
}
