//! New objects and new names: CREATE, MKDIR, SYMLINK, MKNOD, LINK.

use super::attributes::{check_size, set_times};
use super::{Outcome, Step, changed};
use crate::storage::call::{
    Attributes, Change, Changed, Creation, Error, Inode, Kind, REGISTRY, Reply, TARGET_MAX, Time,
};
use crate::storage::state::inode::{FIRST_COOKIE, Place, Record};
use crate::storage::state::{LINKS_MAX, access, inode};

/// What is special about a new object.
struct Make<'a> {
    kind: Kind,
    device: (u32, u32),
    target: Option<&'a [u8]>,
    verifier: Option<u64>,
}

impl Make<'_> {
    fn kind(kind: Kind) -> Self {
        Make {
            kind,
            device: (0, 0),
            target: None,
            verifier: None,
        }
    }
}

impl Step<'_, '_> {
    pub(super) fn create(&mut self, folder: Inode, name: &[u8], how: Creation, change: &Change) -> Outcome<Reply> {
        let make = Make {
            verifier: match how {
                Creation::Exclusive(verifier) => Some(verifier),
                Creation::Unchecked | Creation::Guarded => None,
            },
            ..Make::kind(Kind::File)
        };
        let record = self.folder(folder)?;
        access::check_name(name)?;
        match (self.named(folder, name)?, how) {
            (None, _) => self.make(record, name, &make, change),
            (Some(found), Creation::Exclusive(verifier)) if found.verifier == Some(verifier) => {
                Ok(object(&found, &record))
            }
            (Some(found), Creation::Unchecked) => self.take(found, &record, change),
            (Some(_), _) => Err(Error::Exists.into()),
        }
    }

    /// A file that is there: of what its maker wants only the size is honoured.
    fn take(&mut self, mut found: Record, folder: &Record, change: &Change) -> Outcome<Reply> {
        match found.attributes.kind {
            Kind::File => {}
            Kind::Folder => return Err(Error::IsFolder.into()),
            _ => return Err(Error::Exists.into()),
        }
        if let Some(size) = change.size {
            access::may_write(&found.attributes, self.call.caller)?;
            check_size(&found.attributes, size)?;
            self.resize(&mut found, size)?;
            found.verifier = None;
            found.attributes.mode = access::mode_after_write(&found.attributes, self.call.caller);
            self.save(&found)?;
        }
        Ok(object(&found, folder))
    }

    pub(super) fn make_folder(&mut self, folder: Inode, name: &[u8], change: &Change) -> Outcome<Reply> {
        self.make_new(folder, name, &Make::kind(Kind::Folder), change)
    }

    pub(super) fn make_link(&mut self, folder: Inode, name: &[u8], target: &[u8], change: &Change) -> Outcome<Reply> {
        if target.is_empty() {
            return Err(Error::NotFound.into());
        }
        if target.len() > TARGET_MAX {
            return Err(Error::NameTooLong.into());
        }
        if target.contains(&0) {
            return Err(Error::Invalid.into());
        }
        let make = Make {
            target: Some(target),
            ..Make::kind(Kind::Link)
        };
        self.make_new(folder, name, &make, change)
    }

    pub(super) fn make_node(
        &mut self,
        folder: Inode,
        name: &[u8],
        (kind, device): (Kind, (u32, u32)),
        change: &Change,
    ) -> Outcome<Reply> {
        let device = match kind {
            Kind::Fifo | Kind::Socket => (0, 0),
            Kind::Character | Kind::Block if access::is_root(self.call.caller) => device,
            Kind::Character | Kind::Block => return Err(Error::NotOwner.into()),
            Kind::File | Kind::Folder | Kind::Link => return Err(Error::Invalid.into()),
        };
        let make = Make {
            device,
            ..Make::kind(kind)
        };
        self.make_new(folder, name, &make, change)
    }

    fn make_new(&mut self, folder: Inode, name: &[u8], make: &Make<'_>, change: &Change) -> Outcome<Reply> {
        let record = self.folder(folder)?;
        access::check_name(name)?;
        if self.named(folder, name)?.is_some() {
            return Err(Error::Exists.into());
        }
        self.make(record, name, make, change)
    }

