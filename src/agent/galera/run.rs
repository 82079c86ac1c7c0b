//! The control loop of one database node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::change;
use super::record::{FORCE, cluster, group, members, server, shared};
use crate::agent::registry::Follower;
use crate::base::Scope;
use crate::cluster::{Fit, Snapshot};
use crate::db::galera::State;
use crate::db::galera::render::DROPPED;
use crate::db::recovery::{How, Report, Server, Start, decide};
use crate::host::verb::{Answer, Root, Verb};
use crate::registry::{Change, Error};

/// Between two looks without anything new.
const PACE: Duration = Duration::from_millis(250);
/// Where nobody serves, what the others found is looked for so often, and for so long.
const EAGER: Duration = Duration::from_millis(50);
const EAGERNESS: Duration = Duration::from_secs(10);
/// A server that has lost its Primary component for so long, while others wait to begin or the operator has it begin, ends: its data are needed for the election.
/// One that is just starting gets more time; it gives up by itself where it finds nobody.
const STRANDED: Duration = Duration::from_secs(8);
const STARTING: Duration = Duration::from_secs(60);

/// A server whose position is being read from its data for longer is not waited for any more.
const READING: Duration = Duration::from_secs(10);

/// What the others' last heartbeats say may be from before they died; after so long with the registry that is known.
const HEARD: Duration = Duration::from_millis(4500);

struct Control {
    follower: Arc<Follower>,
    root: Arc<dyn Root>,
    /// What was said last of why it waits.
    told: String,
    /// Since when the registry answers.
    heard: Option<Instant>,
    /// The server has been in a Primary component since its start, as far as this agent knows.
    has_served: bool,
    /// Since when the server runs for nothing.
    idle: Option<Instant>,
    /// The others could come to it; since when they cannot.
    has_met: bool,
    away: Option<Instant>,
    /// The election that it was started under, as far as this agent knows.
    epoch: Option<u64>,
    /// Since when it does not run, or since when that is not known.
    rests: Option<Instant>,
}

/// Runs until the scope drains.
pub async fn keep(follower: Arc<Follower>, root: Arc<dyn Root>, scope: Scope) {
    let mut control = Control {
        follower,
        root,
        told: String::new(),
        heard: None,
        has_served: false,
        idle: None,
        has_met: false,
        away: None,
        epoch: None,
        rests: Some(Instant::now()),
    };
    let mut snapshots = control.follower.snapshots();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            Ok(()) = snapshots.changed() => {}
            _ = pace.tick() => {}
            () = sleep(EAGER), if control.is_eager() => control.follower.wake(),
        }
        tokio::select! {
            () = scope.draining() => return,
            stepped = control.step() => if let Err(error) = stepped {
                debug!(error = format!("{error:#}"), "the database's control waits");
            }
        }
    }
}

impl Control {
    fn is_eager(&self) -> bool {
        self.rests.is_some_and(|since| since.elapsed() < EAGERNESS)
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let snapshot = self.follower.snapshots().borrow().clone();
        if snapshot.is_stale || snapshot.node(&snapshot.own).is_none() {
            self.heard = None;
            return Ok(());
        }
        self.heard.get_or_insert_with(Instant::now);
        let state = match self.root.ask(&Verb::Database).await? {
            Answer::Database { state } => serde_json::from_str(&state)?,
            Answer::Refused { why } => anyhow::bail!(why),
            _ => anyhow::bail!("another answer than to the question"),
        };
        match state {
            State::Looking => {
                let rests = self.rests.get_or_insert_with(Instant::now).elapsed();
                match rests >= READING {
                    true => {
                        self.broken(&snapshot, "its position is still being read from its data")
                            .await
                    }
                    false => Ok(()),
                }
            }
            State::Broken { why } => {
                self.rests.get_or_insert_with(Instant::now);
                self.broken(&snapshot, &why).await
            }
            State::Started { history, meets } => {
                self.rests = None;
                if self.has_left(meets) {
                    warn!("the database here has left its group and does not end by itself: it ends");
                    self.root.ask(&Verb::End).await?;
                    return Ok(());
                }
                if let Some(change) = history.and_then(|history| change::founded(&snapshot, history)) {
                    self.commit(change).await?;
                }
                self.stranded(&snapshot).await
            }
            State::Down { report } => {
                (self.idle, self.has_served, self.epoch) = (None, false, None);
                (self.away, self.has_met) = (None, false);
                self.at_rest(&snapshot, report).await
            }
        }
    }

