//! The robot's loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::change;
use crate::acme::{self, Account, Kind, Moment, Step, Told};
use crate::agent::registry::Follower;
use crate::base::{Scope, clock};
use crate::cert::tickets::{Draw, TICKETS, is_due, rotated};
use crate::cert::{self, Entry, Facts, Sealed, Sealer, Source, entries};
use crate::cluster::{Place, Role, Snapshot};
use crate::config::{Config, Proof};
use crate::registry::{self, Change, Error, View, Write};

/// Between two looks for something to do.
const PACE: Duration = Duration::from_secs(1);
/// Until the fronts of all nodes have what is new in the registry: each agent looks four times a second, and hands it on at once.
const SPREAD: Duration = Duration::from_secs(2);
/// The same where this node is alone.
const NEAR: Duration = Duration::from_millis(500);
/// A directory's wish for another nonce is met so often in a row.
const NONCES: u32 = 30;
/// Between two keys of tickets that one node makes, whatever the clocks say.
const ROTATE: Duration = Duration::from_secs(3600);
/// How often a directory is asked for its window (RFC 9773 §4.3), whatever it says.
const ASK: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));

struct Robot {
    config: Arc<Config>,
    follower: Arc<Follower>,
    sealer: Sealer,
    seat: Place,
    /// The one used last, and its directory.
    account: Option<(String, Account)>,
    /// When the window of a certificate is asked for again.
    asked: BTreeMap<String, Instant>,
    /// Looks at older versions are of no use: this node has changed the registry since.
    committed: u64,
    /// When this node made a key of tickets: of nodes whose clocks are days apart, none makes one after the other.
    rotated: Option<Instant>,
}

/// Runs until the scope drains.
pub async fn keep(config: Arc<Config>, follower: Arc<Follower>, scope: Scope) {
    let sealer = match Sealer::read(&config.cert_key()) {
        Ok(sealer) => sealer,
        Err(error) => return warn!(%error, "certificates are not looked after"),
    };
    let mut robot = Robot {
        config,
        follower,
        sealer,
        seat: Place::new(Role::Acme, ""),
        account: None,
        asked: BTreeMap::new(),
        committed: 0,
        rotated: None,
    };
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = pace.tick() => {}
        }
        tokio::select! {
            () = scope.draining() => return,
            looked = robot.look() => if let Err(error) = looked {
                debug!(error = format!("{error:#}"), "the certificates wait");
            }
        }
    }
}

impl Robot {
    async fn look(&mut self) -> anyhow::Result<()> {
        let snapshot = self.follower.snapshots().borrow().clone();
        let is_old = snapshot.revision < self.committed;
        if snapshot.is_stale || is_old || snapshot.node(&snapshot.own).is_none() {
            return Ok(());
        }
        self.rotate(&snapshot).await?;
        let has_seat = self.follower.has(&self.seat);
        // Without an entry that is renewed there is no seat.
        let is_seat = entries(&snapshot.settings).iter().any(|entry| !entry.is_imported());
        if (has_seat || !is_seat)
            && let Some(url) = self.config.acme.url()
            && let Some(change) = change::wanted(&snapshot.settings, &cert::normal(self.config.acme_names()), &url)
        {
            self.commit(change).await?;
            return Ok(());
        }
        if !has_seat {
            self.account = None;
            return Ok(());
        }
        let now = clock::unix().as_secs();
        match entries(&snapshot.settings).into_iter().find(|entry| entry.is_due(now)) {
            Some(entry) => self.drive(entry, &snapshot).await,
            None => self.windows(&snapshot).await,
        }
    }

    /// Makes a new key of session tickets, when it is time. Any node may; one is first.
    async fn rotate(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let setting = snapshot.settings.get(TICKETS).map(String::as_str);
        let now = clock::unix().as_secs();
        let is_early = self.rotated.is_some_and(|at| at.elapsed() < ROTATE);
        if is_early || !is_due(setting, now) {
            return Ok(());
        }
        let mut draw = Draw {
            name: [0; 16],
            secret: [0; 32],
        };
        getrandom::fill(&mut draw.name)?;
        getrandom::fill(&mut draw.secret)?;
        let value = rotated(setting, now, &draw, &self.sealer)?;
        if self.commit(change::tickets(&snapshot.settings, value)).await?.is_some() {
            self.rotated = Some(Instant::now());
            debug!("session tickets have a new key");
        }
        Ok(())
    }

