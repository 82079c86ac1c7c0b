//! What the tests of requests and of answers share: a firewall with a few rules, and its log.

use std::fs;

use super::audit::{Audit, Entry};
use super::phase::Firewall;
use crate::config;
use crate::proxy::metrics::Metrics;

pub struct Bed {
    pub firewall: Firewall,
    pub metrics: Metrics,
    folder: tempfile::TempDir,
}

impl Bed {
    /// `settings`: lines of `[waf]`.
    pub fn new(rules: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.conf"), rules).expect("a file");
        let path = folder.path().display();
        let portal = if settings.contains("portal =") {
            ""
        } else {
            "portal = false\n"
        };
        let text = format!(
            "[node]\nlog_dir = \"{path}\"\n[waf]\nrules = [\"{path}\"]\n{portal}audit_log = \"waf.log\"\n{settings}"
        );
        let config = config::parse(&text, std::iter::empty());
        let config = config.expect("a configuration").config;
        let metrics = Metrics::new();
        let firewall = Firewall::open(&config, &metrics).expect("rules").expect("switched on");
        Bed {
            firewall,
            metrics,
            folder,
        }
    }

    /// The log, once its writer is done.
    pub fn log(self) -> Vec<Entry> {
        let writer = self.firewall.audit.and_then(Audit::finish);
        writer.expect("a log").join().expect("a writer");
        let text = fs::read_to_string(self.folder.path().join("waf.log")).expect("a log");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("an entry"))
            .collect()
    }
}
