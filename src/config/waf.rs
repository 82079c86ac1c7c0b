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
    /// Of what PHP and upstreams answer; not beyond `mode`.
    pub answers: WafMode,
    pub max_answer: Size,
    /// In lower case, without parameters.
    pub answer_types: Vec<String>,
}

/// From the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
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
    /// What becomes of answers.
    pub fn answers(&self) -> WafMode {
        self.answers.min(self.mode)
    }

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
        if !(1 << 10..=16 << 20).contains(&self.max_answer.0) {
            faults.push((
                "waf.max_answer",
                "must be from \"1KiB\" to \"16MiB\"; it is held in memory".to_string(),
            ));
        }
        if let Some(kind) = self.answer_types.iter().find(|kind| !is_type(kind)) {
            let what = format!("{kind:?} is no type like \"text/html\", in small letters and without parameters");
            faults.push(("waf.answer_types", what));
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

fn is_type(kind: &str) -> bool {
    let is_token = |part: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&^_.+-".contains(&byte);
        !part.is_empty() && part.bytes().all(is_allowed)
    };
    kind.split_once('/')
        .is_some_and(|(whole, part)| is_token(whole) && is_token(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_they_are_compared() {
        for kind in ["text/html", "application/json", "application/xhtml+xml"] {
            assert!(is_type(kind), "{kind}");
        }
        for kind in [
            "",
            "text",
            "text/",
            "text/HTML",
            "text/html; charset=utf-8",
            "*/*",
            "a/b/c",
        ] {
            assert!(!is_type(kind), "{kind}");
        }
    }
}
