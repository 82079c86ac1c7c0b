//! One request on its way through the rules: what it is asked, what was found, what it came to.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::bits;
use super::memo::Memo;
use super::plan::{Asked, Plan};
use super::request::{Answer, Request};
use super::state::State;
use crate::proxy::waf::body::{self, Fault};
use crate::proxy::waf::rule::{Control, Disruption, Engine, Phase, Processor, Rule};
use crate::proxy::waf::secret;
use crate::proxy::waf::store::Store;
use crate::proxy::waf::variable::{Target, Variable};

/// A rule that matched and is logged.
#[derive(Clone, Debug)]
pub struct Hit {
    pub id: u64,
    pub message: String,
    pub data: String,
    /// What it matched last, like `ARGS:q`.
    pub target: String,
    pub severity: Option<u8>,
    pub tags: Vec<String>,
    pub is_deny: bool,
    /// What it matched may hold a secret: neither `data` nor `message` goes into a log.
    pub is_secret: bool,
}

/// A rule's refusal of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruption {
    pub rule: u64,
    pub status: u16,
}

/// All that one request came to.
#[derive(Debug, Default)]
pub struct Report {
    pub hits: Vec<Hit>,
    /// What was refused, or would have been where rules only detect.
    pub refused: Option<Interruption>,
    pub score: i64,
    pub outbound_score: i64,
    /// The bound on work ended the rules early.
    pub is_exhausted: bool,
    pub work: u64,
    /// There is more of the query, the cookies or the body than is looked at.
    pub is_partial: bool,
    pub body_fault: Option<String>,
}

pub struct Transaction {
    pub(super) plan: Arc<Plan>,
    pub(super) store: Store,
    pub(super) memo: Memo,
    pub(super) state: State,
    removed: HashSet<usize>,
    /// Since the phase's rules were sifted.
    are_values_new: bool,
    pub(super) removed_targets: Vec<(usize, Target)>,
    engine: Engine,
    processor: Option<Processor>,
    forces_body: bool,
    content_type: Bytes,
    allowed: Option<Disruption>,
    pub(super) report: Report,
}

impl Transaction {
    /// `engine`: what the configuration says; rules may say otherwise for one request. `budget`: bytes that transformations and operators may look at.
    pub fn new(plan: Arc<Plan>, request: &Request, engine: Engine, budget: u64) -> Transaction {
        let mut transaction = Transaction {
            store: Store::default(),
            memo: Memo::new(&plan, budget),
            plan,
            state: State::default(),
            removed: HashSet::new(),
            removed_targets: Vec::new(),
            are_values_new: false,
            engine,
            processor: None,
            forces_body: false,
            content_type: request.header("content-type").cloned().unwrap_or_default(),
            allowed: None,
            report: Report::default(),
        };
        let filled = request.fill(&mut transaction.store);
        transaction.blame(filled.err());
        transaction.processor = body::processor(&transaction.content_type);
        let name = transaction.processor.map_or("", Processor::name);
        transaction.store.set(Variable::ReqbodyProcessor, name);
        transaction.store.set(Variable::Duration, "0");
        transaction
    }

    pub fn headers(&mut self) -> Option<Interruption> {
        self.combine();
        self.run(Phase::RequestHeaders)
    }

    /// `is_cut`: the body goes on beyond what is looked at.
    pub fn body(&mut self, body: &Bytes, is_cut: bool) -> Option<Interruption> {
        self.read_body(body, is_cut);
        self.judge_body()
    }

