//! What the front derives from the configuration; replaced as a whole when that changes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tracing::error;

use super::accel::Cloud;
use super::access_log::AccessLog;
use super::balance::Manner;
use super::cdn::Cdn;
use super::compress::Compression;
use super::edge::Edge;
use super::fastcgi::{Php, PhpSettings};
use super::firewall::Firewall;
use super::flood::Quotas;
use super::forward::Upstream;
use super::framing::Limits;
use super::guard::Patience;
use super::leaving::Leaving;
use super::limit::Bounds;
use super::metrics::Metrics;
use super::origin::Trust;
use super::route::{Plan, Prefixes};
use super::secure;
use super::site::Sites;
use super::static_file;
use crate::base::Scope;
use crate::config::{Config, OnFailure};

/// Where browsers look for the push server. Its other doors are not for them.
const PUSH: [&str; 3] = ["/bitrix/subws/", "/bitrix/sub/", "/bitrix/rest/"];

pub struct Setup {
    pub sites: Sites,
    pub cdn: Cdn,
    /// `None`: nothing is kept for others.
    pub edge: Option<Arc<Edge>>,
    /// Where PHP's objects lie.
    pub cloud: Cloud,
    pub php: Php,
    pub prefixes: Prefixes,
    /// In the order of the configuration, then those of the push server.
    pub upstreams: Vec<Upstream>,
    /// Ports on which nothing but the push server answers.
    push_ports: Vec<u16>,
    /// Upstreams before those of the push server.
    routes: usize,
    /// Whose certificate clients get that name no host.
    pub domain: String,
    pub limits: Limits,
    pub patience: Patience,
    pub log: Option<AccessLog>,
    pub manner: Manner,
    pub compression: Compression,
    pub trust: Trust,
    pub quotas: Quotas,
    /// `None`: switched off, or without rules where that lets requests on.
    pub firewall: Option<Firewall>,
    /// Where clients of plain HTTP are led, where they are.
    pub https_port: u16,
    /// HTTP/3 is served where its socket is.
    pub http3: bool,
}

impl Setup {
    /// Opens the document roots and the log. `scope` owns connections to upstreams. `before`: what is replaced.
    pub fn open(
        config: &Config,
        scope: &Scope,
        leaving: &Arc<Leaving>,
        metrics: &Metrics,
        before: Option<&Setup>,
    ) -> anyhow::Result<Self> {
        let proxy = &config.proxy;
        let silence = proxy.upstream_timeout.0;
        let compression = Compression {
            codings: proxy.compress.clone(),
            min_size: proxy.compress_min_size.0,
        };
        let files = static_file::Manner {
            follow_symlinks: proxy.follow_symlinks,
            memory: proxy.file_memory.0,
            compression: compression.clone(),
        };
        let upstreams = proxy.routes.iter();
        let upstreams = upstreams.map(|route| Upstream::new(&route.upstream, silence, scope.clone(), leaving.clone()));
        let local = || Upstream::local(&config.push_socket(), silence, scope.clone(), leaving.clone());
        let upstreams = upstreams.chain(PUSH.iter().map(|_| Ok(local())));
        let routes = proxy.routes.iter().map(|route| route.prefix.as_str());
        let log = config.access_log().map(|path| {
            AccessLog::open(&path, metrics.log_dropped.clone())
                .with_context(|| format!("open the access log {}", path.display()))
        });
        Ok(Setup {
            sites: Sites::open(config, &files, scope)?,
            cdn: Cdn::open(config)?,
            edge: edge(config, metrics),
            cloud: Cloud::new(
                proxy.cloud_hosts.clone(),
                &proxy.cloud_authority,
                silence,
                scope.clone(),
                leaving.clone(),
            )
            .context("read proxy.cloud_authority")?,
            php: Php::new(PhpSettings {
                socket: config.php_socket(),
                kept: config.php.kept_connections,
                children: config.php.children,
                silence,
            }),
            // The operator's own come first.
            prefixes: Prefixes::new(routes.chain(PUSH)),
            upstreams: upstreams.collect::<anyhow::Result<_>>()?,
            push_ports: proxy
                .push_http
                .iter()
                .chain(&proxy.push_https)
                .map(SocketAddr::port)
                .collect(),
            routes: proxy.routes.len(),
            domain: config.portal.domain.clone(),
            limits: Limits {
                size: proxy.max_header_size.bytes(),
                fields: proxy.max_headers,
            },
            patience: Patience {
                header: proxy.header_timeout.0,
                idle: proxy.idle_timeout.0,
                body: proxy.body_timeout.0,
            },
            log: log.transpose()?,
            manner: Manner {
                affinity: proxy.affinity,
                silence,
            },
            compression,
            trust: Trust::new(proxy.trusted.clone(), proxy.proxy_protocol),
            quotas: Quotas {
                address: proxy.limit_address.0,
                work: proxy.limit_address_dynamic.0,
                session: proxy.limit_session.0,
                rest: proxy.limit_rest.0,
            },
            firewall: firewall(config, metrics, before.is_some_and(|before| before.firewall.is_some()))?,
            https_port: proxy.https.first().map_or(secure::PORT, SocketAddr::port),
            http3: proxy.http3,
        })
    }

    /// Whether nothing but the push server answers there.
    pub fn is_push_only(&self, port: u16) -> bool {
        self.push_ports.contains(&port)
    }

    /// Whether such a plan may be carried out for clients that came to this port.
    pub fn is_open(&self, port: u16, plan: &Plan) -> bool {
        !self.is_push_only(port) || matches!(plan, Plan::Upstream(place) if *place >= self.routes)
    }
}

fn edge(config: &Config, metrics: &Metrics) -> Option<Arc<Edge>> {
    let (memory, most) = (config.proxy.cache.0, config.proxy.cache_max_size.bytes());
    (memory > 0).then(|| Arc::new(Edge::new(memory, most, metrics.of_edge())))
}

/// Rules that cannot be read are as a request that cannot be judged, unless there are others: those stay.
fn firewall(config: &Config, metrics: &Metrics, is_running: bool) -> anyhow::Result<Option<Firewall>> {
    match Firewall::open(config, metrics) {
        Err(error) if config.waf.on_failure == OnFailure::Open && !is_running => {
            error!(
                error = format!("{error:#}"),
                "the firewall is off: its rules do not load"
            );
            Ok(None)
        }
        opened => opened,
    }
}

pub fn bounds(config: &Config) -> Bounds {
    Bounds {
        connections: config.proxy.max_connections,
        per_address: config.proxy.max_connections_per_address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn rules_that_do_not_load_take_no_firewall_away() {
        let settings = |on_failure: &str| {
            let text =
                format!("[waf]\nmode = \"block\"\nrules = [\"/no/such/folder\"]\non_failure = \"{on_failure}\"\n");
            config::parse(&text, std::iter::empty())
                .expect("a configuration")
                .config
        };
        let metrics = Metrics::new();
        let open = |on_failure, is_running| firewall(&settings(on_failure), &metrics, is_running);
        assert!(open("open", false).is_ok_and(|firewall| firewall.is_none()));
        assert!(open("open", true).is_err());
        assert!(open("closed", false).is_err());
    }
}
