//! SETATTR.

use super::{Outcome, Step, changed};
use crate::storage::call::{Attributes, Change, Error, Inode, Kind, Reply, SetTime, Time};
use crate::storage::state::inode::{Record, blocks};
use crate::storage::state::{FILE_MAX, access};

impl Step<'_, '_> {
    pub(super) fn set(&mut self, inode: Inode, change: &Change, guard: Option<Time>) -> Outcome<Reply> {
        let mut record = self.load(inode)?;
        let before = record.attributes.clone();
        if guard.is_some_and(|guard| guard != before.changed) {
            return Err(Error::NotSync.into());
        }
        if *change == Change::default() {
            return Ok(Reply::Set(changed(before, &record)));
        }
        access::may_set(&before, self.call.caller, change)?;
        if let Some(size) = change.size {
            check_size(&before, size)?;
            self.resize(&mut record, size)?;
        }
        let of = &mut record.attributes;
        of.mode = access::mode_after_set(&before, self.call.caller, change);
        of.uid = change.uid.unwrap_or(of.uid);
        of.gid = change.gid.unwrap_or(of.gid);
        set_times(of, change, self.call.time);
        of.changed = self.call.time;
        record.verifier = None;
        if record.is_folder() {
            self.effects.touched.access(inode);
        }
        self.save(&record)?;
        Ok(Reply::Set(changed(before, &record)))
    }

    /// Cuts or extends a file. The caller saves the record.
    pub(super) fn resize(&mut self, record: &mut Record, size: u64) -> Outcome<()> {
        self.effects.contents.set_len(record.id(), size)?;
        let of = &mut record.attributes;
        of.used = of.used.min(blocks(size));
        of.size = size;
        record.content_index = self.call.index;
        record.touch(self.call.time);
        Ok(())
    }
}

/// May an object like this have this size?
pub(super) fn check_size(of: &Attributes, size: u64) -> Result<(), Error> {
    match of.kind {
        Kind::File if size <= FILE_MAX => Ok(()),
        Kind::File => Err(Error::TooLarge),
        Kind::Folder => Err(Error::IsFolder),
        _ => Err(Error::Invalid),
    }
}

pub(super) fn set_times(of: &mut Attributes, change: &Change, now: Time) {
    let chosen = |set: SetTime| match set {
        SetTime::Now => now,
        SetTime::At(time) => time,
    };
    if let Some(set) = change.accessed {
        of.accessed = chosen(set);
    }
    if let Some(set) = change.modified {
        of.modified = chosen(set);
    }
}
