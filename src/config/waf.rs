//! The section `waf`: what the firewall does, with which rules, and how much of a request it looks at.

use std::path::PathBuf;

use serde::Deserialize;

use super::Size;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waf {
    pub mode: WafMode,
    /// Folders of rules, all of them one set.
    pub rules: Vec<PathBuf>,
    /// What the portal itself sends is no attack.
    pub portal: bool,
    pub strict: bool,
    pub max_body: Size,
    pub max_work: Size,
    pub on_failure: OnFailure,
    pub audit_log: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WafMode {
    Off,
    Detect,
    Block,
}

impl WafMode {
    pub fn name(self) -> &'static str {
        match self {
            WafMode::Off => "off",
            WafMode::Detect => "detect",
            WafMode::Block => "block",
        }
    }
}

/// What becomes of a request that the firewall could not judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    Open,
    Closed,
}

impl Waf {
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.mode != WafMode::Off && self.rules.is_empty() {
            faults.push((
                "waf.rules",
                "names no folder; give one of the OWASP Core Rule Set".to_string(),
            ));
        }
        if let Some(relative) = self.rules.iter().find(|path| !path.is_absolute()) {
            let what = format!("{} must be an absolute path", relative.display());
            faults.push(("waf.rules", what));
        }
        if !(1 << 10..=64 << 20).contains(&self.max_body.0) {
            faults.push((
                "waf.max_body",
                "must be from \"1KiB\" to \"64MiB\"; it is held in memory".to_string(),
            ));
        }
        if self.max_work.0 < 1 << 20 {
            faults.push((
                "waf.max_work",
                "must be at least \"1MiB\": a plain request needs a tenth".to_string(),
            ));
        }
        faults
    }
}