    /// Goes on with the entry until it has its certificate, or fails.
    async fn drive(&mut self, mut entry: Entry, snapshot: &Snapshot) -> anyhow::Result<()> {
        let Source::Acme { directory, .. } = entry.source.clone() else {
            return Ok(());
        };
        let mut settings = snapshot.settings.clone();
        let (mut told, mut nonces) = (Told::new(), 0);
        while self.follower.has(&self.seat) {
            let moment = moment()?;
            let stepped = self.step(&directory, &settings, &entry, moment, &mut told).await;
            let next = match stepped {
                Ok(Step::Wait(pause)) => {
                    nonces = 0;
                    sleep(pause).await;
                    continue;
                }
                Ok(Step::Write(next)) => {
                    nonces = 0;
                    debug!(name = entry.name(), "a step of the order is done");
                    next
                }
                Ok(Step::Issued(next)) => {
                    return match self.issued(&settings, &next).await {
                        Err(error) => self.untaken(error, &directory, &settings, &entry, moment).await,
                        done => done,
                    };
                }
                Err(error) if error.kind == Kind::Again && nonces < NONCES => {
                    nonces += 1;
                    continue;
                }
                Err(error) => return self.failed(&directory, &settings, &entry, &error, moment).await,
            };
            let view = match self.commit(change::put(&settings, &next)).await {
                Ok(Some(view)) => view,
                Ok(None) => return Ok(()),
                Err(error) => return self.untaken(error, &directory, &settings, &entry, moment).await,
            };
            settings = of(&view);
            let is_asked = |entry: &Entry| entry.order.as_ref().map(|order| order.challenges.clone());
            if is_asked(&next).is_some_and(|challenges| !challenges.is_empty()) && is_asked(&next) != is_asked(&entry) {
                self.spread(view.revision, snapshot.nodes.len() > 1).await?;
            }
            entry = next;
        }
        Ok(())
    }

    async fn step(
        &mut self,
        directory: &str,
        settings: &BTreeMap<String, String>,
        entry: &Entry,
        moment: Moment,
        told: &mut Told,
    ) -> Result<Step, acme::Error> {
        let prefer = match self.config.acme.challenge {
            Proof::Http => cert::Kind::Http,
            Proof::TlsAlpn => cert::Kind::TlsAlpn,
        };
        let account = self.account(directory, settings).await?;
        acme::step(&account, entry, &self.sealer, prefer, moment, told).await
    }

    /// The cluster's account at the directory; makes it when there is none yet.
    async fn account(&mut self, directory: &str, settings: &BTreeMap<String, String>) -> Result<Account, acme::Error> {
        if let Some((known, account)) = &self.account
            && known == directory
        {
            return Ok(account.clone());
        }
        let sealed = settings.get(&change::account_key(directory)).cloned().map(Sealed);
        let what = change::account_sealed_as(directory);
        let known = sealed.map(|sealed| self.sealer.open(&what, &sealed)).transpose();
        let known = known.map_err(|error| acme::Error::refused(format!("the cluster's account: {error}")))?;
        let acme = &self.config.acme;
        let roots = (!acme.ca.as_os_str().is_empty()).then_some(acme.ca.as_path());
        let (account, made) = acme::open(directory, &acme.contact, roots.map(Path::new), known.as_deref()).await?;
        if let Some(made) = made {
            let sealed = self.sealer.seal(&what, &made).map_err(acme::Error::unreachable)?;
            let kept = self.commit(change::account(directory, sealed)).await;
            let kept = kept.map_err(|error| acme::Error::unreachable(format!("{error:#}")))?;
            if kept.is_none() {
                return Err(acme::Error::unreachable("another node has made an account meanwhile"));
            }
            info!(directory, "has an account for certificates");
        }
        self.account = Some((directory.to_string(), account.clone()));
        Ok(account)
    }

    /// Waits until the fronts can answer what came with that version.
    async fn spread(&self, revision: u64, has_others: bool) -> anyhow::Result<()> {
        let mut snapshots = self.follower.snapshots();
        let known = snapshots.wait_for(|snapshot| snapshot.revision >= revision).await;
        known.context("the agent ends")?;
        sleep(if has_others { SPREAD } else { NEAR }).await;
        Ok(())
    }

    async fn issued(&mut self, settings: &BTreeMap<String, String>, next: &Entry) -> anyhow::Result<()> {
        let chain = next
            .certificate
            .as_ref()
            .map_or("", |certificate| certificate.chain.as_str());
        let facts = Facts::of(chain)?;
        let until = clock::stamp(std::time::UNIX_EPOCH + Duration::from_secs(facts.ends)).to_string();
        let event = format!(
            "certificate of {}: issued by {}, until {until}",
            next.name(),
            facts.issuer
        );
        let change = change::put(settings, next).and(Write::Event(line(&event)));
        if self.commit(change).await?.is_some() {
            info!(
                name = next.name(),
                issuer = facts.issuer,
                until,
                "a certificate is issued"
            );
        }
        Ok(())
    }

    /// What breaks a rule of the registry now does so the next time: the attempt has failed.
    async fn untaken(
        &mut self,
        error: anyhow::Error,
        directory: &str,
        settings: &BTreeMap<String, String>,
        entry: &Entry,
        moment: Moment,
    ) -> anyhow::Result<()> {
        let Some(Error::Invalid(why)) = error.downcast_ref() else {
            return Err(error);
        };
        let refused = acme::Error::refused(format!("the registry does not take what came of it: {why}"));
        self.failed(directory, settings, entry, &refused, moment).await
    }

