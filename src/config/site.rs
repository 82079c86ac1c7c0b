//! Further sites of the portal (`proxy.sites`): hosts with a document root of their own. What a site does not say is the portal's.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::{Config, Files, Size, is_host};

const KEY: &str = "proxy.sites";

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// In lower case; `*.example.com` is every name below that.
    pub hosts: Vec<String>,
    /// Document root.
    pub root: Option<PathBuf>,
    pub fallback: Option<String>,
    pub max_body_size: Option<Size>,
    pub cdn_host: Option<String>,
}

impl Config {
    pub fn site_root(&self, site: &Site) -> PathBuf {
        site.root.clone().unwrap_or_else(|| self.portal_root())
    }

    /// Document roots, each once, the portal's first.
    pub fn roots(&self) -> Vec<PathBuf> {
        let mut roots = vec![self.portal_root()];
        for site in &self.proxy.sites {
            let root = self.site_root(site);
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        roots
    }

    /// Names that browsers may ask for, the portal's own first; wildcards are among them.
    pub fn hosts(&self) -> Vec<String> {
        let domain = Some(&self.portal.domain).filter(|domain| !domain.is_empty());
        let sites = self.proxy.sites.iter().flat_map(|site| &site.hosts);
        domain.into_iter().chain(sites).cloned().collect()
    }

    /// What is wrong with the sites: key and message.
    pub(super) fn site_faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut seen = HashSet::from([self.portal.domain.to_ascii_lowercase()]);
        for site in &self.proxy.sites {
            if site.hosts.is_empty() {
                faults.push("a site needs hosts, like hosts = [\"shop.example.com\"]".to_string());
            }
            for host in &site.hosts {
                if !is_pattern(host) {
                    faults.push(format!(
                        "\"{host}\" is no host name in lower case; write it like \"shop.example.com\" or \"*.shop.example.com\""
                    ));
                }
                if !seen.insert(host.clone()) {
                    faults.push(format!(
                        "\"{host}\" is named twice; one site or portal.domain answers for it"
                    ));
                }
            }
            faults.extend(self.own_faults(site));
        }
        let budget = self.roots().len() as u64 * (8 << 20);
        if !self.proxy.sites.is_empty() && self.proxy.file_memory.0 < budget {
            faults.push("proxy.file_memory is shared by all document roots: give it at least 8MiB for each".into());
        }
        faults.into_iter().map(|fault| (KEY, fault)).collect()
    }

    fn own_faults(&self, site: &Site) -> Vec<String> {
        let mut faults = Vec::new();
        let root = self.site_root(site);
        if !root.is_absolute() || root.parent().is_none() {
            faults.push(format!("root {root:?} must be an absolute path of a folder below /"));
        }
        let holds_registry = self.files().is_some_and(|files| match files {
            Files::Mounted { at, .. } | Files::Door { at } => at.starts_with(&root),
            Files::Watched(path) => path.starts_with(&root),
        });
        let node = [&self.node.data_dir, &self.node.run_dir, &self.node.log_dir];
        let secret = [self.secrets(), self.trust(), self.storage(), self.node.run_dir.clone()];
        let holds_node = node.iter().any(|folder| folder.starts_with(&root));
        if holds_registry || holds_node || secret.iter().any(|folder| root.starts_with(folder)) {
            faults.push(format!(
                "root {root:?} holds what no browser may see; name a folder of the site's own"
            ));
        }
        if let Some(script) = &site.fallback
            && !(script.starts_with('/') && script.ends_with(".php"))
        {
            faults.push(format!("fallback \"{script}\" must be a path of a PHP script"));
        }
        if site
            .max_body_size
            .is_some_and(|size| size.0 > self.proxy.max_body_size.0)
        {
            faults.push("max_body_size must be at most proxy.max_body_size, which PHP goes by".into());
        }
        faults
    }

    /// Names of the sites that the public DNS knows, for a certificate.
    pub(super) fn site_names(&self) -> BTreeSet<String> {
        let hosts = self.proxy.sites.iter().flat_map(|site| &site.hosts);
        hosts.filter(|host| is_host(host)).cloned().collect()
    }
}

/// A name, or `*.` before one.
fn is_pattern(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    let mut labels = name.split('.');
    !is_address && labels.all(|label| !label.is_empty() && label.bytes().all(is_letter))
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn faults(lines: &str) -> Vec<String> {
        let text = format!("[portal]\ndomain = \"portal.example\"\n{lines}");
        let problems = parse(&text, std::iter::empty()).expect_err(lines);
        assert!(
            problems.iter().all(|problem| problem.key == "proxy.sites"),
            "{problems:?}"
        );
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_site_does_not_say_is_the_portals() {
        let text = "[portal]\ndomain = \"portal.example\"\nroot = \"/srv/portal\"\n[acme]\n[[proxy.sites]]\n\
                    hosts = [\"shop.example\", \"*.shop.example\"]\nroot = \"/srv/shop\"\n[[proxy.sites]]\nhosts = [\"en.portal.example\"]\n";
        let config = parse(text, std::iter::empty()).expect("valid").config;
        assert_eq!(
            config.roots(),
            ["/srv/portal", "/srv/shop"].map(std::path::PathBuf::from)
        );
        assert_eq!(
            config.hosts(),
            ["portal.example", "shop.example", "*.shop.example", "en.portal.example"]
        );
        assert_eq!(config.site_names().len(), 2);
    }

    #[test]
    fn each_fault_has_a_remedy() {
        for (site, part) in [
            ("hosts = []", "needs hosts"),
            ("hosts = [\"Shop.example\"]", "lower case"),
            ("hosts = [\"a.*.example\"]", "lower case"),
            ("hosts = [\"10.0.0.1\"]", "no host name"),
            ("hosts = [\"shop.example:80\"]", "no host name"),
            ("hosts = [\"portal.example\"]", "twice"),
            ("hosts = [\"a.example\", \"a.example\"]", "twice"),
            ("hosts = [\"a.example\"]\nroot = \"shop\"", "absolute path"),
            ("hosts = [\"a.example\"]\nroot = \"/\"", "absolute path"),
            ("hosts = [\"a.example\"]\nroot = \"/var/lib\"", "no browser may see"),
            (
                "hosts = [\"a.example\"]\nroot = \"/var/lib/bitrix-node/secrets\"",
                "no browser may see",
            ),
            ("hosts = [\"a.example\"]\nfallback = \"index.html\"", "PHP script"),
            (
                "hosts = [\"a.example\"]\nmax_body_size = \"2GiB\"",
                "at most proxy.max_body_size",
            ),
            ("hosts = [\"a.example\"]\nrot = \"/srv/a\"", "unknown field"),
        ] {
            let found = faults(&format!("[[proxy.sites]]\n{site}\n"));
            assert!(found.iter().any(|fault| fault.contains(part)), "{site}: {found:?}");
        }
        let small = "[proxy]\nfile_memory = \"8MiB\"\n[[proxy.sites]]\nhosts = [\"a.example\"]\nroot = \"/srv/a\"\n";
        assert!(faults(small)[0].contains("file_memory"));
    }
}
