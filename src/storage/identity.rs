//! The identity of a store: random, made once with the store, bound to the node's number by the group's membership.
//! A node that lost its disk comes with another one, and must join under another number.

use std::io;

use bytes::{Buf, BufMut};

use super::disk::Disk;
use super::types::{NodeId, StoreId};

const NAME: &str = "store";
const VERSION: u8 = 1;
const SIZE: usize = 1 + 8 + 16 + 4;

/// Reads the identity of the store in `disk`, or makes one if the folder is empty.
/// Fails when the store is another node's, or was emptied in part.
pub fn ensure(disk: &dyn Disk, node: NodeId) -> io::Result<StoreId> {
    let names = disk.list()?;
    if names.iter().any(|name| name == NAME) {
        return read(disk, node);
    }
    if let Some(name) = names.iter().find(|name| !name.ends_with(".tmp")) {
        let text = format!("the store has {name} but no identity; it is not whole");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    make(disk, node)
}

/// Gives the store in `disk` another identity.
pub fn renew(disk: &dyn Disk, node: NodeId) -> io::Result<StoreId> {
    read(disk, node)?;
    make(disk, node)
}

fn make(disk: &dyn Disk, node: NodeId) -> io::Result<StoreId> {
    let mut id = StoreId::default();
    getrandom::fill(&mut id.0).map_err(|error| io::Error::other(error.to_string()))?;
    let mut bytes = vec![VERSION];
    bytes.put_u64_le(node);
    bytes.put_slice(&id.0);
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    let file = disk.create("store.tmp")?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    disk.rename("store.tmp", NAME)?;
    disk.sync()?;
    Ok(id)
}

fn read(disk: &dyn Disk, node: NodeId) -> io::Result<StoreId> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let file = disk.open(NAME)?;
    let mut bytes = [0; SIZE];
    file.read_at(&mut bytes, 0)?;
    let (mut fields, mut crc) = bytes.split_at(SIZE - 4);
    if crc32c::crc32c(fields) != crc.get_u32_le() || fields.get_u8() != VERSION {
        return Err(damaged("the store's identity is damaged".into()));
    }
    let owner = fields.get_u64_le();
    if owner != node {
        return Err(damaged(format!(
            "the store belongs to node {owner}, not to node {node}"
        )));
    }
    let mut id = StoreId::default();
    fields.copy_to_slice(&mut id.0);
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faulty_disk::FaultyDisk;

    #[test]
    fn an_identity_lasts_and_belongs_to_one_node() {
        let disk = FaultyDisk::default();
        let id = ensure(&disk, 1).unwrap();
        assert_eq!(ensure(&disk, 1).unwrap(), id);
        assert!(ensure(&disk, 2).is_err());
        assert_ne!(
            ensure(&FaultyDisk::default(), 1).unwrap(),
            id,
            "a wiped store is another"
        );
        disk.damage(NAME, |bytes| bytes[12] ^= 1);
        assert!(ensure(&disk, 1).is_err());
    }

    #[test]
    fn a_store_without_identity_is_refused() {
        let disk = FaultyDisk::default();
        disk.create("vote").unwrap();
        assert!(ensure(&disk, 1).is_err());
    }
}
