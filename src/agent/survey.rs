//! Looks at what nobody reports: the machine, the storage's own word, the certificates, PHP's extensions. Everything has a deadline;
//! what was not to be had is left out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::board::Board;
use super::overview::{Certificate, Facts};
use super::room;
use crate::base::Scope;
use crate::config::{Config, Engine};
use crate::db;
use crate::host::facts::{self, Ticks};
use crate::host::package::{self, Family, Need};
use crate::host::sysctl;
use crate::net::mesh::Caller;
use crate::net::mesh::identity::Validity;
use crate::net::mesh::trust::Trust;
use crate::net::tls;
use crate::php;
use crate::storage::command::{Command, Report, ask};
use crate::storage::mesh::LIMITS;

const SECOND: Duration = Duration::from_secs(1);
/// What changes by the hand of an operator, or once in weeks.
const RARELY: Duration = Duration::from_secs(60);
/// PHP must be started to say what it has.
const EXTENSIONS: Duration = Duration::from_secs(600);
/// A processor's load over less than this says more of the moment than of the machine.
const LOAD: Duration = Duration::from_secs(4);

/// Notes on the board what it finds, each second, until the scope drains.
pub async fn run(config: Arc<Config>, board: Arc<Board>, scope: Scope) {
    let mut survey = Survey {
        facts: Facts::default(),
        ticks: None,
        storage: None,
        looked: None,
        counted: None,
        config,
        scope: scope.clone(),
    };
    let mut second = interval(SECOND);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = scope.draining() => return,
            _ = second.tick() => {}
        }
        tokio::select! {
            () = scope.draining() => return,
            () = survey.look() => board.note(survey.facts.clone()),
        }
    }
}

struct Survey {
    config: Arc<Config>,
    scope: Scope,
    facts: Facts,
    /// The load is counted from there on.
    ticks: Option<(Instant, Ticks)>,
    storage: Option<Caller>,
    /// When what rarely changes was looked at.
    looked: Option<Instant>,
    /// When PHP's extensions were.
    counted: Option<Instant>,
}

impl Survey {
    async fn look(&mut self) {
        self.machine();
        self.facts.storage = match timeout(SECOND, self.storage()).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => {
                debug!(error = format!("{error:#}"), "the storage says nothing");
                self.storage = None;
                None
            }
            Err(_) => {
                self.storage = None;
                None
            }
        };
        if self.looked.is_none_or(|at| at.elapsed() >= RARELY) {
            self.rare();
            self.looked = Some(Instant::now());
        }
        if self.counted.is_none_or(|at| at.elapsed() >= EXTENSIONS) {
            self.extensions().await;
            self.counted = Some(Instant::now());
        }
    }

    fn machine(&mut self) {
        let now = Ticks::now();
        match (self.ticks, now) {
            (Some((since, ticks)), Some(now)) if since.elapsed() >= LOAD => {
                self.facts.cpu = now.busy_since(ticks);
                self.ticks = Some((Instant::now(), now));
            }
            (None, Some(now)) => self.ticks = Some((Instant::now(), now)),
            _ => {}
        }
        self.facts.memory = facts::memory_used();
        self.facts.disk = facts::disk_used(&self.config.node.data_dir);
        if self.config.db.run && self.config.db.galera {
            let free = facts::disk_free(&self.config.db_data());
            self.facts.is_database_full = room::is_full(self.facts.is_database_full, free);
        }
    }

    async fn storage(&mut self) -> anyhow::Result<Option<Report>> {
        if self.config.storage.engine != Engine::Replicated {
            return Ok(None);
        }
        let caller = match &self.storage {
            Some(caller) => caller,
            None => {
                let stream = UnixStream::connect(self.config.storage_socket()).await?;
                self.storage.insert(Caller::start(stream, LIMITS, &self.scope))
            }
        };
        ask(caller, &Command::Status).await.map(Some)
    }

    fn rare(&mut self) {
        let config = &self.config;
        self.facts.files = match config.storage.engine {
            Engine::None => "local".into(),
            Engine::Replicated => String::new(),
            Engine::External => config.storage.external.clone(),
        };
        let is_own = config.proxy.certificate.as_os_str().is_empty();
        let (chain, _) = config.certificate();
        self.facts.portal_certificate = portal(&chain, is_own && !config.proxy.https.is_empty());
        self.facts.sysctl = match config.node.sysctl {
            true => sysctl::wanted(&config.ports())
                .iter()
                .map(ToString::to_string)
                .collect(),
            false => Vec::new(),
        };
        let family = package::family().unwrap_or(Family::Debian);
        self.facts.missing_packages = package::names(family, &db::need::missing(config));
        self.facts.node_certificate = match config.cluster.address.is_empty() {
            true => None,
            false => noted(Trust::new(config.trust()).validity(), false),
        };
    }

    async fn extensions(&mut self) {
        if let Some(php) = php::find(&self.config) {
            match package::missing_extensions(&php).await {
                Ok(missing) => self.facts.missing_extensions = names(&missing),
                Err(error) => debug!(%error, "PHP does not say what it has"),
            }
        }
    }
}

fn portal(chain: &Path, is_self_signed: bool) -> Option<Certificate> {
    let validity = tls::validity(chain).with_context(|| chain.display().to_string());
    noted(validity, is_self_signed)
}

fn noted<E: std::fmt::Display>(validity: Result<Validity, E>, is_self_signed: bool) -> Option<Certificate> {
    match validity {
        Ok(validity) => Some(Certificate {
            from: validity.from.as_secs(),
            until: validity.until.as_secs(),
            is_self_signed,
        }),
        Err(error) => {
            debug!(%error, "a certificate cannot be read");
            None
        }
    }
}

fn names(needs: &[Need]) -> Vec<String> {
    let extensions = needs.iter().filter_map(|need| match need {
        Need::PhpExtension(name) => Some((*name).to_string()),
        _ => None,
    });
    extensions.collect()
}
