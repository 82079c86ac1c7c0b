//! REMOVE and RMDIR.

use super::{Outcome, Step, changed};
use crate::storage::call::{Error, Inode, Reply};
use crate::storage::state::access;
use crate::storage::state::inode::Record;

impl Step<'_, '_> {
    pub(super) fn remove(&mut self, folder: Inode, name: &[u8]) -> Outcome<Reply> {
        let (folder, object) = self.removable(folder, name)?;
        if object.is_folder() {
            return Err(Error::IsFolder.into());
        }
        self.take_out(folder, name, object)
    }

    pub(super) fn remove_folder(&mut self, folder: Inode, name: &[u8]) -> Outcome<Reply> {
        let (folder, object) = self.removable(folder, name)?;
        if !object.is_folder() {
            return Err(Error::NotFolder.into());
        }
        if object.entries > 0 {
            return Err(Error::NotEmpty.into());
        }
        self.take_out(folder, name, object)
    }

    fn removable(&self, folder: Inode, name: &[u8]) -> Outcome<(Record, Record)> {
        let folder = self.folder(folder)?;
        access::check_name(name)?;
        let object = self.named(folder.id(), name)?.ok_or(Error::NotFound)?;
        access::may_remove(&folder.attributes, &object.attributes, self.call.caller)?;
        Ok((folder, object))
    }

    fn take_out(&mut self, mut folder: Record, name: &[u8], mut object: Record) -> Outcome<Reply> {
        let before = folder.attributes.clone();
        self.drop_name(&mut folder, name, &object)?;
        self.save(&folder)?;
        self.mirror(folder.id(), name, None)?;
        self.lose_name(&mut object)?;
        Ok(Reply::Removed {
            folder: changed(before, &folder),
        })
    }

    /// An object whose name was taken out of its folder. An empty folder loses its own `.` too.
    pub(super) fn lose_name(&mut self, object: &mut Record) -> Outcome<()> {
        if object.is_folder() {
            object.attributes.links = 0;
            object.place = None;
            self.effects.paths.remove(&object.id());
        } else {
            object.attributes.links -= 1;
        }
        object.attributes.changed = self.call.time;
        self.save_or_free(object)
    }
}
