//! RENAME: atomic, over an existing object too.

use super::{Outcome, Step, changed};
use crate::storage::call::{Changed, Error, Inode, Reply};
use crate::storage::state::inode::{Place, Record};
use crate::storage::state::tree::Action;
use crate::storage::state::{access, entry, inode};

impl Step<'_, '_> {
    pub(super) fn rename(&mut self, old: (Inode, &[u8]), new: (Inode, &[u8])) -> Outcome<Reply> {
        let from = self.folder(old.0)?;
        let to = self.folder(new.0)?;
        access::check_name(old.1)?;
        access::check_name(new.1)?;
        let object = self.named(old.0, old.1)?.ok_or(Error::NotFound)?;
        let victim = self.named(new.0, new.1)?;
        self.check_rename(&from, &to, &object, victim.as_ref())?;
        if victim.as_ref().is_some_and(|victim| victim.id() == object.id()) {
            let same = |folder: &Record| Changed {
                before: folder.attributes.clone(),
                after: folder.attributes.clone(),
            };
            return Ok(Reply::Renamed {
                from: same(&from),
                to: same(&to),
            });
        }
        self.move_name((from, old.1), (to, new.1), object, victim)
    }

    fn check_rename(&self, from: &Record, to: &Record, object: &Record, victim: Option<&Record>) -> Outcome<()> {
        let caller = self.call.caller;
        if from.tree != to.tree {
            return Err(Error::Invalid.into());
        }
        if object.is_folder() && inode::lies_in(self.rows, to.id(), object.id())? {
            return Err(Error::Invalid.into());
        }
        access::may_remove(&from.attributes, &object.attributes, caller)?;
        match victim {
            None => self.may_add(to)?,
            Some(victim) => {
                // What lies above the source is a folder that is not empty.
                access::may_remove(&to.attributes, &victim.attributes, caller)?;
                match (object.is_folder(), victim.is_folder()) {
                    (true, false) => return Err(Error::NotFolder.into()),
                    (false, true) => return Err(Error::IsFolder.into()),
                    (true, true) if victim.entries > 0 && victim.id() != object.id() => {
                        return Err(Error::NotEmpty.into());
                    }
                    _ => {}
                }
            }
        }
        if object.is_folder() && from.id() != to.id() {
            // Its `..` changes.
            access::need(&object.attributes, caller, access::WRITE)?;
        }
        Ok(())
    }

    fn move_name(
        &mut self,
        (mut from, name): (Record, &[u8]),
        (mut to, new_name): (Record, &[u8]),
        mut object: Record,
        victim: Option<Record>,
    ) -> Outcome<Reply> {
        let before = (from.attributes.clone(), to.attributes.clone());
        let is_same_folder = from.id() == to.id();
        self.drop_name(&mut from, name, &object)?;
        let target = if is_same_folder { &mut from } else { &mut to };
        match &victim {
            // The name keeps its cookie, so that a listing under way shows it once.
            Some(victim) => {
                self.effects.touched.name(target.id(), new_name, Some(object.id()));
                entry::redirect(self.rows, target.id(), new_name, object.id())?;
                if object.is_folder() {
                    target.attributes.links += 1;
                }
                if victim.is_folder() {
                    target.attributes.links -= 1;
                }
                target.touch(self.call.time);
            }
            None => self.add_name(target, new_name, &object)?,
        }
        self.save(&from)?;
        if is_same_folder {
            to = from.clone();
        } else {
            self.save(&to)?;
        }
        self.mirror_move(from.id(), name, (to.id(), new_name), &object)?;
        object.attributes.changed = self.call.time;
        if object.is_folder() {
            object.place = Some(Place {
                parent: to.id(),
                name: new_name.to_vec(),
            });
            self.effects.paths.clear();
        }
        self.save(&object)?;
        if let Some(mut victim) = victim {
            self.lose_name(&mut victim)?;
        }
        Ok(Reply::Renamed {
            from: changed(before.0, &from),
            to: changed(before.1, &to),
        })
    }

    fn mirror_move(&mut self, from: Inode, name: &[u8], to: (Inode, &[u8]), object: &Record) -> Outcome<()> {
        if !object.is_folder() {
            self.mirror(from, name, None)?;
            return self.mirror(to.0, to.1, Some(object));
        }
        let from = self.mirror_path(from, name)?;
        let to = self.mirror_path(to.0, to.1)?;
        if let Some((from, to)) = from.zip(to) {
            let folder = object.id();
            self.effects.mirror.push(Action::Move { from, to, folder });
        }
        Ok(())
    }
}
