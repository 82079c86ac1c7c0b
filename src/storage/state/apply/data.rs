//! WRITE and append.

use bytes::Bytes;

use super::attributes::check_size;
use super::{Outcome, Step, changed};
use crate::storage::call::{DATA_MAX, Error, Inode, Reply};
use crate::storage::state::access;
use crate::storage::state::inode::used_after_write;

impl Step<'_, '_> {
    /// Writes at `offset`, or at the end.
    pub(super) fn write(&mut self, inode: Inode, offset: Option<u64>, data: &Bytes) -> Outcome<Reply> {
        let mut record = self.load(inode)?;
        let before = record.attributes.clone();
        let offset = offset.unwrap_or(before.size);
        check_size(&before, 0)?;
        access::may_write(&before, self.call.caller)?;
        if data.len() > DATA_MAX {
            return Err(Error::Invalid.into());
        }
        let end = offset.checked_add(data.len() as u64).ok_or(Error::TooLarge)?;
        check_size(&before, end)?;
        if !data.is_empty() {
            self.effects.contents.write(inode, offset, data)?;
            let of = &mut record.attributes;
            of.used = used_after_write(of.used, of.size, offset, end);
            of.size = of.size.max(end);
            of.mode = access::mode_after_write(of, self.call.caller);
            record.content_index = self.call.index;
            record.verifier = None;
            record.touch(self.call.time);
            self.save(&record)?;
        }
        Ok(Reply::Written {
            offset,
            changed: changed(before, &record),
        })
    }
}