    /// Takes the body apart; how many bytes rules will see of it.
    pub fn read_body(&mut self, body: &Bytes, is_cut: bool) -> usize {
        let before = self.store.weight();
        let length = body.len().to_string();
        self.store.set(Variable::RequestBodyLength, length);
        let read = match self.processor {
            Some(processor) if !body.trim_ascii().is_empty() => {
                self.store.set(Variable::ReqbodyProcessor, processor.name());
                body::read(processor, &self.content_type, body, is_cut, &mut self.store)
            }
            // Who reads JSON does not always ask what it was announced as. What is none is no fault here.
            None if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) => {
                let _ = body::read(Processor::Json, &self.content_type, body, is_cut, &mut self.store);
                Ok(())
            }
            _ => Ok(()),
        };
        let is_raw = match self.processor {
            None | Some(Processor::UrlEncoded) => true,
            // The value that it is cut in is not among the arguments.
            Some(Processor::Json) if is_cut => true,
            _ => self.forces_body || matches!(read, Err(Fault::Broken(_))),
        };
        if is_raw && !body.is_empty() {
            self.store.set(Variable::RequestBody, body.clone());
        }
        self.blame(read.err());
        self.combine();
        self.store.weight() - before
    }

    pub fn judge_body(&mut self) -> Option<Interruption> {
        self.run(Phase::RequestBody)
    }

    pub fn answer(&mut self, answer: &Answer) -> Option<Interruption> {
        answer.fill(&mut self.store);
        self.run(Phase::ResponseHeaders)
    }

    pub fn answer_body(&mut self, body: &Bytes) -> Option<Interruption> {
        self.store.set(Variable::ResponseBody, body.clone());
        self.run(Phase::ResponseBody)
    }

    /// The rules that only log, and all that was found.
    pub fn finish(mut self) -> Report {
        self.asked()
    }

    /// The same where the answer will be judged, too: what is found there is another report.
    pub fn asked(&mut self) -> Report {
        // Refusals come too late now.
        let refused = self.report.refused;
        self.run(Phase::Logging);
        self.report.refused = refused;
        self.come_to()
    }

    /// All that was found in the answer.
    pub fn answered(mut self) -> Report {
        self.come_to()
    }

    fn come_to(&mut self) -> Report {
        self.memo.remember(&self.plan);
        // The names of the Core Rule Set, since 4.0 and before.
        let of = |now: &str, before: &str| self.state.number(now).max(self.state.number(before));
        self.report.score = of("blocking_inbound_anomaly_score", "anomaly_score");
        self.report.outbound_score = of("blocking_outbound_anomaly_score", "outbound_anomaly_score");
        self.report.work = self.memo.work;
        std::mem::take(&mut self.report)
    }

    fn blame(&mut self, fault: Option<Fault>) {
        let is_broken = matches!(fault, Some(Fault::Broken(_)));
        self.store
            .set(Variable::ReqbodyError, if is_broken { "1" } else { "0" });
        match fault {
            Some(Fault::Broken(what)) => {
                self.store.set(Variable::ReqbodyErrorMsg, what.clone());
                self.report.body_fault = Some(what);
            }
            Some(Fault::Full(what)) => {
                self.report.is_partial = true;
                self.report.body_fault.get_or_insert(what);
            }
            None => {}
        }
    }

    fn combine(&mut self) {
        let size = self.store.size(&[Variable::ArgsGet, Variable::ArgsPost], true);
        self.store.set(Variable::ArgsCombinedSize, size.to_string());
    }

    fn run(&mut self, phase: Phase) -> Option<Interruption> {
        let plan = self.plan.clone();
        let mut next = 0;
        let mut may_hold = self.sift(&plan, phase);
        for &Asked { place, sifted } in plan.of(phase) {
            if place < next || sifted.is_some_and(|sifted| !bits::has(&may_hold, sifted)) {
                continue;
            }
            if self.is_over(phase) {
                break;
            }
            if self.removed.contains(&place) {
                continue;
            }
            let rule = &plan.rules[place];
            let is_matched = self.matches(&plan, place);
            if std::mem::take(&mut self.are_values_new) {
                may_hold = self.sift(&plan, phase);
            }
            if !is_matched {
                continue;
            }
            next = plan.next(place);
            if let Some(interruption) = self.matched(rule) {
                return Some(interruption);
            }
        }
        // What was left out may have been so because of the bound.
        self.is_over(phase);
        if self.allowed == Some(Disruption::AllowPhase) {
            self.allowed = None;
        }
        None
    }

    /// The operators of first links that may hold for any value at all.
    fn sift(&mut self, plan: &Plan, phase: Phase) -> Vec<u64> {
        let needed = plan.reach.needed(phase);
        let mut may_hold = needed.unsure.clone();
        for variable in &needed.variables {
            bits::join(&mut may_hold, self.memo.sift(plan, &self.store, *variable));
        }
        may_hold
    }

    fn is_over(&mut self, phase: Phase) -> bool {
        if self.memo.is_exhausted() {
            self.report.is_exhausted = true;
        }
        let is_allowed = match self.allowed {
            Some(Disruption::AllowRequest) => phase <= Phase::RequestBody,
            Some(_) => phase != Phase::Logging,
            None => false,
        };
        is_allowed || self.engine == Engine::Off || self.report.is_exhausted
    }

    /// What follows when all links of a rule held.
    fn matched(&mut self, rule: &Rule) -> Option<Interruption> {
        let is_deny = rule.disruption == Disruption::Deny;
        if rule.is_logged {
            let data = self.text(rule.data.as_ref(), rule);
            let mut names = self.state.all_matched.iter().map(|matched| &matched.name);
            let hit = Hit {
                id: rule.id,
                message: self.text(rule.message.as_ref(), rule),
                is_secret: !names.all(|name| secret::is_shown(name)) || secret::speaks_of_secrets(data.as_bytes()),
                data,
                target: String::from_utf8_lossy(&self.state.matched.name).into_owned(),
                severity: rule.severity,
                tags: rule.tags.clone(),
                is_deny,
            };
            self.report.hits.push(hit);
        }
        match rule.disruption {
            Disruption::Pass => None,
            Disruption::Deny => {
                let interruption = Interruption {
                    rule: rule.id,
                    status: rule.status,
                };
                self.report.refused.get_or_insert(interruption);
                (self.engine == Engine::Block).then_some(interruption)
            }
            allowed => {
                self.allowed = Some(allowed);
                None
            }
        }
    }

    pub(super) fn control(&mut self, control: &Control) {
        match control {
            Control::Remove(picked) => {
                let rules = self.plan.rules.iter().enumerate();
                let picked = rules.filter(|(_, rule)| picked.picks(rule)).map(|(place, _)| place);
                self.removed.extend(picked);
            }
            Control::RemoveTargets(picked, targets) => {
                let rules = self.plan.rules.iter().enumerate();
                for (place, _) in rules.filter(|(_, rule)| picked.picks(rule)) {
                    let targets = targets.iter().map(|target| (place, target.clone()));
                    self.removed_targets.extend(targets);
                }
            }
            Control::Engine(engine) => self.engine = *engine,
            Control::BodyProcessor(processor) => {
                self.processor = Some(*processor);
                self.store.set(Variable::ReqbodyProcessor, processor.name());
                self.are_values_new = true;
            }
            Control::ForceBody(is_forced) => self.forces_body = *is_forced,
            Control::Ignored => {}
        }
    }
}