    fn make(&mut self, mut folder: Record, name: &[u8], make: &Make<'_>, change: &Change) -> Outcome<Reply> {
        self.may_add(&folder)?;
        let before = folder.attributes.clone();
        let mut record = self.new_record(&folder, name, make, change)?;
        if let Some(size) = change.size {
            check_size(&record.attributes, size)?;
        }
        if make.kind == Kind::File {
            self.effects.contents.create(record.id())?;
            if let Some(size) = change.size.filter(|size| *size > 0) {
                self.resize(&mut record, size)?;
            }
        }
        set_times(&mut record.attributes, change, self.call.time);
        self.save(&record)?;
        self.add_name(&mut folder, name, &record)?;
        self.save(&folder)?;
        self.mirror(folder.id(), name, Some(&record))?;
        Ok(Reply::Object {
            attributes: record.attributes,
            folder: Some(changed(before, &folder)),
        })
    }

    fn new_record(&self, folder: &Record, name: &[u8], make: &Make<'_>, change: &Change) -> Outcome<Record> {
        let fresh = self.call.fresh;
        // The leader's choice is checked, for a number given twice would mix two files.
        if fresh <= REGISTRY || inode::load(self.rows, fresh)?.is_some() {
            return Err(Error::Invalid.into());
        }
        let (uid, gid, mode) = access::of_new(&folder.attributes, self.call.caller, make.kind, change)?;
        let is_folder = make.kind == Kind::Folder;
        let target_length = make.target.map_or(0, |target| target.len() as u64);
        Ok(Record {
            attributes: Attributes {
                inode: fresh,
                generation: generation(self.call.time),
                kind: make.kind,
                mode,
                links: if is_folder { 2 } else { 1 },
                uid,
                gid,
                size: target_length,
                used: 0,
                device: make.device,
                accessed: self.call.time,
                modified: self.call.time,
                changed: self.call.time,
            },
            tree: folder.tree,
            place: is_folder.then(|| Place {
                parent: folder.id(),
                name: name.to_vec(),
            }),
            entries: 0,
            next_cookie: FIRST_COOKIE,
            verifier: make.verifier,
            target: make.target.map(<[u8]>::to_vec),
            content_index: self.call.index,
        })
    }

    pub(super) fn link(&mut self, inode: Inode, folder: Inode, name: &[u8]) -> Outcome<Reply> {
        let mut record = self.load(inode)?;
        let mut folder = self.folder(folder)?;
        access::check_name(name)?;
        if self.named(folder.id(), name)?.is_some() {
            return Err(Error::Exists.into());
        }
        self.may_add(&folder)?;
        let of = &mut record.attributes;
        if of.kind == Kind::Folder {
            return Err(Error::NotOwner.into());
        }
        if of.links == 0 {
            return Err(Error::NotFound.into());
        }
        if record.tree != folder.tree {
            return Err(Error::Invalid.into());
        }
        if of.links >= LINKS_MAX {
            return Err(Error::TooManyLinks.into());
        }
        let before = folder.attributes.clone();
        of.links += 1;
        of.changed = self.call.time;
        self.save(&record)?;
        self.add_name(&mut folder, name, &record)?;
        self.save(&folder)?;
        self.mirror(folder.id(), name, Some(&record))?;
        Ok(Reply::Linked {
            attributes: record.attributes,
            folder: changed(before, &folder),
        })
    }
}

/// Ids are never reused; but should a number be given again after an unclean recovery has lost its first holder,
/// an old handle is still told from a new one.
fn generation(time: Time) -> u32 {
    let mixed = time.seconds.cast_unsigned().wrapping_mul(1_000_000_007) ^ u64::from(time.nanoseconds);
    u32::try_from((mixed ^ mixed >> 32) & u64::from(u32::MAX)).expect("32 bits")
}

/// An object that was there; its folder has not changed.
fn object(found: &Record, folder: &Record) -> Reply {
    Reply::Object {
        attributes: found.attributes.clone(),
        folder: Some(Changed {
            before: folder.attributes.clone(),
            after: folder.attributes.clone(),
        }),
    }
}
