//! A rule as SecLang means it: typed, nothing left to parse.

use std::fmt;
use std::sync::Arc;

use super::macros::Text;
use super::operator::Operator;
use super::transform::Transform;
use super::variable::{Target, Targets, Variable};

/// Where a rule stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One rule: its links match one after another, or it does not match.
#[derive(Clone, Debug)]
pub struct Rule {
    pub id: u64,
    pub place: Place,
    pub phase: Phase,
    pub links: Vec<Link>,
    pub disruption: Disruption,
    pub status: u16,
    pub message: Option<Text>,
    pub data: Option<Text>,
    pub severity: Option<u8>,
    pub tags: Vec<String>,
    pub version: String,
    pub is_logged: bool,
    pub skip_after: Option<String>,
}

impl Rule {
    /// Its message, as far as it is known without a request.
    pub fn title(&self) -> String {
        let text = self.message.as_ref().and_then(Text::constant);
        String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
    }
}

/// One condition of a rule, and what happens when it holds.
#[derive(Clone, Debug)]
pub struct Link {
    pub targets: Targets,
    pub operator: Operator,
    pub is_negated: bool,
    pub transforms: Vec<Transform>,
    /// The operator sees the value after each transformation that changed it.
    pub is_multi: bool,
    pub captures: bool,
    pub effects: Vec<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    RequestHeaders = 1,
    RequestBody = 2,
    ResponseHeaders = 3,
    ResponseBody = 4,
    Logging = 5,
}

impl Phase {
    pub fn named(name: &str) -> Option<Phase> {
        Some(match name {
            "1" => Phase::RequestHeaders,
            "2" | "request" => Phase::RequestBody,
            "3" => Phase::ResponseHeaders,
            "4" | "response" => Phase::ResponseBody,
            "5" | "logging" => Phase::Logging,
            _ => return None,
        })
    }
}

/// What a match means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    Pass,
    Deny,
    /// No further rule is asked: of this phase, of the request's phases, or at all.
    AllowPhase,
    AllowRequest,
    Allow,
}

/// What a match changes, whether or not the rest of its chain holds.
#[derive(Clone, Debug)]
pub enum Effect {
    Set {
        collection: Variable,
        key: Text,
        change: Change,
    },
    Control(Control),
}

#[derive(Clone, Debug)]
pub enum Change {
    Assign(Text),
    Add(Text),
    Subtract(Text),
    Unset,
}

/// Which rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picked {
    Ids(Vec<(u64, u64)>),
    Tag(String),
    Message(String),
}

impl Picked {
    pub fn picks(&self, rule: &Rule) -> bool {
        match self {
            Picked::Ids(ranges) => ranges.iter().any(|(low, high)| (*low..=*high).contains(&rule.id)),
            Picked::Tag(tag) => rule.tags.iter().any(|own| own == tag),
            Picked::Message(message) => {
                let own = rule.message.as_ref().and_then(Text::constant);
                own.is_some_and(|own| own == message.as_bytes())
            }
        }
    }
}

/// Changes of the engine for the rest of one request.
#[derive(Clone, Debug)]
pub enum Control {
    Remove(Picked),
    RemoveTargets(Picked, Vec<Target>),
    Engine(Engine),
    BodyProcessor(Processor),
    ForceBody(bool),
    /// Known, and without effect here: what is audited, `[waf]` says.
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Off,
    Detect,
    Block,
}

/// How a body is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    UrlEncoded,
    Multipart,
    Json,
    Xml,
}

impl Processor {
    pub fn name(self) -> &'static str {
        match self {
            Processor::UrlEncoded => "URLENCODED",
            Processor::Multipart => "MULTIPART",
            Processor::Json => "JSON",
            Processor::Xml => "XML",
        }
    }

    pub fn named(name: &str) -> Option<Processor> {
        let all = [
            Processor::UrlEncoded,
            Processor::Multipart,
            Processor::Json,
            Processor::Xml,
        ];
        all.into_iter().find(|own| own.name().eq_ignore_ascii_case(name))
    }
}
