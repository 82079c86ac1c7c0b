//! The receiver dies at every effect on its disk while it receives and installs, before and after Raft has purged the log.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::storage::state::tests::faulty::{Fault, FaultyDisk};
use crate::storage::state::tests::random::fixed_rolls;

/// Entries that the receiver has, up to its checkpoint and without one, and that the sender has.
const SETTLED: usize = 30;
const OWN: usize = 50;
const SENT: usize = 100;

#[derive(Clone, Copy, Debug)]
struct Crash {
    at: u64,
    is_power_cut: bool,
    /// Raft purges the log when it is asked to install, or dies before it does.
    is_purged: bool,
}

struct Scene {
    script: Script,
    source: Replica,
}

impl Scene {
    fn new() -> Self {
        let script = Script::of(&fixed_rolls(11, 450));
        assert!(script.entries.len() > SENT + 20);
        let source = Replica::real();
        source.follow(&script, SENT).unwrap();
        Scene { script, source }
    }

    fn receiver(&self, faulty: &Arc<FaultyDisk>) -> Replica {
        let target = Replica::new(faulty.clone());
        target.follow(&self.script, SETTLED).unwrap();
        target.machine().get().checkpoint().unwrap();
        target.follow(&self.script, OWN).unwrap();
        target
    }

    /// Calls to the disk of an undisturbed transfer.
    async fn calls(&self) -> u64 {
        let faulty = Arc::new(FaultyDisk::default());
        let target = self.receiver(&faulty);
        let before = faulty.calls();
        let (answer, _) = transfer(self.source.machine(), &target, None, || ()).await;
        assert_eq!(answer.unwrap(), "installed");
        let calls = faulty.calls() - before;
        target.follow(&self.script, self.script.entries.len()).unwrap();
        target.assert_done(&self.script);
        calls
    }

    /// Dies once, starts again, receives again if the log asks for it, and follows to the end. Whether Raft was asked.
    async fn crash(&self, crash: Crash) -> bool {
        let faulty = Arc::new(FaultyDisk::default());
        let mut target = self.receiver(&faulty);
        faulty.fail(crash.at, Fault::Dead);
        let asked = Arc::new(AtomicBool::new(false));
        let seen = asked.clone();
        let _ = transfer(self.source.machine(), &target, None, move || {
            seen.store(true, Ordering::Relaxed);
        })
        .await;
        target.machine = None;
        match crash.is_power_cut {
            true => faulty.cut_power(crash.at),
            false => faulty.kill(),
        }
        let asked = asked.load(Ordering::Relaxed);
        let purged = Some(SENT as u64 - 1).filter(|_| asked && crash.is_purged);
        target
            .open(purged)
            .unwrap_or_else(|failure| panic!("{crash:?}: {failure}"));
        let applied = target.machine().get().applied();
        assert!(applied >= purged, "{crash:?}: the log lacks what the state needs");
        if !asked {
            let (answer, counts) = transfer(self.source.machine(), &target, None, || ()).await;
            assert_eq!(answer.unwrap(), "installed", "{crash:?}");
            assert_eq!(counts.files, counts.files_total, "{crash:?}");
        }
        target.follow(&self.script, self.script.entries.len()).unwrap();
        target.assert_done(&self.script);
        asked
    }
}

/// Every fifth call is enough for each run: their kinds come in rows, and the three endings take turns.
const STRIDE: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_effect_of_receive_and_install_loses_nothing() {
    let scene = Scene::new();
    let calls = scene.calls().await;
    let endings = [(false, true), (true, true), (true, false)];
    let mut asked = 0;
    for (at, (is_power_cut, is_purged)) in (0..calls).step_by(STRIDE).zip(endings.into_iter().cycle()) {
        let crash = Crash {
            at,
            is_power_cut,
            is_purged,
        };
        asked += u32::from(scene.crash(crash).await);
    }
    assert!(asked > 0, "no crash hit the installation");
}