    async fn broken(&self, snapshot: &Snapshot, why: &str) -> anyhow::Result<()> {
        match change::broken(snapshot, why) {
            Some(change) => self.commit(change).await.map(drop),
            None => Ok(()),
        }
    }

    async fn at_rest(&mut self, snapshot: &Snapshot, report: Report) -> anyhow::Result<()> {
        let known = server(&snapshot.settings, &snapshot.own);
        let rests = self.rests.get_or_insert_with(Instant::now).elapsed();
        let report = with_past(report, known.as_ref());
        let down = Server::Down { report: report.clone() };
        if known.as_ref() != Some(&down) {
            self.commit(change::down(snapshot, &report)).await?;
            return Ok(());
        }
        let how = match decide(&cluster(snapshot), &snapshot.own) {
            Start::Join | Start::JoinAnew if self.heard.is_none_or(|since| since.elapsed() < HEARD) => return Ok(()),
            Start::Join | Start::JoinAnew if !is_dropped(&report, rests) => return Ok(()),
            Start::Join => How::Join,
            Start::JoinAnew => How::Anew,
            Start::WithPosition => How::Restore,
            Start::Bootstrap => How::Bootstrap,
            Start::Wait(why) => {
                self.tell(why, |why| info!(why, "the database waits"));
                return Ok(());
            }
            Start::Refuse(why) => {
                self.tell(why, |why| warn!(why, "the database is not started"));
                return Ok(());
            }
        };
        self.told.clear();
        // The group of those who are known now: this node is among them since its record is.
        let (epoch, group) = (change::epoch(snapshot, how), group(snapshot));
        if !self.commit(change::start(snapshot, how, &report)).await? {
            return Ok(());
        }
        let position = report.position.to_string();
        let verb = Verb::Start {
            how,
            epoch,
            position,
            group,
        };
        match self.root.ask(&verb).await? {
            Answer::Refused { why } => warn!(why, "the supervisor does not start the database"),
            _ => {
                self.epoch = Some(epoch);
                info!(?how, epoch, position = %report.position, "the database is started");
            }
        }
        Ok(())
    }

    fn tell(&mut self, why: String, say: impl Fn(&str)) {
        if self.told != why {
            say(&why);
            self.told = why;
        }
    }

    /// Whether it happened.
    async fn commit(&self, change: Change) -> anyhow::Result<bool> {
        commit(&self.follower, change).await
    }

    /// It listens for nobody any more.
    fn has_left(&mut self, meets: bool) -> bool {
        if meets {
            (self.has_met, self.away) = (true, None);
            return false;
        }
        let away = self.away.get_or_insert_with(Instant::now).elapsed();
        let has_left = away >= if self.has_met { STRANDED } else { STARTING };
        if has_left {
            // It gets as long again for its end.
            self.away = None;
        }
        has_left
    }

