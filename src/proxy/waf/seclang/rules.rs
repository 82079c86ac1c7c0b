//! `SecRule`, `SecAction`, `SecDefaultAction`: rules with their chains, and what they take from the default.

use std::path::Path;

use super::action::{self, Actions, Said};
use super::{Program, target};
use crate::proxy::waf::operator::{self, Operator};
use crate::proxy::waf::rule::{Disruption, Link, Phase, Place, Rule};
use crate::proxy::waf::transform::Transform;
use crate::proxy::waf::variable::{Selector, Target, Targets, Variable};

/// What rules of a phase do unless they say otherwise.
#[derive(Debug)]
pub struct Preset {
    phase: Phase,
    disruption: Disruption,
    is_logged: bool,
    status: Option<u16>,
    transforms: Vec<Transform>,
}

/// A rule whose chain goes on.
#[derive(Debug)]
pub struct Open(Rule);

impl Open {
    pub fn line(&self) -> u32 {
        self.0.place.line
    }
}

const FORBIDDEN: u16 = 403;

impl Program {
    pub(super) fn rule(
        &mut self,
        targets: &str,
        operator: &str,
        actions: &str,
        place: &Place,
        folder: &Path,
    ) -> Result<(), String> {
        let targets = target::parse(targets)?;
        let (is_negated, operator) = parse_operator(operator, folder)?;
        self.push(targets, operator, is_negated, actions, place)
    }

    pub(super) fn action(&mut self, actions: &str, place: &Place) -> Result<(), String> {
        // Something that is always there, once.
        let target = Target {
            variable: Variable::UniqueId,
            selector: Selector::All,
            is_count: true,
        };
        let targets = Targets {
            include: vec![target],
            exclude: Vec::new(),
        };
        self.push(targets, Operator::Always, false, actions, place)
    }

    pub(super) fn set_default(&mut self, actions: &str) -> Result<(), String> {
        let actions = action::parse(actions)?;
        let phase = actions.phase.ok_or("a default names its phase")?;
        let disruption = match actions.disruption {
            Some(Said::Is(disruption)) => disruption,
            _ => Disruption::Pass,
        };
        let default = Preset {
            phase,
            disruption,
            is_logged: actions.is_logged.unwrap_or(true),
            status: actions.status,
            transforms: actions.transforms,
        };
        self.defaults.retain(|other| other.phase != phase);
        self.defaults.push(default);
        Ok(())
    }

    fn push(
        &mut self,
        targets: Targets,
        operator: Operator,
        is_negated: bool,
        actions: &str,
        place: &Place,
    ) -> Result<(), String> {
        let mut actions = action::parse(actions)?;
        let open = self.unchained.take();
        let phase = match &open {
            Some(open) => open.0.phase,
            // As the language has it.
            None => actions.phase.unwrap_or(Phase::RequestBody),
        };
        let default = self.defaults.iter().find(|default| default.phase == phase);
        let mut transforms = match default {
            Some(default) if !actions.is_bare => default.transforms.clone(),
            _ => Vec::new(),
        };
        transforms.append(&mut actions.transforms);
        let link = Link {
            targets,
            operator,
            is_negated,
            transforms,
            is_multi: actions.is_multi,
            captures: actions.captures,
            effects: std::mem::take(&mut actions.effects),
        };
        let is_chained = actions.is_chained;
        let rule = match open {
            Some(Open(mut rule)) => {
                rule.links.push(link);
                rule.skip_after = rule.skip_after.or(actions.skip_after);
                rule
            }
            None => head(actions, phase, default, link, place)?,
        };
        if is_chained {
            self.unchained = Some(Open(rule));
            return Ok(());
        }
        if let Some(other) = self.rules.iter().find(|other| other.id == rule.id) {
            return Err(format!("the id {} is that of the rule at {}", rule.id, other.place));
        }
        self.rules.push(rule);
        Ok(())
    }
}

fn head(actions: Actions, phase: Phase, default: Option<&Preset>, link: Link, place: &Place) -> Result<Rule, String> {
    let by_default = default.map_or(Disruption::Pass, |default| default.disruption);
    let disruption = match actions.disruption {
        Some(Said::Is(disruption)) => disruption,
        Some(Said::Block) | None => by_default,
    };
    let status = actions.status.or_else(|| default.and_then(|default| default.status));
    Ok(Rule {
        id: actions.id.ok_or("a rule has an id")?,
        place: place.clone(),
        phase,
        links: vec![link],
        disruption,
        status: status.unwrap_or(FORBIDDEN),
        message: actions.message,
        data: actions.data,
        severity: actions.severity,
        tags: actions.tags,
        version: actions.version,
        is_logged: actions
            .is_logged
            .unwrap_or_else(|| default.is_none_or(|default| default.is_logged)),
        skip_after: actions.skip_after,
    })
}

/// `!@rx x`, `@rx x`, or `x`, which is a pattern too.
fn parse_operator(text: &str, folder: &Path) -> Result<(bool, Operator), String> {
    let text = text.trim_start();
    let (is_negated, rest) = text
        .strip_prefix('!')
        .map_or((false, text), |rest| (true, rest.trim_start()));
    let Some(named) = rest.strip_prefix('@') else {
        return Ok((is_negated, operator::parse("rx", rest, folder)?));
    };
    let (name, argument) = named.split_once(char::is_whitespace).unwrap_or((named, ""));
    let argument = if name.eq_ignore_ascii_case("rx") {
        argument
    } else {
        argument.trim()
    };
    Ok((is_negated, operator::parse(name, argument, folder)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(text: &str) -> Result<Program, String> {
        let mut program = Program::default();
        let added = program.add("x.conf", text, Path::new("/nowhere"));
        added.map(|()| program).map_err(|error| error.to_string())
    }

    #[test]
    fn a_chain_is_one_rule_and_block_is_what_the_default_says() {
        let text = "SecDefaultAction \"phase:2,log,deny,t:lowercase\"\n\
            SecRule ARGS \"@rx a\" \"id:1,phase:2,block,t:none,chain\"\n  SecRule ARGS \"!@eq 1\" \"t:length\"\n\
            SecMarker END\nSecAction \"id:2,phase:1,nolog,pass\"\n";
        let program = program(text).unwrap();
        let rule = &program.rules[0];
        assert_eq!((rule.links.len(), rule.disruption), (2, Disruption::Deny));
        assert!(rule.links[0].transforms.is_empty());
        assert_eq!(rule.links[1].transforms, [Transform::Lowercase, Transform::Length]);
        assert!(rule.links[1].is_negated);
        assert_eq!(program.markers, [("END".to_string(), 1)]);
    }

    #[test]
    fn faults_name_file_and_line() {
        let table = [
            ("\nSecRule ARGS \"@nope x\" \"id:1\"", "x.conf:2: no operator @nope"),
            ("SecRule ARGS x \"id:1,chain\"", "x.conf:1: the chain has no end"),
            (
                "SecAction \"id:1\"\nSecAction \"id:1\"",
                "x.conf:2: the id 1 is that of the rule at x.conf:1",
            ),
            ("SecAction \"pass\"", "x.conf:1: a rule has an id"),
            ("SecNothing on", "x.conf:1: no directive SecNothing"),
        ];
        for (text, expected) in table {
            assert_eq!(program(text).unwrap_err(), expected);
        }
    }
}
