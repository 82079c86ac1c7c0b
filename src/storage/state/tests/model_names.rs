//! The model's part on names: creation, removal, renaming, links.

use super::model::{Asked, Model, Node, ensure, has, owns, set_times, valid};
use crate::storage::call::{Attributes, Change, Changed, Creation, Error, Inode, Kind, Reply, Time};

type Answer = Result<Reply, Error>;

impl Model {
    pub(super) fn create(
        &mut self,
        asked: &Asked<'_>,
        folder: u64,
        name: &[u8],
        how: Creation,
        change: &Change,
    ) -> Answer {
        self.folder(asked, folder)?;
        valid(name)?;
        let Some(found) = self.find(folder, name) else {
            return self.make(asked, (folder, name), Kind::File, change, |node| {
                if let Creation::Exclusive(verifier) = how {
                    node.verifier = Some(verifier);
                }
            });
        };
        let node = &self.nodes[&found];
        match how {
            Creation::Exclusive(verifier) if node.verifier == Some(verifier) => {}
            Creation::Unchecked => {
                ensure(node.of.kind != Kind::Folder, Error::IsFolder)?;
                ensure(node.of.kind == Kind::File, Error::Exists)?;
                if let Some(size) = change.size {
                    let only = Change {
                        size: Some(size),
                        ..Change::default()
                    };
                    self.set(asked, found, &only, None)?;
                }
            }
            _ => return Err(Error::Exists),
        }
        let of = self.nodes[&folder].of.clone();
        Ok(Reply::Object {
            attributes: self.nodes[&found].of.clone(),
            folder: Some(Changed {
                before: of.clone(),
                after: of,
            }),
        })
    }

    pub(super) fn make(
        &mut self,
        asked: &Asked<'_>,
        (folder, name): (u64, &[u8]),
        kind: Kind,
        change: &Change,
        special: impl FnOnce(&mut Node),
    ) -> Answer {
        let above = self.folder(asked, folder)?;
        let (before, tree) = (above.of.clone(), above.tree);
        valid(name)?;
        ensure(self.find(folder, name).is_none(), Error::Exists)?;
        ensure(before.links > 0, Error::NotFound)?;
        ensure(has(&before, asked.caller, 2), Error::Access)?;
        ensure(
            asked.fresh > 2 && !self.nodes.contains_key(&asked.fresh),
            Error::Invalid,
        )?;
        let caller = asked.caller;
        let inherits = before.mode & 0o2000 > 0;
        let gid = change.gid.unwrap_or(if inherits { before.gid } else { caller.gid });
        let member = caller.uid == 0 || caller.gid == gid || caller.groups.contains(&gid);
        ensure(
            caller.uid == 0 || change.uid.is_none_or(|uid| uid == caller.uid),
            Error::NotOwner,
        )?;
        ensure(change.gid.is_none() || member, Error::NotOwner)?;
        let mut mode = change.mode.unwrap_or(if kind == Kind::Folder { 0o700 } else { 0o600 }) & 0o7777;
        if !member {
            mode &= !0o2000;
        }
        if kind == Kind::Folder && inherits {
            mode |= 0o2000;
        }
        let of = Attributes {
            inode: Inode(asked.fresh),
            // Taken from the reply: only that it is the same everywhere matters.
            generation: 0,
            kind,
            mode: if kind == Kind::Link { 0o777 } else { mode },
            links: if kind == Kind::Folder { 2 } else { 1 },
            uid: change.uid.unwrap_or(caller.uid),
            gid,
            size: 0,
            used: 0,
            device: (0, 0),
            accessed: asked.time,
            modified: asked.time,
            changed: asked.time,
        };
        let mut node = Node::new(of, tree, (kind == Kind::Folder).then_some(folder));
        special(&mut node);
        self.nodes.insert(asked.fresh, node);
        if let Some(size) = change.size {
            self.may_size(asked.fresh, size)?;
            let node = self.at(asked.fresh);
            node.bytes.resize(size as usize, 0);
            node.of.size = size;
        }
        set_times(&mut self.at(asked.fresh).of, change, asked.time);
        self.add(folder, name, asked.fresh, asked.time);
        Ok(Reply::Object {
            attributes: self.nodes[&asked.fresh].of.clone(),
            folder: Some(self.changed(folder, before)),
        })
    }

    fn changed(&self, inode: u64, before: Attributes) -> Changed {
        Changed {
            before,
            after: self.nodes[&inode].of.clone(),
        }
    }

    fn add(&mut self, folder: u64, name: &[u8], inode: u64, time: Time) {
        let is_folder = self.nodes[&inode].of.kind == Kind::Folder;
        let above = self.at(folder);
        above.names.push((above.next_cookie, name.to_vec(), inode));
        above.next_cookie += 1;
        above.of.links += u32::from(is_folder);
        (above.of.modified, above.of.changed) = (time, time);
    }

    fn may_take(&self, asked: &Asked<'_>, folder: u64, inode: u64) -> Result<(), Error> {
        let above = &self.nodes[&folder].of;
        let caller = asked.caller;
        ensure(has(above, caller, 2) && has(above, caller, 1), Error::Access)?;
        let owner = owns(above, caller) || owns(&self.nodes[&inode].of, caller);
        ensure(above.mode & 0o1000 == 0 || owner, Error::NotOwner)
    }

