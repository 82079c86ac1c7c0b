//! `Step`: one mutation at work, with the rows and names that every verb needs.

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::Connection;

use super::{Effects, Outcome};
use crate::storage::call::{Attributes, Caller, Changed, Error, Inode, Mutation, PORTAL, Reply, Time};
use crate::storage::operation::Session;
use crate::storage::state::inode::{self, Record};
use crate::storage::state::tree::Action;
use crate::storage::state::{Failure, LockTrace, access, entry, lock_rows, sessions};

/// The circumstances of a mutation.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) index: u64,
    pub(super) session: Session,
    pub(super) caller: &'a Caller,
    pub(super) time: Time,
    pub(super) fresh: Inode,
}

/// One mutation at work. Its parts are in the files of this folder.
pub(super) struct Step<'a, 'e> {
    pub(super) rows: &'a Connection,
    pub(super) effects: &'a mut Effects<'e>,
    pub(super) call: Call<'a>,
}

impl Step<'_, '_> {
    pub(super) fn mutate(&mut self, mutation: &Mutation) -> Outcome<Reply> {
        match mutation {
            Mutation::Set { inode, change, guard } => self.set(*inode, change, *guard),
            Mutation::Write { inode, offset, data } => self.write(*inode, Some(*offset), data),
            Mutation::Append { inode, data } => self.write(*inode, None, data),
            Mutation::Create {
                folder,
                name,
                how,
                change,
            } => self.create(*folder, name, *how, change),
            Mutation::MakeFolder { folder, name, change } => self.make_folder(*folder, name, change),
            Mutation::MakeLink {
                folder,
                name,
                target,
                change,
            } => self.make_link(*folder, name, target, change),
            Mutation::MakeNode {
                folder,
                name,
                kind,
                device,
                change,
            } => self.make_node(*folder, name, (*kind, *device), change),
            Mutation::Remove { folder, name } => self.remove(*folder, name),
            Mutation::RemoveFolder { folder, name } => self.remove_folder(*folder, name),
            Mutation::Rename {
                from,
                name,
                to,
                new_name,
            } => self.rename((*from, name), (*to, new_name)),
            Mutation::Link { inode, folder, name } => self.link(*inode, *folder, name),
            Mutation::Open { inode } => self.open(*inode),
            Mutation::Close { inode } => self.close(*inode),
            Mutation::Lock { inode, lock } => self.lock(*inode, lock),
            Mutation::Unlock { inode, lock } => self.unlock(*inode, lock),
        }
    }

    pub(super) fn load(&self, inode: Inode) -> Outcome<Record> {
        Ok(inode::load(self.rows, inode)?.ok_or(Error::Stale)?)
    }

    pub(super) fn save(&mut self, record: &Record) -> Outcome<()> {
        self.effects.touched.record(record.id(), Some(record));
        Ok(inode::save(self.rows, record)?)
    }

    /// A folder that the caller may search; one that was removed has no names any more.
    pub(super) fn folder(&self, inode: Inode) -> Outcome<Record> {
        let folder = self.load(inode)?;
        if !folder.is_folder() {
            return Err(Error::NotFolder.into());
        }
        access::need(&folder.attributes, self.call.caller, access::EXECUTE)?;
        Ok(folder)
    }

    /// The object behind a name, which is there because the tables agree with one another.
    pub(super) fn named(&self, folder: Inode, name: &[u8]) -> Outcome<Option<Record>> {
        match entry::find(self.rows, folder, name)? {
            None => Ok(None),
            Some(inode) => match inode::load(self.rows, inode)? {
                Some(record) => Ok(Some(record)),
                None => Err(Failure::Damaged(format!("a name points to inode {}, which is not there", inode.0)).into()),
            },
        }
    }

    /// A name that may be added to `folder`.
    pub(super) fn may_add(&self, folder: &Record) -> Result<(), Error> {
        if folder.attributes.links == 0 {
            return Err(Error::NotFound);
        }
        access::need(&folder.attributes, self.call.caller, access::WRITE | access::EXECUTE)
    }

