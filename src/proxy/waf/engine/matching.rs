//! Whether a rule holds: its links one after another, each over all values of its targets, with effects at every match.

use bytes::Bytes;

use super::bits;
use super::memo::transformed;
use super::plan::{Plan, Way};
use super::reach::is_stored;
use super::state::Matched;
use super::transaction::Transaction;
use crate::proxy::waf::macros::Text;
use crate::proxy::waf::operator::{Captures, Operator, number};
use crate::proxy::waf::rule::{Change, Effect, Link, Rule};
use crate::proxy::waf::variable::{Selector, Target, Variable};

/// What one operator run costs beside the bytes that it looks at.
const RUN: u64 = 16;

/// The link that is tried.
#[derive(Clone, Copy)]
struct Tried<'a> {
    place: usize,
    link: &'a Link,
    way: &'a Way,
}

/// A value that a target names.
enum Subject {
    Stored(u32),
    Own(Bytes, Bytes),
}

impl Transaction {
    pub(super) fn matches(&mut self, plan: &Plan, place: usize) -> bool {
        let rule = &plan.rules[place];
        self.state.all_matched.clear();
        let mut links = rule.links.iter().zip(&plan.ways[place]);
        links.all(|(link, way)| self.holds(plan, place, link, way))
    }

    fn holds(&mut self, plan: &Plan, place: usize, link: &Link, way: &Way) -> bool {
        let mut is_found = false;
        let tried = Tried { place, link, way };
        for target in &link.targets.include {
            match is_stored(target) {
                true => is_found |= self.try_stored(plan, tried, target),
                false if self.can_compare(link, target) => {
                    for subject in self.subjects(tried, target) {
                        is_found |= self.try_value(plan, tried, target, &subject);
                    }
                }
                false => {}
            }
        }
        is_found
    }

    fn try_stored(&mut self, plan: &Plan, tried: Tried, target: &Target) -> bool {
        let sifted = tried.way.sifted;
        if let Some(sifted) = sifted
            && !bits::has(self.memo.sift(plan, &self.store, target.variable), sifted)
        {
            return false;
        }
        let (mut is_found, mut at) = (false, 0);
        // An effect may change values that are still to come.
        while let Some(number) = self.store.of(target.variable).get(at).copied() {
            at += 1;
            if self.memo.is_exhausted() {
                break;
            }
            if sifted.is_some_and(|sifted| !self.memo.may_hold_for(number, sifted)) {
                continue;
            }
            if target.selector.picks(&self.store.get(number).key) {
                is_found |= self.try_value(plan, tried, target, &Subject::Stored(number));
            }
        }
        is_found
    }

    /// A number in `TX` against one in the rule: what most rules that only steer others ask, and most of them in vain.
    fn can_compare(&self, link: &Link, target: &Target) -> bool {
        let (Operator::Number(order, text), Variable::Tx, Selector::Key(key)) =
            (&link.operator, target.variable, &target.selector)
        else {
            return true;
        };
        if link.is_negated || target.is_count || !link.transforms.is_empty() {
            return true;
        }
        let Some(wanted) = text.constant() else { return true };
        let value = self.state.get(Variable::Tx, key.as_bytes());
        value.is_some_and(|value| order.holds(number(value), number(wanted)))
    }

    /// The values that a target names. Those that are excluded are left out here only where they are counted: elsewhere most
    /// never match, and it is asked when one does.
    fn subjects(&self, tried: Tried, target: &Target) -> Vec<Subject> {
        let variable = target.variable;
        let is_wanted =
            |key: &[u8]| target.selector.picks(key) && !(target.is_count && self.is_excluded(tried, variable, key));
        let found: Vec<Subject> = if variable.is_stored() {
            let numbers = self.store.of(variable).iter().copied();
            numbers
                .filter(|number| is_wanted(&self.store.get(*number).key))
                .map(Subject::Stored)
                .collect()
        } else {
            let all = self.dynamic(variable, &target.selector, tried.place);
            all.into_iter()
                .filter(|(key, _)| is_wanted(key))
                .map(|(key, text)| Subject::Own(key, text))
                .collect()
        };
        match target.is_count {
            true => vec![Subject::Own(Bytes::new(), found.len().to_string().into())],
            false => found,
        }
    }

