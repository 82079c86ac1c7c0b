//! The FUSE door before a whole group: what outlives a process, interrupts, and locks that hold on all nodes.

use nix::errno::Errno;
use nix::libc::{F_RDLCK, F_UNLCK, F_WRLCK};
use zerocopy::IntoBytes;

use super::kernel::Kernel;
use super::node::*;
use crate::storage::door::fuse::wire::abi::{self, opcode};

/// A group of three; kernels mount at so many of its nodes.
async fn mounted(count: usize) -> (Vec<Node>, Vec<Kernel>) {
    let mut nodes = three().await;
    let mut kernels = Vec::new();
    for node in nodes.iter_mut().take(count) {
        node.kill();
        kernels.push(Kernel::mount(node));
        node.start();
        node.until("is back", |report| report.leader.is_some() && report.copies == 3)
            .await;
    }
    (nodes, kernels)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_is_done_once_by_the_process_that_comes_next() {
    let (mut nodes, mut kernels) = mounted(1).await;
    let kernel = &mut kernels[0];
    assert_eq!(kernel.look(b"folder").await, 0);
    let file = kernel.create(b"file").await;
    // Alone, this node can promise nothing new: what is asked now waits.
    nodes[1..].iter_mut().for_each(Node::kill);
    let made = kernel
        .send(
            opcode::MKDIR,
            1,
            &[abi::MakeFolderIn::default().as_bytes(), b"folder\0"],
        )
        .await;
    assert_eq!(kernel.write(file, 0, b"written ").await, 8);
    assert_eq!(
        kernel.write(file, 8, b"behind").await,
        6,
        "it is taken without the leader"
    );
    let flush = abi::FlushIn::default();
    let flushed = kernel.send(opcode::FLUSH, file.0, &[flush.as_bytes()]).await;
    // A signal that does not end the process changes nothing for it.
    kernel.interrupt(made).await;
    nodes[0].kill();
    kernel.renew().await;
    nodes.iter_mut().for_each(Node::start);
    kernel.answer(made).await.expect("made, and not found made");
    kernel.answer(flushed).await.expect("it is with the leader");
    assert_ne!(kernel.look(b"folder").await, 0);
    assert_eq!(kernel.read(file).await.unwrap(), b"written behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_lock_is_interrupted_and_leaves_nothing_behind() {
    let (_nodes, mut kernels) = mounted(1).await;
    let kernel = &mut kernels[0];
    let (file, _) = kernel.create(b"file").await;
    let (first, second) = ((file, 1), (file, 2));
    let locked = kernel.flock(first, F_WRLCK, false).await;
    kernel.answer(locked).await.unwrap();
    let refused = kernel.flock(second, F_WRLCK, false).await;
    assert_eq!(kernel.answer(refused).await, Err(Errno::EAGAIN as i32));
    let waiting = kernel.flock(second, F_WRLCK, true).await;
    kernel.interrupt(waiting).await;
    assert_eq!(kernel.answer(waiting).await, Err(Errno::EINTR as i32));
    let unlocked = kernel.flock(first, F_UNLCK, false).await;
    kernel.answer(unlocked).await.unwrap();
    let again = kernel.flock(first, F_WRLCK, false).await;
    kernel.answer(again).await.expect("nobody else has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_from_node_to_node_and_stays_while_it_is_used() {
    let (mut nodes, mut kernels) = mounted(2).await;
    let (mut here, mut there) = (kernels.remove(0), kernels.remove(0));
    let (file, _) = here.create(b"file").await;
    assert_eq!(there.look(b"file").await, file);
    for owner in 1..4 {
        let locked = here.flock((file, owner), F_WRLCK, false).await;
        here.answer(locked).await.unwrap();
        let refused = there.flock((file, owner), F_WRLCK, false).await;
        assert_eq!(there.answer(refused).await, Err(Errno::EAGAIN as i32));
        let waiting = there.flock((file, owner), F_WRLCK, true).await;
        let unlocked = here.flock((file, owner), F_UNLCK, false).await;
        here.answer(unlocked).await.unwrap();
        there.answer(waiting).await.expect("its turn");
        let unlocked = there.flock((file, owner), F_UNLCK, false).await;
        there.answer(unlocked).await.unwrap();
    }
    let locked = here.flock((file, 9), F_WRLCK, true).await;
    here.answer(locked).await.unwrap();
    // The next process of the door has what this one had.
    nodes[0].kill();
    here.renew().await;
    nodes[0].start();
    let refused = there.flock((file, 1), F_WRLCK, false).await;
    assert_eq!(there.answer(refused).await, Err(Errno::EAGAIN as i32));
    let unlocked = here.flock((file, 9), F_UNLCK, false).await;
    here.answer(unlocked).await.unwrap();
    let waiting = there.flock((file, 1), F_WRLCK, true).await;
    there.answer(waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_share_a_lock_and_both_want_it_alone_one_gets_it() {
    let (_nodes, mut kernels) = mounted(2).await;
    let (mut here, mut there) = (kernels.remove(0), kernels.remove(0));
    let (file, _) = here.create(b"file").await;
    assert_eq!(there.look(b"file").await, file);
    // On one node.
    for owner in [1, 2] {
        let shared = here.flock((file, owner), F_RDLCK, false).await;
        here.answer(shared).await.unwrap();
    }
    let waiting = here.flock((file, 1), F_WRLCK, true).await;
    let alone = here.flock((file, 2), F_WRLCK, true).await;
    here.answer(alone).await.expect("the other one waits without a lock");
    let unlocked = here.flock((file, 2), F_UNLCK, false).await;
    here.answer(unlocked).await.unwrap();
    here.answer(waiting).await.expect("its turn");
    let unlocked = here.flock((file, 1), F_UNLCK, false).await;
    here.answer(unlocked).await.unwrap();
    // On two.
    let shared = here.flock((file, 1), F_RDLCK, true).await;
    here.answer(shared).await.unwrap();
    let shared = there.flock((file, 1), F_RDLCK, true).await;
    there.answer(shared).await.unwrap();
    let (mine, theirs) = (
        here.flock((file, 1), F_WRLCK, true).await,
        there.flock((file, 1), F_WRLCK, true).await,
    );
    let is_mine = tokio::select! {
        granted = here.answer(mine) => granted.map(|_| true),
        granted = there.answer(theirs) => granted.map(|_| false),
    };
    let (first, second, waiting) = match is_mine.expect("one of them") {
        true => (&mut here, &mut there, theirs),
        false => (&mut there, &mut here, mine),
    };
    let unlocked = first.flock((file, 1), F_UNLCK, false).await;
    first.answer(unlocked).await.unwrap();
    second.answer(waiting).await.expect("its turn");
    // Who is refused has lost what it had.
    let shared = first.flock((file, 1), F_RDLCK, false).await;
    assert_eq!(first.answer(shared).await, Err(Errno::EAGAIN as i32));
    let unlocked = second.flock((file, 1), F_UNLCK, false).await;
    second.answer(unlocked).await.unwrap();
    for owner in [1, 2] {
        let shared = first.flock((file, owner), F_RDLCK, true).await;
        first.answer(shared).await.unwrap();
    }
    let refused = first.flock((file, 1), F_WRLCK, false).await;
    assert_eq!(first.answer(refused).await, Err(Errno::EAGAIN as i32));
    let alone = first.flock((file, 2), F_WRLCK, false).await;
    first.answer(alone).await.expect("nobody else has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mount_had_locked_is_free_when_there_is_another_one() {
    let (mut nodes, mut kernels) = mounted(2).await;
    let (mut before, mut there) = (kernels.remove(0), kernels.remove(0));
    let file = before.create(b"file").await;
    assert_eq!(there.look(b"file").await, file.0);
    // The node keeps the one, though nobody has it.
    let mut locked = vec![before.fcntl(file, 1, F_WRLCK, false).await];
    for kind in [F_WRLCK, F_UNLCK] {
        locked.push(before.flock((file.0, 1), kind, false).await);
        before.answer(locked.pop().unwrap()).await.unwrap();
    }
    before.answer(locked.pop().unwrap()).await.unwrap();
    nodes[0].kill();
    drop(before);
    let mut here = Kernel::mount(&mut nodes[0]);
    nodes[0].start();
    let waiting = there.flock((file.0, 1), F_WRLCK, true).await;
    there.answer(waiting).await.expect("nobody has it");
    let waiting = there.fcntl((file.0, 1), 1, F_WRLCK, true).await;
    there.answer(waiting).await.expect("its owner is gone");
    // What the new one has locked its next process has, too.
    let unlocked = there.fcntl((file.0, 1), 1, F_UNLCK, false).await;
    there.answer(unlocked).await.unwrap();
    let opened = (file.0, here.open(file.0).await);
    let waiting = here.fcntl(opened, 1, F_WRLCK, true).await;
    here.answer(waiting).await.unwrap();
    nodes[0].kill();
    here.renew().await;
    nodes[0].start();
    here.create(b"other").await;
    let refused = there.fcntl((file.0, 1), 1, F_WRLCK, false).await;
    assert_eq!(there.answer(refused).await, Err(Errno::EAGAIN as i32));
}

/// Somebody had the file and let it go: the node keeps it.
async fn leave_locked(kernel: &mut Kernel, file: u64) {
    for kind in [F_WRLCK, F_UNLCK] {
        let locked = kernel.flock((file, 1), kind, false).await;
        kernel.answer(locked).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_cut_off_for_long_has_no_lock_any_more() {
    let (mut nodes, mut kernels) = mounted(2).await;
    let (mut here, mut there) = (kernels.remove(0), kernels.remove(0));
    let (file, _) = here.create(b"file").await;
    leave_locked(&mut here, file).await;
    nodes[0].kill();
    // A leader waits for half a minute, and the next one for as long again.
    let start = std::time::Instant::now();
    loop {
        let asked = there.flock((file, 1), F_WRLCK, false).await;
        if there.answer(asked).await.is_ok() {
            break;
        }
        assert!(start.elapsed() < PATIENCE * 4, "that node is waited for still");
    }
    here.renew().await;
    nodes[0].start();
    let refused = here.flock((file, 2), F_WRLCK, false).await;
    assert_eq!(here.answer(refused).await, Err(Errno::EAGAIN as i32));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_which_no_note_is_left_goes_to_who_waits_for_it() {
    let (mut nodes, mut kernels) = mounted(2).await;
    let (mut here, mut there) = (kernels.remove(0), kernels.remove(0));
    let (file, _) = here.create(b"file").await;
    leave_locked(&mut here, file).await;
    nodes[0].kill();
    here.scramble();
    here.renew().await;
    nodes[0].start();
    let waiting = there.flock((file, 1), F_WRLCK, true).await;
    there.answer(waiting).await.expect("it is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_go_with_the_last_handle_that_they_were_asked_by() {
    let (mut nodes, mut kernels) = mounted(2).await;
    let (mut here, mut there) = (kernels.remove(0), kernels.remove(0));
    let file = here.create(b"file").await;
    let other = there.look(b"file").await;
    let reading = (file.0, here.open(file.0).await);
    // A process and its child, by one handle; another one has the file open.
    for owner in [1, 2] {
        let locked = here.fcntl(reading, owner, F_RDLCK, false).await;
        here.answer(locked).await.unwrap();
    }
    here.release(reading).await;
    let waiting = there.fcntl((other, 0), 1, F_WRLCK, true).await;
    there.answer(waiting).await.expect("both are gone");
    let unlocked = there.fcntl((other, 0), 1, F_UNLCK, false).await;
    there.answer(unlocked).await.unwrap();
    // What the process before knew of handles the next one does not.
    let reading = (file.0, here.open(file.0).await);
    let locked = here.fcntl(reading, 1, F_RDLCK, true).await;
    here.answer(locked).await.unwrap();
    nodes[0].kill();
    here.renew().await;
    nodes[0].start();
    here.release(reading).await;
    let refused = there.fcntl((other, 0), 1, F_WRLCK, false).await;
    assert_eq!(there.answer(refused).await, Err(Errno::EAGAIN as i32));
    here.release(file).await;
    let waiting = there.fcntl((other, 0), 1, F_WRLCK, true).await;
    there.answer(waiting).await.expect("nobody there has it open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_loses_its_name_is_there_for_who_has_it_open() {
    let (_nodes, mut kernels) = mounted(2).await;
    let (mut here, mut there) = (kernels.remove(0), kernels.remove(0));
    let file = here.create(b"file").await;
    assert_eq!(here.write(file, 0, b"content").await, 7);
    let flush = abi::FlushIn::default();
    here.ask(opcode::FLUSH, file.0, &[flush.as_bytes()]).await.unwrap();
    let seen = there.look(b"file").await;
    let handle = there.open(seen).await;
    here.ask(opcode::UNLINK, 1, &[b"file\0"]).await.unwrap();
    assert_eq!(there.look(b"file").await, 0);
    assert_eq!(there.read((seen, handle)).await.unwrap(), b"content");
    assert_eq!(here.read(file).await.unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_were_promised_are_forgotten_when_the_lease_is_over() {
    let (mut nodes, mut kernels) = mounted(1).await;
    let kernel = &mut kernels[0];
    kernel.create(b"file").await;
    kernel.keep(b"file").await;
    kernel.keep(b"none").await;
    nodes[1..].iter_mut().for_each(Node::kill);
    let mut forgotten = [kernel.forgets().await, kernel.forgets().await];
    forgotten.sort();
    assert_eq!(forgotten, [b"file".to_vec(), b"none".to_vec()]);
}
