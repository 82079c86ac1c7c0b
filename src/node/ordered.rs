//! MariaDB of a Galera cluster as a unit of systemd: started by order (`db::galera::Orders`), each time anew, watched, and ended when it is
//! of no use. It outlives the supervisor, whose successor finds it running and goes on with it.

use std::io;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::children::{Probe, Ready};
use super::keeper::{Keeper, LONGEST_BACKOFF, PROBE_ORDERED, PROBE_STARTING, UNWANTED, unwanted};
use crate::agent::Phase;
use crate::base::backoff::Backoff;
use crate::db::galera::Orders;
use crate::host::process::Watched;
use crate::host::transient::Transient;
use crate::host::unit::Unit;

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Between two looks at a unit that is just starting or ending.
const BETWEEN: Duration = Duration::from_millis(100);

impl Keeper {
    /// Until told to stop; the unit goes on then.
    pub(super) async fn keep_ordered(&self, unit: &Transient) {
        let (Ready::Answers(probe), Some(orders)) = (&self.spec.ready, &self.spec.orders) else {
            return;
        };
        let kept = self.stop.run_until_cancelled(self.follow_orders(unit, orders, probe));
        let _ = kept.await;
        // Of a start that was broken off just now.
        if let Err(error) = unit.void() {
            warn!(name = self.spec.name, %error, "a ticket to start it is left");
        }
    }

    async fn follow_orders(&self, unit: &Transient, orders: &Orders, probe: &Probe) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
        loop {
            let lived = match settled(&unit.unit).await {
                Ok(Some(pid)) => self.watch(unit, pid, orders, probe).await,
                Ok(None) => {
                    let told = |detail: &str| self.enter(Phase::Waiting, None, detail);
                    let arguments = orders.next(told).await;
                    unit.start(&arguments).await
                }
                Err(error) => Err(error),
            };
            match lived {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    warn!(name = self.spec.name, %error, "the unit is not kept");
                    self.enter(Phase::Waiting, None, &error.to_string());
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Until it has ended. `pid`: of its main process.
    async fn watch(&self, unit: &Transient, pid: u32, orders: &Orders, probe: &Probe) -> io::Result<()> {
        let process = Watched::open(pid)?;
        let mut is_ready = false;
        self.enter(Phase::Starting, Some(pid), "");
        loop {
            let pause = if is_ready { PROBE_ORDERED } else { PROBE_STARTING };
            tokio::select! {
                biased;
                () = unwanted(Some(orders)) => return self.end_unit(&unit.unit, pid).await,
                () = process.ended() => break,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                biased;
                () = process.ended() => break,
                answer = timeout(self.patience(), probe()) => is_ready = self.probed(pid, is_ready, answer),
            }
        }
        let why = format!("{} has ended; see journalctl -u {}", unit.unit.0, unit.unit.0);
        warn!(name = self.spec.name, why, "child ended; it waits for another order");
        self.state.send_modify(|state| state.restarts += 1);
        self.enter(Phase::Waiting, None, &why);
        Ok(())
    }

    /// In order, or by force: one that is of no use may hang.
    async fn end_unit(&self, unit: &Unit, pid: u32) -> io::Result<()> {
        self.enter(Phase::Stopping, Some(pid), "");
        if let Ok(stopped) = timeout(UNWANTED, unit.stop()).await {
            return stopped;
        }
        warn!(name = self.spec.name, "does not stop; killing it");
        unit.kill().await
    }
}

/// The main process of a unit that runs; `None`: it does not. One that is starting or ending is waited for.
async fn settled(unit: &Unit) -> io::Result<Option<u32>> {
    loop {
        let seen = unit.look().await?;
        match seen.state.as_str() {
            "active" if seen.main_pid > 0 => return Ok(Some(seen.main_pid)),
            _ if !seen.is_there() => return Ok(None),
            _ => tokio::time::sleep(BETWEEN).await,
        }
    }
}