    async fn failed(
        &mut self,
        directory: &str,
        settings: &BTreeMap<String, String>,
        entry: &Entry,
        error: &acme::Error,
        moment: Moment,
    ) -> anyhow::Result<()> {
        warn!(name = entry.name(), %error, "a certificate is not issued");
        let keeps_order = matches!(error.kind, Kind::Unreachable | Kind::Again);
        let is_limited = error.kind == Kind::Limited;
        let next = change::failed(entry, &error.text, keeps_order, is_limited, (moment.now, moment.draw));
        let mut change = change::put(settings, &next);
        if next.failure.as_ref().is_some_and(|failure| failure.count == 1) {
            change = change.and(Write::Event(line(&format!("certificate of {}: {error}", entry.name()))));
        }
        self.commit(change).await?;
        if error.kind == Kind::NoAccount {
            self.account = None;
            if let Some(change) = change::remove(settings, &change::account_key(directory)) {
                self.commit(change).await?;
            }
        }
        Ok(())
    }

    /// Asks for the windows in which the directories want certificates to be renewed, and keeps to them.
    async fn windows(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.asked.retain(|key, _| snapshot.settings.contains_key(key));
        for entry in entries(&snapshot.settings) {
            let (Source::Acme { directory, .. }, Some(certificate)) = (&entry.source, &entry.certificate) else {
                continue;
            };
            let is_early = self.asked.get(&entry.key()).is_some_and(|at| Instant::now() < *at);
            if is_early || entry.failure.is_some() {
                continue;
            }
            // A directory that does not answer is not asked at every look.
            self.asked.insert(entry.key(), Instant::now() + ASK.0);
            let account = self.account(directory, &snapshot.settings).await?;
            let found = acme::window(&account, &certificate.chain).await;
            let holds = match &found {
                Ok(Some((_, holds))) => (*holds).clamp(ASK.0, ASK.1),
                Ok(None) => ASK.1,
                Err(_) => ASK.0,
            };
            self.asked.insert(entry.key(), Instant::now() + holds);
            let Some(((start, end), _)) = found? else { continue };
            if entry.renew_at < start || entry.renew_at >= end.max(start + 1) {
                let renew_at = cert::within(start, end, moment()?.draw);
                let next = Entry {
                    renew_at,
                    ..entry.clone()
                };
                info!(name = entry.name(), renew_at, "the directory says when to renew");
                self.commit(change::put(&snapshot.settings, &next)).await?;
            }
        }
        Ok(())
    }

    /// `None`: another one was first.
    async fn commit(&mut self, change: Change) -> anyhow::Result<Option<Arc<View>>> {
        let registry = self.follower.registry().context("the registry is not open yet")?;
        let committed = registry.commit(change).await;
        self.follower.wake();
        match committed {
            Ok(view) => {
                self.committed = view.revision;
                Ok(Some(view))
            }
            Err(Error::Stale(why)) => {
                debug!(%why, "not committed");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn of(view: &View) -> BTreeMap<String, String> {
    let settings = view.settings();
    settings.map(|one| (one.key.clone(), one.value.clone())).collect()
}

fn moment() -> anyhow::Result<Moment> {
    Ok(Moment {
        now: clock::unix().as_secs(),
        draw: registry::random()?,
    })
}

/// As an event may be.
fn line(text: &str) -> String {
    let text: String = text.chars().take(400).collect();
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::board::Board;
    use crate::cert::{ByWhom, Certificate};
    use crate::registry::MemoryRegistry;

    #[tokio::test]
    async fn what_the_registry_never_takes_has_failed() {
        let config = Arc::new(crate::config::parse("", std::iter::empty()).unwrap().config);
        let registry = Arc::new(MemoryRegistry::new("n1"));
        let mut robot = Robot {
            follower: Follower::over(Arc::new(Board::new(config.clone())), registry),
            config,
            sealer: Sealer::new("secret"),
            seat: Place::new(Role::Acme, ""),
            account: None,
            asked: BTreeMap::new(),
            committed: 0,
            rotated: None,
        };
        let source = Source::Acme {
            directory: "d".into(),
            by: ByWhom::Config,
        };
        let entry = Entry::new(vec!["a.example".into()], source);
        let put = change::put(&BTreeMap::new(), &entry);
        let settings = of(&robot.commit(put).await.unwrap().unwrap());
        let mut large = entry.clone();
        large.certificate = Some(Certificate {
            chain: "x".repeat(1 << 20),
            key: Sealed(String::new()),
        });
        let error = robot.commit(change::put(&settings, &large)).await.unwrap_err();
        let moment = Moment { now: 100, draw: 0 };
        let done = robot.untaken(error, "d", &settings, &entry, moment).await;
        done.unwrap();
        let view = robot.follower.registry().unwrap().read().await.unwrap();
        let kept = entries(&of(&view)).pop().unwrap();
        assert!(!kept.is_due(101) && kept.certificate.is_none());
        let why = kept.failure.unwrap().why;
        assert!(
            why.contains("the registry does not take") && why.contains("bytes"),
            "{why}"
        );
        // Others are tried again as they are.
        let away = Error::Unreachable("away".into()).into();
        let done = robot.untaken(away, "d", &settings, &entry, moment).await;
        assert!(done.unwrap_err().to_string().contains("away"));
    }
}