    /// Ends a server that is of no use, and whose data others wait for.
    async fn stranded(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.has_served |= snapshot.node(&snapshot.own).is_some_and(|own| own.fit.has(Fit::DB));
        let newest = shared(&snapshot.settings).unwrap_or_default().epoch;
        if !self.has_served && self.epoch.is_some_and(|epoch| epoch < newest) {
            self.epoch = None;
            warn!(
                "there was another election since the database here was started: it ends, and its data are looked at anew"
            );
            self.root.ask(&Verb::End).await?;
            return Ok(());
        }
        let is_served = members(snapshot).any(|node| node.is_live && node.fit.has(Fit::DB));
        let mut others = members(snapshot).filter(|node| node.is_live && node.name != snapshot.own);
        let waits = others.any(|node| matches!(server(&snapshot.settings, &node.name), Some(Server::Down { .. })));
        let is_forced = snapshot.settings.get(FORCE) == Some(&snapshot.own);
        if is_served || !(waits || is_forced) {
            self.idle = None;
            return Ok(());
        }
        let since = *self.idle.get_or_insert_with(Instant::now);
        if since.elapsed() >= if self.has_served { STRANDED } else { STARTING } {
            self.idle = None;
            warn!("the database here is in no Primary component, and its data are needed to begin anew: it ends");
            self.root.ask(&Verb::End).await?;
        }
        Ok(())
    }
}

/// On a node that is none of the cluster's database nodes by its configuration: if it was one, nobody waits for it. Runs until the scope
/// drains.
pub async fn retire(follower: Arc<Follower>, scope: Scope) {
    let mut snapshots = follower.snapshots();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let is_known = !snapshot.is_stale && snapshot.node(&snapshot.own).is_some();
        let change = change::broken(&snapshot, "db.galera = false on this node").filter(|_| is_known);
        if let Some(change) = change
            && let Err(error) = commit(&follower, change).await
        {
            debug!(
                error = format!("{error:#}"),
                "that there is no database node here is not noted"
            );
        }
        tokio::select! {
            () = scope.draining() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether it happened.
async fn commit(follower: &Follower, change: Change) -> anyhow::Result<bool> {
    let registry = follower.registry();
    let registry = registry.ok_or_else(|| anyhow::anyhow!("the registry is not open yet"))?;
    let committed = registry.commit(change).await;
    follower.wake();
    match committed {
        Ok(_) => Ok(true),
        // Another node was first; the next look decides anew.
        Err(Error::Stale(why)) => {
            debug!(%why, "not committed");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the group counts no earlier run of this server among its own. `rests`: how long it has not run. Pure.
fn is_dropped(report: &Report, rests: Duration) -> bool {
    // An orderly end takes its view along, and is told to the group.
    report.view.is_none() || rests >= DROPPED
}

/// Adds what only the record before knows: whether a start with positions came to nothing.
fn with_past(mut report: Report, known: Option<&Server>) -> Report {
    let tried = known.and_then(Server::tried);
    report.was_restored = tried.is_some_and(|from| from.view == report.view && from.epoch == report.epoch);
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::recovery::{Position, Uuid, View};

    fn report(id: Uuid, number: u64) -> Report {
        Report {
            position: Position { uuid: id, seqno: 5 },
            is_safe: false,
            is_galera: true,
            has_portal: true,
            view: Some(View {
                own: id,
                leader: id,
                number,
                members: [id].into(),
            }),
            epoch: 1,
            was_restored: false,
        }
    }

    #[test]
    fn who_died_in_the_group_knocks_when_it_is_dropped() {
        let id = "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b".parse().unwrap();
        let mut report = report(id, 4);
        assert!(!is_dropped(&report, Duration::from_secs(4)));
        assert!(is_dropped(&report, DROPPED));
        report.view = None;
        assert!(is_dropped(&report, Duration::ZERO));
    }

    #[test]
    fn a_start_with_positions_that_came_to_nothing_is_remembered_until_there_is_another_view() {
        let id = "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b".parse().unwrap();
        let report = |number| report(id, number);
        let started = |how| Server::Started { how, report: report(4) };
        assert!(with_past(report(4), Some(&started(How::Restore))).was_restored);
        // It was in a Primary component since.
        assert!(!with_past(report(5), Some(&started(How::Restore))).was_restored);
        assert!(!with_past(report(4), Some(&started(How::Join))).was_restored);
        let down = Server::Down {
            report: with_past(report(4), Some(&started(How::Restore))),
        };
        assert!(with_past(report(4), Some(&down)).was_restored);
        assert!(!with_past(report(4), None).was_restored);
    }
}
