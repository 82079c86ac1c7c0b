//! File handles: opaque to clients, the same on every node and after every restart, not to be forged.
//!
//! Layout, 32 bytes, big-endian: version 1 | tree 1 | zero 2 | generation 4 | inode 8 | cluster 8 | SipHash-2-4 of these 8.
//! The tree is in the handle so that who may mount only the portal cannot reach the registry by any handle.

use bytes::{Buf, Bytes};
use nfs3_types::nfs3::{nfs_fh3, nfsstat3};
use nfs3_types::xdr_codec::Opaque;
use siphasher::sip::SipHasher24;

use crate::storage::call::{Attributes, Inode, PORTAL, REGISTRY};

const VERSION: u8 = 1;
const SIGNED: usize = 24;
const LENGTH: usize = 32;

/// One of the two exports. A handle stays within its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    Portal,
    Registry,
}

impl Tree {
    pub const ALL: [Tree; 2] = [Tree::Portal, Tree::Registry];

    /// Where it is mounted from.
    pub fn path(self) -> &'static str {
        match self {
            Tree::Portal => "/portal",
            Tree::Registry => "/registry",
        }
    }

    pub fn root(self) -> Inode {
        match self {
            Tree::Portal => PORTAL,
            Tree::Registry => REGISTRY,
        }
    }

    /// Part of the handle's format.
    fn tag(self) -> u8 {
        match self {
            Tree::Portal => 1,
            Tree::Registry => 2,
        }
    }
}

/// What a handle says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pub tree: Tree,
    pub inode: Inode,
    pub generation: u32,
}

impl Handle {
    pub fn of(tree: Tree, attributes: &Attributes) -> Self {
        Handle {
            tree,
            inode: attributes.inode,
            generation: attributes.generation,
        }
    }
}

/// Makes and reads the handles of one cluster.
pub struct Handles {
    cluster: u64,
    seal: SipHasher24,
}

impl Handles {
    /// `cluster` tells clusters apart; `key` is a secret that all nodes of the cluster share and keep.
    pub fn new(cluster: u64, key: [u8; 16]) -> Self {
        Handles {
            cluster,
            seal: SipHasher24::new_with_key(&key),
        }
    }

    /// Identity of a tree as a file system, for `fsid`.
    pub fn filesystem(&self, tree: Tree) -> u64 {
        self.cluster.wrapping_add(u64::from(tree.tag()))
    }

    pub fn encode(&self, handle: Handle) -> nfs_fh3 {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(&[VERSION, handle.tree.tag(), 0, 0]);
        bytes.extend_from_slice(&handle.generation.to_be_bytes());
        bytes.extend_from_slice(&handle.inode.0.to_be_bytes());
        bytes.extend_from_slice(&self.cluster.to_be_bytes());
        let seal = self.seal.hash(&bytes);
        bytes.extend_from_slice(&seal.to_be_bytes());
        let data = Opaque::owned(bytes);
        nfs_fh3 { data }
    }

    /// BADHANDLE for what nobody with a key made, STALE for a handle of another cluster.
    pub fn decode(&self, bytes: &Bytes) -> Result<Handle, nfsstat3> {
        if bytes.len() != LENGTH || bytes.first() != Some(&VERSION) {
            return Err(nfsstat3::NFS3ERR_BADHANDLE);
        }
        let (mut signed, mut seal) = bytes.split_at(SIGNED);
        let expected = self.seal.hash(signed);
        signed.advance(1);
        let tag = signed.get_u8();
        signed.advance(2);
        let generation = signed.get_u32();
        let inode = Inode(signed.get_u64());
        if signed.get_u64() != self.cluster {
            return Err(nfsstat3::NFS3ERR_STALE);
        }
        let tree = Tree::ALL.into_iter().find(|tree| tree.tag() == tag);
        match tree {
            Some(tree) if seal.get_u64() == expected => Ok(Handle {
                tree,
                inode,
                generation,
            }),
            _ => Err(nfsstat3::NFS3ERR_BADHANDLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HANDLE: Handle = Handle {
        tree: Tree::Portal,
        inode: Inode(0x0102_0304_0506_0708),
        generation: 9,
    };

    fn bytes(handles: &Handles, handle: Handle) -> Bytes {
        handles.encode(handle).data.into_owned().into()
    }

    /// By an implementation of SipHash-2-4 of its own.
    const SEAL: [u8; 8] = [255, 92, 110, 2, 212, 39, 9, 229];

    #[test]
    fn layout_is_the_same_in_every_version() {
        let found = bytes(&Handles::new(0xc1, [7; 16]), HANDLE);
        let expected = b"\x01\x01\0\0\0\0\0\x09\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\xc1";
        assert_eq!(found[..SIGNED], expected[..]);
        assert_eq!(found[SIGNED..], SEAL, "the seal's algorithm must not change either");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let handles = Handles::new(0xc1, [7; 16]);
        let good = bytes(&handles, HANDLE);
        assert_eq!(handles.decode(&good), Ok(HANDLE));
        for bit in 0..LENGTH * 8 {
            let mut forged = good.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(handles.decode(&forged.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_key_is_forged_and_another_cluster_is_stale() {
        let handles = Handles::new(1, [7; 16]);
        let forged = bytes(&Handles::new(1, [8; 16]), HANDLE);
        assert_eq!(handles.decode(&forged), Err(nfsstat3::NFS3ERR_BADHANDLE));
        let foreign = bytes(&Handles::new(2, [7; 16]), HANDLE);
        assert_eq!(handles.decode(&foreign), Err(nfsstat3::NFS3ERR_STALE));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(found in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Handles::new(1, [7; 16]).decode(&found.into()).is_err());
        }
    }
}