    fn is_excluded(&self, tried: Tried, variable: Variable, key: &[u8]) -> bool {
        let mut own = tried.link.targets.exclude.iter();
        let mut removed = self.removed_targets.iter().filter(|(place, _)| *place == tried.place);
        own.any(|other| other.covers(variable, key)) || removed.any(|(_, other)| other.covers(variable, key))
    }

    /// Keys and values of what rules themselves write.
    fn dynamic(&self, variable: Variable, selector: &Selector, place: usize) -> Vec<(Bytes, Bytes)> {
        let one = |text: Bytes| vec![(Bytes::new(), text)];
        match variable {
            Variable::MatchedVar => one(self.state.matched.text.clone()),
            Variable::MatchedVarName => one(self.state.matched.name.clone()),
            Variable::MatchedVars | Variable::MatchedVarsNames => {
                let pair = |matched: &Matched| match variable {
                    Variable::MatchedVars => (matched.name.clone(), matched.text.clone()),
                    _ => (matched.name.clone(), matched.name.clone()),
                };
                self.state.all_matched.iter().map(pair).collect()
            }
            Variable::Rule => match selector {
                Selector::Key(key) => {
                    let text = rule_text(self, &self.plan.rules[place], key);
                    vec![(Bytes::copy_from_slice(key.as_bytes()), text.into())]
                }
                _ => Vec::new(),
            },
            _ => match selector {
                Selector::Key(key) => {
                    let found = self.state.get(variable, key.as_bytes());
                    let key = Bytes::copy_from_slice(key.as_bytes());
                    found.map(|text| (key, text.clone())).into_iter().collect()
                }
                _ => self.state.all(variable),
            },
        }
    }

    /// Whether the operator holds for a value, at one of the nodes that count.
    fn try_value(&mut self, plan: &Plan, tried: Tried, target: &Target, subject: &Subject) -> bool {
        match subject {
            Subject::Stored(number) => self.try_stages(plan, tried, target, subject, *number),
            Subject::Own(_, text) => {
                let (mut is_found, mut last) = (false, None);
                for node in &tried.way.nodes {
                    self.memo.work += RUN + 2 * text.len() as u64;
                    let text = transformed(plan, text, *node);
                    // A transformation that changed nothing shows the operator nothing new.
                    if last.as_ref() != Some(&text) {
                        let holds = self.try_text(plan, tried, &text);
                        is_found |= holds
                            .is_some_and(|captures| self.matched_value(plan, tried, target, subject, &text, captures));
                    }
                    last = Some(text);
                }
                is_found
            }
        }
    }

    fn try_stages(&mut self, plan: &Plan, tried: Tried, target: &Target, subject: &Subject, value: u32) -> bool {
        let (mut is_found, mut last) = (false, None);
        for node in &tried.way.nodes {
            let stage = self.memo.stage(plan, &self.store, value, *node);
            let sifted = tried.way.sifted;
            if last == Some(stage) || sifted.is_some_and(|sifted| !self.memo.may_hold(plan, stage, sifted)) {
                continue;
            }
            last = Some(stage);
            self.memo.work += RUN + self.memo.get(stage).len() as u64;
            match self.try_text(plan, tried, self.memo.get(stage)) {
                Some(captures) => {
                    let text = self.memo.get(stage).clone();
                    is_found |= self.matched_value(plan, tried, target, subject, &text, captures);
                }
                None => sifted.into_iter().for_each(|sifted| self.memo.fails(stage, sifted)),
            }
        }
        if let (Some(sifted), false) = (tried.way.sifted, is_found) {
            self.memo.settle(plan, &self.store, value, &tried.way.nodes, sifted);
        }
        is_found
    }

    /// What the operator captured, if it holds for a text, or does not and is negated.
    fn try_text(&self, plan: &Plan, tried: Tried, text: &[u8]) -> Option<Captures> {
        let (link, rule) = (tried.link, &plan.rules[tried.place]);
        let mut captures = Captures::new();
        let wanted = link.captures.then_some(&mut captures);
        let holds = link
            .operator
            .holds(text, |argument| self.expand(argument, rule), wanted);
        (holds != link.is_negated).then_some(captures)
    }

