//! How a task is carried out: a floating address is put up and kept, the portal's jobs run.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::cron::Cron;
use super::holder::Hold;
use crate::base::Scope;
use crate::config::Config;
use crate::db::galera::writer::Gate;
use crate::host::account::Account;
use crate::host::address::farewell::{Doors, Shut};
use crate::host::address::wire::Wire;
use crate::host::address::{self, Place, probe};
use crate::host::verb::Task;

/// The kernel's lifetime of an address is renewed twice a second (`host::address::lifetime`).
const RENEW: Duration = Duration::from_millis(500);
/// Between two questions whether the group still has the database here.
const PACE: Duration = Duration::from_millis(200);
/// A former holder that lets go at this moment does not answer a second time.
const ONCE_MORE: Duration = Duration::from_millis(400);
/// When the neighbours are told after the first time, and then how often: one that heard somebody else, as a former holder that woke
/// up, hears us again.
const SOON: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
const LATER: Duration = Duration::from_secs(10);

/// Connections by an address that goes to another node get so long to end, and what would be left of the hold is this.
const ORDERLY: Duration = Duration::from_secs(2);
const RESERVE: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(20);
/// As `Verb::Hold` has it.
const LONGEST_HOLD: Duration = Duration::from_secs(10);

pub struct Means {
    pub config: Arc<Config>,
    /// This program, for workers.
    pub executable: PathBuf,
    /// Whose rights the worker gets that reads the network.
    pub user: Account,
    /// Of the front.
    pub doors: Doors,
    pub cron: Cron,
    /// Of the database here.
    pub gate: Arc<Gate>,
}

impl Means {
    /// Until the hold ends, or it cannot be done.
    pub async fn carry_out(&self, task: &Task, hold: &mut Hold) -> Result<(), String> {
        match task {
            Task::Address(address) => self.address(*address, hold).await,
            Task::Cron if !self.config.cron.run => Err("cron.run = false on this node".to_owned()),
            Task::Cron => {
                hold.has_begun();
                self.cron.run(hold).await;
                Ok(())
            }
            Task::Writer if !self.config.db.galera => Err("db.galera = false on this node".to_owned()),
            Task::Writer => self.writer(hold).await,
        }
    }

    /// The database here takes writes until shortly before the hold ends.
    async fn writer(&self, hold: &mut Hold) -> Result<(), String> {
        let mut writer = self.gate.open().await.map_err(|error| format!("{error:#}"))?;
        info!(epoch = hold.epoch, "the database here takes writes");
        hold.has_begun();
        let ended = loop {
            let rest = hold.left().saturating_sub(RESERVE);
            if rest.is_zero() || hold.is_ending() {
                break Ok(());
            }
            hold.wait(PACE.min(rest)).await;
            if !hold.left().is_zero() && !hold.is_ending() && !writer.is_there().await {
                break Err("the database here has ended, its group has let it go, or it takes no writes".to_owned());
            }
        };
        self.gate.close(hold.is_ending()).await;
        info!(epoch = hold.epoch, "the database here takes no writes any more");
        ended
    }

    async fn address(&self, address: IpNet, hold: &mut Hold) -> Result<(), String> {
        let place = address::find(address, &self.config.edge.interface)?;
        self.be_free(&place).await?;
        let wire = place.mac.map(|_| Wire::open(&place)).transpose();
        let wire = wire.map_err(|error| format!("a socket on {}: {error}", place.interface))?;
        let kept = address::keep(&place, hold.left()).map_err(|error| format!("{}: {error}", place.address))?;
        if !kept {
            return Err("its hold ended while the network was asked".to_owned());
        }
        info!(address = %place.address, interface = place.interface, epoch = hold.epoch, "the floating address is up");
        hold.has_begun();
        let ended = keep(&place, wire.as_ref(), hold).await;
        // Until the address is away: nobody begins anew by it.
        let _shut = match hold.is_ending() {
            true => self.see_off(place.address.addr(), hold).await,
            false => None,
        };
        match address::remove(&place) {
            Ok(_) => info!(address = %place.address, "the floating address is taken away"),
            Err(error) => warn!(address = %place.address, %error, "the address stays until the kernel ends it"),
        }
        ended
    }

    /// Lets the connections by the address come to their end.
    async fn see_off(&self, address: IpAddr, hold: &mut Hold) -> Option<Shut> {
        let left = hold.left().saturating_sub(RESERVE);
        let end = Instant::now() + ORDERLY.min(left);
        let shut = self.doors.shut(address);
        let shut = shut.inspect_err(|error| warn!(%address, %error, "connections can still be begun"));
        loop {
            match self.doors.connections(address) {
                Ok(0) => break,
                Ok(open) if hold.left().is_zero() || Instant::now() >= end => {
                    info!(%address, open, "connections are cut");
                    break;
                }
                Ok(_) => hold.wait(LOOK).await,
                Err(error) => {
                    warn!(%address, %error, "whether connections are open is not known");
                    break;
                }
            }
        }
        shut.ok()
    }

    /// Nobody else has it.
    async fn be_free(&self, place: &Place) -> Result<(), String> {
        let ask = || async {
            let answer = probe::probe(&self.executable, place, &self.user).await;
            answer.map_err(|error| format!("the network cannot be asked for {}: {error}", place.address))
        };
        if ask().await?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(ONCE_MORE).await;
        match ask().await? {
            None => Ok(()),
            Some(holder) => Err(format!(
                "{} is answered by {holder} on {}; take it away there, or give the cluster another address",
                place.address.addr(),
                place.interface
            )),
        }
    }
}

/// The supervisor before this one may have left the database open: nobody comes in until the agent says anew that this node is the
/// writer. Where the database `goes_on` meanwhile, also as a unit without a supervisor, and the agent does not say so, what is under way ends, too.
pub fn begin_shut(gate: &Arc<Gate>, goes_on: bool, scope: &Scope) {
    if let Err(error) = gate.shut() {
        warn!(%error, "the way to the database cannot be shut");
    }
    if !goes_on {
        return;
    }
    let gate = gate.clone();
    scope.spawn(async move {
        tokio::time::sleep(LONGEST_HOLD).await;
        gate.close_if_left().await;
    });
}

async fn keep(place: &Place, wire: Option<&Wire>, hold: &mut Hold) -> Result<(), String> {
    tell(place, wire);
    let begun = Instant::now();
    let mut told = SOON.iter().copied();
    let mut next = told.next().unwrap_or(LATER);
    loop {
        hold.wait(RENEW).await;
        let left = hold.left();
        if left.is_zero() || hold.is_ending() {
            return Ok(());
        }
        address::keep(place, left).map_err(|error| format!("{} cannot be renewed: {error}", place.address))?;
        if begun.elapsed() >= next {
            tell(place, wire);
            next = told.next().unwrap_or_else(|| begun.elapsed() + LATER);
        }
    }
}

fn tell(place: &Place, wire: Option<&Wire>) {
    if let (Some(wire), Some(own)) = (wire, place.mac)
        && let Err(error) = wire.announce(own, place.address.addr())
    {
        // A cable that is pulled: the next one tells.
        debug!(%error, interface = place.interface, "the neighbours are not told");
    }
}
