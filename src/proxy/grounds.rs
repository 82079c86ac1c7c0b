//! What the front's process opens in all its life, and nothing else: it is what talks to strangers.

use std::path::Path;

use super::fastcgi::SPOOL;
use crate::config::{Config, Engine};
use crate::host::confine::Grounds;

/// `file`: the configuration.
pub fn grounds(config: &Config, file: &Path) -> Grounds {
    let (chain, key) = config.certificate();
    let mut grounds = Grounds::default()
        .read(config.trust())
        .replaced(file)
        .replaced(&chain)
        .replaced(&key)
        .write(SPOOL);
    grounds = config.roots().iter().fold(grounds, Grounds::read);
    if config.storage.engine != Engine::None {
        grounds = grounds.read(config.cert_key());
    }
    if !config.proxy.cloud_authority.as_os_str().is_empty() {
        grounds = grounds.replaced(&config.proxy.cloud_authority);
    }
    if !config.proxy.cdn_signed.is_empty() {
        grounds = grounds.replaced(&config.proxy.cdn_key);
    }
    if config.proxy.follow_symlinks || !config.proxy.sites.is_empty() {
        grounds = config.proxy.symlink_folders.iter().fold(grounds, Grounds::read);
    }
    grounds = config.waf.rules.iter().fold(grounds, Grounds::read);
    let logs = [config.access_log(), config.audit_log()];
    let folders = logs.iter().flatten().filter_map(|log| log.parent());
    folders.fold(grounds, Grounds::write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let config = crate::config::parse(text, std::iter::empty()).expect("valid").config;
        format!("{:?}", grounds(&config, Path::new("/etc/bitrix-node/bitrix-node.toml")))
    }

    #[test]
    fn secrets_and_replicas_are_not_among_it() {
        let text = "[node]\ndata_dir = \"/data\"\nlog_dir = \"/logs\"\n";
        let usual = of(text);
        for part in [
            "\"/data/portal\"",
            "\"/data/trust\"",
            "\"/data/tls\"",
            "\"/etc/bitrix-node\"",
            "\"/logs",
        ] {
            assert!(usual.contains(part), "{part} in {usual}");
        }
        for part in ["\"/data\"", "secrets", "\"/data/storage", "\"/etc\"", "\"/\""] {
            assert!(!usual.contains(part), "{part} in {usual}");
        }
        let linked = of(&format!(
            "{text}[proxy]\nfollow_symlinks = true\nsymlink_folders = [\"/home/shared\"]\n"
        ));
        assert!(linked.contains("\"/home/shared\""), "{linked}");
        let sites = of(&format!(
            "{text}[[proxy.sites]]\nhosts = [\"a.example\"]\nroot = \"/srv/a\"\n"
        ));
        assert!(
            sites.contains("\"/srv/a\"") && sites.contains("\"/data/portal\""),
            "{sites}"
        );
    }
}