    /// `false`: the rule leaves this value out.
    fn matched_value(
        &mut self,
        plan: &Plan,
        tried: Tried,
        target: &Target,
        subject: &Subject,
        text: &Bytes,
        captures: Captures,
    ) -> bool {
        let (link, rule) = (tried.link, &plan.rules[tried.place]);
        // Patterns of names are work, too.
        let names = link.targets.exclude.len() + self.removed_targets.len();
        self.memo.work += (names * self.key(subject).len()) as u64;
        if !target.is_count && self.is_excluded(tried, target.variable, self.key(subject)) {
            return false;
        }
        if link.captures && !link.is_negated {
            self.state.capture(captures);
        }
        let matched = Matched {
            name: self.name(target, subject),
            text: text.clone(),
        };
        self.state.matched = matched.clone();
        self.state.all_matched.push(matched);
        for effect in &link.effects {
            self.effect(effect, rule);
        }
        true
    }

    fn key<'a>(&'a self, subject: &'a Subject) -> &'a Bytes {
        match subject {
            Subject::Stored(number) => &self.store.get(*number).key,
            Subject::Own(key, _) => key,
        }
    }

    fn name(&self, target: &Target, subject: &Subject) -> Bytes {
        let name = target.variable.name();
        let key = self.key(subject);
        match (target.is_count, key.is_empty(), target.variable) {
            // Already a name.
            (false, false, Variable::MatchedVars | Variable::MatchedVarsNames) => key.clone(),
            (false, false, _) => [name.as_bytes(), b":", key].concat().into(),
            (true, ..) => format!("&{name}").into(),
            (false, true, _) => Bytes::from_static(name.as_bytes()),
        }
    }

    fn effect(&mut self, effect: &Effect, rule: &Rule) {
        match effect {
            Effect::Control(control) => self.control(control),
            Effect::Set {
                collection,
                key,
                change,
            } => {
                let key = self.expand(key, rule);
                let text = match change {
                    Change::Assign(text) | Change::Add(text) | Change::Subtract(text) => self.expand(text, rule),
                    Change::Unset => Vec::new(),
                };
                self.state.change(*collection, key, change, text);
            }
        }
    }

    pub(super) fn text(&self, text: Option<&Text>, rule: &Rule) -> String {
        let text = text.map(|text| self.expand(text, rule)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn expand(&self, text: &Text, rule: &Rule) -> Vec<u8> {
        text.expand(|variables, key, out| {
            let found = variables.iter().find_map(|variable| self.look(*variable, key, rule));
            out.extend_from_slice(&found.unwrap_or_default());
        })
    }

    fn look(&self, variable: Variable, key: Option<&str>, rule: &Rule) -> Option<Bytes> {
        match variable {
            Variable::MatchedVar => Some(self.state.matched.text.clone()),
            Variable::MatchedVarName => Some(self.state.matched.name.clone()),
            Variable::MatchedVars => self.state.all_matched.first().map(|matched| matched.text.clone()),
            Variable::MatchedVarsNames => self.state.all_matched.first().map(|matched| matched.name.clone()),
            Variable::Rule => key.map(|key| rule_text(self, rule, key).into()),
            variable if variable.is_stored() => self.store.first(variable, key).map(|value| value.text.clone()),
            variable => self.state.get(variable, key?.as_bytes()).cloned(),
        }
    }
}

fn rule_text(transaction: &Transaction, rule: &Rule, key: &str) -> String {
    match key {
        "id" => rule.id.to_string(),
        // A message that names itself would never end.
        "msg" => rule
            .message
            .as_ref()
            .and_then(Text::constant)
            .map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned()),
        "severity" => rule.severity.map(|severity| severity.to_string()).unwrap_or_default(),
        "ver" => rule.version.clone(),
        "logdata" => match rule.data.as_ref().and_then(Text::constant) {
            Some(text) => String::from_utf8_lossy(text).into_owned(),
            None => String::from_utf8_lossy(&transaction.state.matched.text).into_owned(),
        },
        _ => String::new(),
    }
}
