//! Sites: what is served by the name of the host. The portal's own is there always; others are those of `proxy.sites`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::composite::{Pages, Shelf};
use super::path::Path;
use super::secure::Secure;
use super::static_file::{Files, Manner};
use crate::base::Scope;
use crate::config::{self, Config};

/// What of the front's settings is one site's.
pub struct Site {
    /// Of its document root, which sites may have in common.
    pub files: Arc<Files>,
    pub secure: Secure,
    pub pages: Pages,
    /// Document root, as PHP sees it.
    pub root: Arc<str>,
    /// The script for paths without a file.
    pub fallback: Path,
    pub max_body: u64,
    /// Host of its network for files, perhaps with a port; empty: none.
    pub cdn_host: String,
}

pub struct Sites {
    hosts: Hosts,
    /// The portal's first.
    sites: Vec<Site>,
}

/// Which site answers for a host. Pure.
#[derive(Default)]
struct Hosts {
    /// The portal's place for names that are nobody's.
    takes_any: bool,
    exact: HashMap<String, usize>,
    /// `.example.com`, longest first.
    below: Vec<(String, usize)>,
}

/// Place of the portal's own site.
const PORTAL: usize = 0;

impl Hosts {
    fn new<'a>(domain: &str, sites: impl Iterator<Item = &'a [String]>) -> Self {
        let mut hosts = Hosts {
            takes_any: domain.is_empty(),
            ..Hosts::default()
        };
        hosts.exact.insert(domain.to_ascii_lowercase(), PORTAL);
        for (place, names) in (PORTAL + 1..).zip(sites) {
            for name in names {
                match name.strip_prefix('*') {
                    Some(end) => hosts.below.push((end.to_string(), place)),
                    None => _ = hosts.exact.insert(name.clone(), place),
                }
            }
        }
        hosts.below.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        hosts
    }

    /// A further name of a site, unless it is another's.
    fn add(&mut self, host: &str, place: usize) {
        if !host.is_empty() {
            self.exact.entry(host.to_string()).or_insert(place);
        }
    }

    /// `host`: in lower case, without port. An address is what health checks ask for, and the portal's.
    fn find(&self, host: &str, is_address: bool) -> Option<usize> {
        if let Some(place) = self.exact.get(host) {
            return Some(*place);
        }
        let is_below = |end: &str| host.strip_suffix(end).is_some_and(|front| !front.is_empty());
        let below = self.below.iter().find(|(end, _)| is_below(end));
        let portal = (self.takes_any || is_address).then_some(PORTAL);
        below.map(|(_, place)| *place).or(portal)
    }
}

impl Sites {
    /// Opens the document roots. That of the portal must be there; another may come later.
    pub fn open(config: &Config, manner: &Manner, scope: &Scope) -> anyhow::Result<Self> {
        let (proxy, roots) = (&config.proxy, config.roots());
        let share = Manner {
            memory: manner.memory / roots.len() as u64,
            ..manner.clone()
        };
        let mut files = HashMap::new();
        for root in &roots {
            let opened = match *root == config.portal_root() {
                true => Files::open(root, share.clone(), scope.clone())
                    .with_context(|| format!("open the document root {}", root.display()))?,
                false => {
                    // Its folders of old are links into the portal's.
                    let mut led: Vec<PathBuf> = vec![config.portal_root()];
                    led.extend(proxy.symlink_folders.iter().cloned());
                    Files::of_site(root, led, share.clone(), scope.clone())
                }
            };
            files.insert(root.clone(), Arc::new(opened));
        }
        // A further door leads to the same pages.
        let most = config.cache.max_item_size.bytes();
        let shelves = config.cache.composite.iter().map(|address| Shelf::new(*address, most));
        let shelves: Arc<[Shelf]> = shelves.collect();
        let site = |root: PathBuf, fallback: &str, max_body: u64, cdn_host: &str| {
            let files = files.get(&root).expect("each root was opened").clone();
            let fallback = Path::parse(fallback).map_err(anyhow::Error::msg);
            Ok(Site {
                files,
                secure: Secure::new(),
                pages: Pages::new(proxy.composite.clone(), shelves.clone()),
                root: root.to_string_lossy().into(),
                fallback: fallback.context("read the fallback")?,
                max_body,
                cdn_host: cdn_host.to_string(),
            })
        };
        let (fallback, most) = (config.portal.fallback.as_str(), proxy.max_body_size.0);
        let portal = site(config.portal_root(), fallback, most, &proxy.cdn_host);
        let others = proxy.sites.iter().map(|own| {
            let fallback = own.fallback.as_deref().unwrap_or(fallback);
            let max_body = own.max_body_size.map_or(most, |size| size.0);
            let cdn_host = own.cdn_host.as_deref().unwrap_or(&proxy.cdn_host);
            site(config.site_root(own), fallback, max_body, cdn_host)
        });
        let names = proxy.sites.iter().map(|site: &config::Site| site.hosts.as_slice());
        let mut hosts = Hosts::new(&config.portal.domain, names);
        let sites: Vec<Site> = std::iter::once(portal).chain(others).collect::<anyhow::Result<_>>()?;
        for (place, site) in sites.iter().enumerate() {
            hosts.add(config::host_of(&site.cdn_host), place);
        }
        Ok(Sites { hosts, sites })
    }

    /// `None`: nobody here answers for such a host.
    pub fn find(&self, host: &str, is_address: bool) -> Option<&Site> {
        self.sites.get(self.hosts.find(host, is_address)?)
    }

    /// The site of a host that was let in; the portal's, should the sites have changed meanwhile.
    pub fn of(&self, host: &str) -> &Site {
        let found = self.find(host, false).or(self.sites.get(PORTAL));
        found.expect("the portal's is there always")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(domain: &str) -> Hosts {
        let sites: [&[&str]; 3] = [
            &["shop.example", "*.example"],
            &["*.shop.example", "b.shop.example"],
            &["*.a.shop.example"],
        ];
        let sites = sites.map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        Hosts::new(domain, sites.iter().map(Vec::as_slice))
    }

    #[test]
    fn names_go_before_wildcards_and_long_ones_before_short_ones() {
        let hosts = hosts("Portal.example");
        for (host, place) in [
            ("portal.example", Some(PORTAL)),
            ("shop.example", Some(1)),
            ("x.example", Some(1)),
            ("a.shop.example", Some(2)),
            ("b.shop.example", Some(2)),
            ("a.a.shop.example", Some(3)),
            ("x.y.a.shop.example", Some(3)),
            ("example", None),
            (".example", None),
            ("shop.example.evil.test", None),
            ("evilshop.test", None),
        ] {
            assert_eq!(hosts.find(host, false), place, "{host}");
        }
    }

    #[test]
    fn other_names_are_the_portals_where_it_takes_any() {
        assert_eq!(hosts("").find("other.test", false), Some(PORTAL));
        assert_eq!(hosts("").find("shop.example", false), Some(1));
        assert_eq!(hosts("portal.example").find("10.0.0.1", true), Some(PORTAL));
        assert_eq!(hosts("portal.example").find("other.test", false), None);
    }
}
