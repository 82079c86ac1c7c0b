//! SecLang, the language of ModSecurity's rules: text to typed rules, without a look at any request.
//!
//! All that the OWASP Core Rule Set says is understood; what is not is an error with its file and line, never skipped.
//! Directives that set up a web server's module have their place in `[waf]` and are refused or, where a rule set brings them along, have no effect.

mod action;
mod change;
mod line;
mod rules;
mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rule::{Place, Rule};

/// What is wrong with the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{place}: {what}")]
    Rule { place: Place, what: String },
    #[error("{}: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
}

/// Rules in their order, and the places that `skipAfter` names: a marker stands before the rule of its number.
#[derive(Debug, Default)]
pub struct Program {
    pub rules: Vec<Rule>,
    pub markers: Vec<(String, usize)>,
    defaults: Vec<rules::Preset>,
    unchained: Option<rules::Open>,
}

impl Program {
    /// Takes a file's text. `folder`: where the files lie that it names.
    pub fn add(&mut self, file: &str, text: &str, folder: &Path) -> Result<(), Error> {
        let file: Arc<str> = file.into();
        let fail = |line, what| {
            let place = Place {
                file: file.clone(),
                line,
            };
            Error::Rule { place, what }
        };
        let directives = line::directives(text).map_err(|line| fail(line, "a quote is never closed".to_string()))?;
        for directive in directives {
            let place = Place {
                file: file.clone(),
                line: directive.line,
            };
            let taken = self.take(&directive.name, &directive.words, &place, folder);
            taken.map_err(|what| fail(directive.line, what))?;
        }
        match self.unchained.take() {
            Some(open) => Err(fail(open.line(), "the chain has no end".to_string())),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str, words: &[String], place: &Place, folder: &Path) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (name.to_ascii_lowercase().as_str(), words.as_slice()) {
            ("secrule", [targets, operator]) => self.rule(targets, operator, "", place, folder),
            ("secrule", [targets, operator, actions]) => self.rule(targets, operator, actions, place, folder),
            ("secaction", [actions]) => self.action(actions, place),
            ("secmarker", [name]) => {
                self.markers.push((name.to_string(), self.rules.len()));
                Ok(())
            }
            ("secdefaultaction", [actions]) => self.set_default(actions),
            ("secruleremovebyid", ids) => self.remove_ids(&ids.join(" ")),
            ("secruleremovebytag", [tag]) => self.remove_tag(tag),
            ("secruleremovebymsg", [message]) => self.remove_message(message),
            ("secruleupdatetargetbyid", [ids, targets]) => self.update_ids(ids, targets),
            ("secruleupdatetargetbytag", [tag, targets]) => self.update_tag(tag, targets),
            ("secruleupdatetargetbymsg", [message, targets]) => self.update_message(message, targets),
            ("seccomponentsignature" | "seccollectiontimeout" | "secruleengine" | "secrequestbodyaccess", [_]) => {
                Ok(())
            }
            ("secresponsebodyaccess" | "secresponsebodymimetype" | "secgeolookupdb" | "sechttpblkey", _) => Ok(()),
            (
                "secauditlogparts" | "secauditengine" | "secauditlogrelevantstatus" | "secauditlogtype" | "secauditlog",
                [_],
            ) => Ok(()),
            ("secargumentseparator" | "seccookieformat" | "secdatadir" | "sectmpdir" | "secstatusengine", [_]) => {
                Ok(())
            }
            ("secpcrematchlimit" | "secpcrematchlimitrecursion" | "secunicodemapfile" | "secuploadkeepfiles", _) => {
                Ok(())
            }
            ("secrequestbodylimit" | "secrequestbodynofileslimit" | "secrequestbodylimitaction", [_]) => Ok(()),
            (
                "secresponsebodylimit"
                | "secresponsebodylimitaction"
                | "secrequestbodyjsondepthlimit"
                | "secargumentslimit",
                [_],
            ) => Ok(()),
            (known, _) if known.starts_with("secrule") || known == "secaction" || known == "secmarker" => {
                Err(format!("{name} is not written with {} words", words.len()))
            }
            _ => Err(format!("no directive {name}")),
        }
    }
}
