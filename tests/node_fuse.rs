//! The real executable with the demo portal on replicated files that are mounted by FUSE: PHP notices nothing of a storage that is
//! killed, and what is lost is mounted anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitrix_node::host::mount::{Placed, Space, Table};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::free_port;
use crate::support::eventually::eventually;
use crate::support::http;
use crate::support::node::Node;

/// As a kernel short of memory ends it, and as its own panic does.
const ENDS: [Signal; 5] = [
    Signal::SIGKILL,
    Signal::SIGABRT,
    Signal::SIGKILL,
    Signal::SIGABRT,
    Signal::SIGKILL,
];
const READERS: usize = 3;

fn sections() -> String {
    let port = free_port();
    format!("[storage]\nengine = \"replicated\"\nlisten = \"127.0.0.1:{port}\"\n")
}

fn placed(node: &Node) -> Placed {
    let table = Table::read(Space::Own).unwrap();
    node.config.files().unwrap().placed(&table).unwrap()
}

/// Asks for all checks of the portal again and again: includes, sessions, uploads, files made and removed.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u32, Vec<String>, Duration)>>,
}

impl Load {
    fn start(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..READERS).map(|_| {
            let (stop, address) = (stop.clone(), node.http());
            std::thread::spawn(move || {
                let (mut answered, mut faults, mut worst) = (0, Vec::new(), Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    match http::get(address, "/check.json") {
                        Ok(answer) if answer.status == 200 => answered += 1,
                        Ok(answer) => faults.push(answer.text()),
                        Err(error) => faults.push(error.to_string()),
                    }
                    worst = worst.max(asked.elapsed());
                }
                (answered, faults, worst)
            })
        });
        Load {
            threads: threads.collect(),
            stop,
        }
    }

    /// Answered well, what was wrong with the others, the longest wait.
    fn end(self) -> (u32, Vec<String>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(|thread| thread.join().unwrap());
        ended.fold((0, Vec::new(), Duration::ZERO), |mut sum, (answered, faults, worst)| {
            sum.1.extend(faults);
            (sum.0 + answered, sum.1, sum.2.max(worst))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn php_does_not_notice_that_the_storage_is_killed() {
    let node = Node::start(&sections()).await;
    assert_eq!(placed(&node), Placed::Ours);
    let load = Load::start(&node);
    for signal in ENDS {
        let old = node.pid("storage").expect("it runs");
        kill(Pid::from_raw(old), signal).unwrap();
        eventually("the storage is back", async || {
            let row = node.service("storage");
            if row["phase"] == "ready" && row["pid"] != old {
                Ok(())
            } else {
                Err(row.to_string())
            }
        })
        .await;
        node.be_green().await;
    }
    let (answered, faults, worst) = load.end();
    println!(
        "{} ends of the storage: {answered} answered, {} faults, worst {worst:.2?}",
        ENDS.len(),
        faults.len()
    );
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(answered as usize > ENDS.len());
    let seen = node.command(&["storage", "status"]);
    assert!(seen.out.contains("locks hold on all nodes"), "{}{}", seen.out, seen.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_detached_or_left_by_a_killed_supervisor_is_mounted_anew() {
    let mut node = Node::start(&sections()).await;
    umount2(&node.config.mount_point(), MntFlags::MNT_DETACH).unwrap();
    eventually("it is mounted again", async || match placed(&node) {
        Placed::Ours => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    node.be_green().await;
    let counted = node.service("mount")["restarts"].as_u64();
    assert_eq!(counted, Some(1), "{}", node.status());

    node.signal_supervisor(Signal::SIGKILL);
    node.wait_for_end();
    assert_eq!(placed(&node), Placed::Ours, "nobody let go of it");
    node.run();
    node.be_healthy().await;
    node.be_green().await;
    node.signal_supervisor(Signal::SIGTERM);
    assert_eq!(node.wait_for_end(), Some(0));
    assert_eq!(placed(&node), Placed::Nothing);
}