    /// Adds a name and says so in the folder's record, which the caller saves.
    pub(super) fn add_name(&mut self, folder: &mut Record, name: &[u8], object: &Record) -> Outcome<()> {
        self.effects.touched.name(folder.id(), name, Some(object.id()));
        entry::insert(self.rows, folder.id(), name, object.id(), folder.next_cookie)?;
        folder.next_cookie += 1;
        folder.entries += 1;
        folder.touch(self.call.time);
        if object.is_folder() {
            folder.attributes.links += 1;
        }
        Ok(())
    }

    /// The inverse of `add_name`.
    pub(super) fn drop_name(&mut self, folder: &mut Record, name: &[u8], object: &Record) -> Outcome<()> {
        self.effects.touched.name(folder.id(), name, None);
        entry::delete(self.rows, folder.id(), name)?;
        folder.entries -= 1;
        folder.touch(self.call.time);
        if object.is_folder() {
            folder.attributes.links -= 1;
        }
        Ok(())
    }

    /// Saves an object that has lost a name, or frees it: no name, no session that has it open. Sessions that adopt may have
    /// it open without having said so: while there are any, it is in grace at first.
    pub(super) fn save_or_free(&mut self, record: &Record) -> Outcome<()> {
        let inode = record.id();
        if record.attributes.links > 0 {
            return self.save(record);
        }
        let adopting = sessions::adopting(self.rows)?;
        if !adopting.is_empty() {
            sessions::open(self.rows, sessions::GRACE_NEW, inode)?;
            self.effects.touched.orphan(inode, adopting);
        }
        if sessions::is_open(self.rows, inode)? {
            return self.save(record);
        }
        Ok(free(self.rows, self.effects, inode)?)
    }

    /// Where `name` of `folder` lies in the mirror now.
    pub(super) fn mirror_path(&mut self, folder: Inode, name: &[u8]) -> Outcome<Option<PathBuf>> {
        use std::os::unix::ffi::OsStrExt;
        let path = folder_path(self.rows, &mut self.effects.paths, folder)?;
        Ok(path.map(|path| path.join(std::ffi::OsStr::from_bytes(name))))
    }

    /// Has the mirror show that `name` of `folder` is `object` now, or nothing.
    pub(super) fn mirror(&mut self, folder: Inode, name: &[u8], object: Option<&Record>) -> Outcome<()> {
        if let Some(path) = self.mirror_path(folder, name)? {
            self.effects.mirror.push(Action::put(path, object));
        }
        Ok(())
    }
}

/// Removes every row of an inode; its content follows after the commit.
pub(super) fn free(rows: &Connection, effects: &mut Effects<'_>, inode: Inode) -> Result<(), Failure> {
    effects.touched.record(inode, None);
    effects.touched.access(inode);
    inode::delete(rows, inode)?;
    if lock_rows::forget_inode(rows, inode)? {
        effects.touched.lock(LockTrace::Freed(inode));
    }
    effects.freed.push(inode);
    Ok(())
}

/// Path of a folder relative to the mirror's root.
pub(super) fn folder_path(
    rows: &Connection,
    known: &mut HashMap<Inode, Option<PathBuf>>,
    folder: Inode,
) -> Result<Option<PathBuf>, Failure> {
    use std::os::unix::ffi::OsStrExt;
    if let Some(path) = known.get(&folder) {
        return Ok(path.clone());
    }
    let mut names = Vec::new();
    let mut at = folder;
    let path = loop {
        if at == PORTAL {
            let parts = names
                .iter()
                .rev()
                .map(|name: &Vec<u8>| std::ffi::OsStr::from_bytes(name));
            break Some(parts.collect::<PathBuf>());
        }
        match inode::place(rows, at)? {
            Some(place) => {
                names.push(place.name);
                at = place.parent;
            }
            None => break None,
        }
    };
    known.insert(folder, path.clone());
    Ok(path)
}

pub(super) fn changed(before: Attributes, after: &Record) -> Changed {
    Changed {
        before,
        after: after.attributes.clone(),
    }
}
