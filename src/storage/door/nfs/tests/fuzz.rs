//! Bytes that no client should send.

use proptest::prelude::*;

use super::super::dispatch::Peer;
use super::super::handle::Handle;
use super::super::rpc::{self, Refusal};
use super::super::{Door, Handles, Tree};
use super::*;
use crate::storage::call::PORTAL;

const KEY: [u8; 16] = [9; 16];

fn answer(record: Vec<u8>) -> Option<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let door = Door::new(Arc::new(Memory::new()), Handles::new(7, KEY));
    let peer = Peer {
        address: None,
        port: 0,
        is_stranger: false,
    };
    match rpc::parse(record.into()) {
        Ok(call) => Some(runtime.block_on(door.answer(&peer, call)).head.to_vec()),
        Err(Refusal::Denied(record)) => Some(record.head.to_vec()),
        Err(Refusal::Malformed) => None,
    }
}

/// Arguments that begin with a good handle, so that what follows is reached.
fn after_handle(rest: &[u8]) -> Vec<u8> {
    let root = Handle {
        tree: Tree::Portal,
        inode: PORTAL,
        generation: 0,
    };
    let mut arguments = packed(&Handles::new(7, KEY).encode(root));
    arguments.extend_from_slice(rest);
    arguments
}

/// Words that are small more often than not: lengths, flags and enumerations that pass.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0u32..4, 1 => 0u32..300, 1 => any::<u32>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_arguments_of_any_procedure_get_one_reply(procedure in 0u32..24, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(answer(nfs(1, procedure, &bytes)[4..].to_vec()).is_some());
    }

    #[test]
    fn any_words_behind_a_good_handle_get_one_reply(procedure in 0u32..24, rest in prop::collection::vec(word(), 0..40)) {
        let bytes = after_handle(&words(&rest));
        prop_assert!(answer(nfs(1, procedure, &bytes)[4..].to_vec()).is_some());
    }

    #[test]
    fn any_program_and_version_get_one_reply(program in 99_999u32..100_006, procedure in 0u32..8, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(answer(call(1, program, procedure, &bytes)[4..].to_vec()).is_some());
    }

    #[test]
    fn any_record_is_answered_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer(bytes);
    }
}

#[test]
fn arguments_cut_anywhere_are_garbage() {
    let name = packed(&nfs3_types::nfs3::filename3::from(b"name".to_vec()));
    let whole = after_handle(&name);
    for cut in 0..whole.len() {
        let reply = answer(nfs(1, 3, &whole[..cut])[4..].to_vec()).unwrap();
        assert_eq!(reply[4..], words(&[1, 1, 0, 0, 0, 4]), "cut at {cut}");
    }
}
