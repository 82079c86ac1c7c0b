//! The latest report of everybody, and the texts made from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::galera::group::Group;
use super::outlook::{self, Runs};
use super::overview::{self, Facts, Heard, Overview, Row};
use super::report::{ChildReport, Phase, Report};
use crate::base::{Status, clock};
use crate::cluster::Fit;
use crate::config::Config;
use crate::host::facts;
use crate::metrics::{EncodeLabelSet, Family, Gauge, Set, names};

/// Reports come each second; older than this, their sender is silent.
const FRESH: Duration = Duration::from_secs(5);

/// A database that has answered no question so long, from when that was asked, is not read from.
const KEEPS_UP: Duration = Duration::from_millis(1500);

pub struct Board {
    config: Arc<Config>,
    started: Instant,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    children: Vec<ChildReport>,
    children_at: Option<Instant>,
    modules: BTreeMap<String, Said>,
    facts: Facts,
    /// That of the database here.
    group: Group,
}

struct Said {
    status: Status,
    metrics: String,
    at: Instant,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Child {
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    version: String,
}

impl Board {
    pub fn new(config: Arc<Config>) -> Self {
        Board {
            config,
            started: Instant::now(),
            latest: Mutex::default(),
        }
    }

    /// Takes a report in the place of the sender's last one.
    pub fn post(&self, report: Report) {
        let mut latest = self.latest.lock().expect("nothing panics under this lock");
        match report {
            Report::Supervisor { children } => {
                latest.children = children;
                latest.children_at = Some(Instant::now());
            }
            Report::Module { name, status, metrics } => {
                latest.modules.insert(
                    name,
                    Said {
                        status,
                        metrics,
                        at: Instant::now(),
                    },
                );
            }
        }
    }

    /// Takes what the survey found in the place of what it found before.
    pub fn note(&self, facts: Facts) {
        self.latest.lock().expect("nothing panics under this lock").facts = facts;
    }

    /// What the survey found last.
    pub fn facts(&self) -> Facts {
        self.latest
            .lock()
            .expect("nothing panics under this lock")
            .facts
            .clone()
    }

    /// Takes what the database here said of its group.
    pub fn meet(&self, group: Group) {
        self.latest.lock().expect("nothing panics under this lock").group = group;
    }

    /// What the database here said last of its group.
    pub fn group(&self) -> Group {
        let latest = self.latest.lock().expect("nothing panics under this lock");
        latest.group.clone()
    }

    /// What this node is fit for, by what it says of itself.
    pub fn fit(&self, own: &Overview) -> Fit {
        let runs = Runs {
            cache: self.config.cache.run,
            cron: self.config.cron.run,
            acme: self.config.acme.url().is_some(),
            backup: self.config.db.galera && self.config.backup.daily().is_some(),
        };
        let group = self.group();
        let keeps_up = !group.nodes.is_empty() && clock::boot().saturating_sub(group.asked) < KEEPS_UP;
        let fit = outlook::fit(own, runs);
        if keeps_up { fit.with(Fit::READS) } else { fit }
    }

    pub fn overview(&self) -> Overview {
        let latest = self.latest.lock().expect("nothing panics under this lock");
        let heard = match latest.children_at {
            Some(at) if at.elapsed() < FRESH => Heard::Lately,
            None if self.started.elapsed() < FRESH => Heard::NotYet,
            _ => Heard::Silence,
        };
        let said = |name: &str| latest.modules.get(name).filter(|said| said.at.elapsed() < FRESH);
        let services: Vec<Row> = latest
            .children
            .iter()
            .map(|child| overview::row(child, said(&child.name).map(|said| &said.status)))
            .collect();
        let (verdict, reason) = overview::judge(&services, heard);
        Overview {
            verdict,
            reason,
            node: facts::node_name(&self.config),
            version: env!("CARGO_PKG_VERSION").to_string(),
            portal: portal_url(&self.config),
            admin: format!("https://{}", self.config.admin.listen),
            services,
            facts: Facts {
                clock: clock::unix_millis(),
                ..latest.facts.clone()
            },
        }
    }

    /// Numbers of all modules as one OpenMetrics text.
    pub fn metrics(&self) -> String {
        let latest = self.latest.lock().expect("nothing panics under this lock");
        let fresh = latest.modules.values().filter(|said| said.at.elapsed() < FRESH);
        let mut text: String = fresh.map(|said| said.metrics.as_str()).collect();
        text.push_str("# EOF\n");
        text
    }

    /// The agent's own numbers: its children and its build.
    pub fn own_metrics(&self) -> String {
        let mut set = Set::new();
        let up = set.add(names::NODE_CHILD_UP, Family::<Child, Gauge>::default());
        let restarts = set.add(names::NODE_CHILD_RESTARTS, Family::<Child, Gauge>::default());
        let build = set.add(names::NODE_BUILD, Family::<Build, Gauge>::default());
        build
            .get_or_create(&Build {
                version: env!("CARGO_PKG_VERSION").to_string(),
            })
            .set(1);
        let latest = self.latest.lock().expect("nothing panics under this lock");
        for child in &latest.children {
            let label = Child {
                name: child.name.clone(),
            };
            up.get_or_create(&label).set(i64::from(child.phase == Phase::Ready));
            restarts.get_or_create(&label).set(i64::from(child.restarts));
        }
        set.encode()
    }
}

/// The address that a browser uses.
fn portal_url(config: &Config) -> String {
    let (scheme, usual, address) = match (config.proxy.https.first(), config.proxy.http.first()) {
        (Some(https), _) => ("https", 443, https),
        (None, Some(http)) => ("http", 80, http),
        (None, None) => return String::new(),
    };
    let host = match config.portal.domain.as_str() {
        "" if address.ip().is_unspecified() => facts::host_name(),
        "" if address.is_ipv6() => format!("[{}]", address.ip()),
        "" => address.ip().to_string(),
        domain => domain.to_string(),
    };
    if address.port() == usual {
        format!("{scheme}://{host}/")
    } else {
        format!("{scheme}://{host}:{}/", address.port())
    }
}