    /// The object loses a name; a folder loses its last.
    fn unname(&mut self, inode: u64, time: Time) {
        let node = self.at(inode);
        node.of.changed = time;
        if node.of.kind == Kind::Folder {
            node.of.links = 0;
            node.parent = None;
        } else {
            node.of.links -= 1;
        }
    }

    fn take(&mut self, folder: u64, name: &[u8], inode: u64, time: Time) {
        let is_folder = self.nodes[&inode].of.kind == Kind::Folder;
        let above = self.at(folder);
        above.names.retain(|(_, other, _)| other != name);
        above.of.links -= u32::from(is_folder);
        (above.of.modified, above.of.changed) = (time, time);
    }

    pub(super) fn remove(&mut self, asked: &Asked<'_>, folder: u64, name: &[u8], wants_folder: bool) -> Answer {
        let before = self.folder(asked, folder)?.of.clone();
        valid(name)?;
        let inode = self.find(folder, name).ok_or(Error::NotFound)?;
        self.may_take(asked, folder, inode)?;
        let node = &self.nodes[&inode];
        match (node.of.kind == Kind::Folder, wants_folder) {
            (true, false) => return Err(Error::IsFolder),
            (false, true) => return Err(Error::NotFolder),
            _ => ensure(node.names.is_empty(), Error::NotEmpty)?,
        }
        self.take(folder, name, inode, asked.time);
        self.unname(inode, asked.time);
        Ok(Reply::Removed {
            folder: self.changed(folder, before),
        })
    }

    fn is_inside(&self, mut folder: u64, above: u64) -> bool {
        loop {
            if folder == above {
                return true;
            }
            match self.nodes[&folder].parent {
                Some(parent) => folder = parent,
                None => return false,
            }
        }
    }

    pub(super) fn rename(
        &mut self,
        asked: &Asked<'_>,
        (from, name): (u64, &[u8]),
        (to, new_name): (u64, &[u8]),
    ) -> Answer {
        let before = (self.folder(asked, from)?.of.clone(), self.folder(asked, to)?.of.clone());
        valid(name)?;
        valid(new_name)?;
        let inode = self.find(from, name).ok_or(Error::NotFound)?;
        ensure(self.nodes[&from].tree == self.nodes[&to].tree, Error::Invalid)?;
        let is_folder = self.nodes[&inode].of.kind == Kind::Folder;
        ensure(!is_folder || !self.is_inside(to, inode), Error::Invalid)?;
        self.may_take(asked, from, inode)?;
        let victim = self.find(to, new_name);
        if let Some(victim) = victim {
            self.may_take(asked, to, victim)?;
            let other = &self.nodes[&victim];
            match (is_folder, other.of.kind == Kind::Folder) {
                (true, false) => return Err(Error::NotFolder),
                (false, true) => return Err(Error::IsFolder),
                _ => ensure(other.names.is_empty() || victim == inode, Error::NotEmpty)?,
            }
        } else {
            ensure(before.1.links > 0, Error::NotFound)?;
            ensure(has(&before.1, asked.caller, 2), Error::Access)?;
        }
        let moves = is_folder && from != to;
        ensure(!moves || has(&self.nodes[&inode].of, asked.caller, 2), Error::Access)?;
        if victim != Some(inode) {
            self.take(from, name, inode, asked.time);
            if let Some(victim) = victim {
                let above = self.at(to);
                let entry = above.names.iter_mut().find(|entry| entry.1 == new_name).unwrap();
                entry.2 = inode;
                (above.of.modified, above.of.changed) = (asked.time, asked.time);
                self.unname(victim, asked.time);
            } else {
                self.add(to, new_name, inode, asked.time);
            }
            let node = self.at(inode);
            node.of.changed = asked.time;
            if is_folder {
                node.parent = Some(to);
                self.recount(from);
                self.recount(to);
            }
        }
        Ok(Reply::Renamed {
            from: self.changed(from, before.0),
            to: self.changed(to, before.1),
        })
    }

    fn recount(&mut self, folder: u64) {
        let children = self.nodes[&folder].names.iter();
        let folders = children.filter(|(_, _, inode)| self.nodes[inode].of.kind == Kind::Folder);
        self.at(folder).of.links = 2 + folders.count() as u32;
    }

    pub(super) fn link(&mut self, asked: &Asked<'_>, inode: u64, folder: u64, name: &[u8]) -> Answer {
        let tree = self.node(inode)?.tree;
        let above = self.folder(asked, folder)?;
        let (before, above_tree) = (above.of.clone(), above.tree);
        valid(name)?;
        ensure(self.find(folder, name).is_none(), Error::Exists)?;
        ensure(before.links > 0, Error::NotFound)?;
        ensure(has(&before, asked.caller, 2), Error::Access)?;
        let of = &mut self.at(inode).of;
        ensure(of.kind != Kind::Folder, Error::NotOwner)?;
        ensure(of.links > 0, Error::NotFound)?;
        ensure(tree == above_tree, Error::Invalid)?;
        of.links += 1;
        of.changed = asked.time;
        self.add(folder, name, inode, asked.time);
        Ok(Reply::Linked {
            attributes: self.nodes[&inode].of.clone(),
            folder: self.changed(folder, before),
        })
    }
}
