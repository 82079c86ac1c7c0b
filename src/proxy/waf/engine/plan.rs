//! Rules made ready to run: by phase, with their jumps resolved and their transformations in one tree. Built once, shared, never changed.

use super::filter::{Builder, Filter, Sifted};
use super::known::Known;
use super::reach::Reach;
use super::tree::{Node, Tree};
use crate::proxy::waf::operator::number;
use crate::proxy::waf::rule::{Change, Effect, Link, Phase, Rule};
use crate::proxy::waf::seclang::Program;
use crate::proxy::waf::transform::Reading;

#[derive(Debug)]
pub struct Plan {
    pub rules: Vec<Rule>,
    pub reading: Reading,
    /// For each rule, in each of its links.
    pub ways: Vec<Vec<Way>>,
    phases: [Vec<Asked>; 6],
    /// Where a rule goes on after a match; the next one's number where it says nothing.
    jumps: Vec<usize>,
    pub tree: Tree,
    pub filter: Filter,
    pub reach: Reach,
    pub known: Known,
}

/// How a link's operator meets values.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where it looks: the last node, or all on the way where it asks for that.
    pub nodes: Vec<Node>,
    /// Its number in the filter. `None`: it must be tried.
    pub sifted: Option<Sifted>,
}

/// A rule in its phase.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub place: usize,
    /// Of its first link.
    pub sifted: Option<Sifted>,
}

impl Plan {
    pub fn new(program: Program, reading: Reading) -> Plan {
        let Program { rules, markers, .. } = program;
        let (mut tree, mut filter) = (Tree::new(reading), Builder::default());
        let (mut ways, mut jumps): (Vec<Vec<Way>>, _) = (Vec::new(), Vec::new());
        let level = level(&rules);
        for (place, rule) in rules.iter().enumerate() {
            let way = |link: &Link| Way {
                nodes: tree.way(&link.transforms, link.is_multi),
                // One that is negated holds where its operator does not.
                sifted: match link.is_negated || level_of(rule) > level {
                    true => None,
                    false => filter.add(&link.operator),
                },
            };
            ways.push(rule.links.iter().map(way).collect());
            // The first such marker after the rule; without one, nothing of the phase is left.
            let marker = rule.skip_after.as_ref().map(|name| {
                let found = markers.iter().find(|(own, at)| own == name && *at > place);
                found.map_or(rules.len(), |(_, at)| *at)
            });
            jumps.push(marker.unwrap_or(place + 1));
        }
        let filter = filter.finish();
        let mut plan = Plan {
            reach: Reach::new(filter.width(), &tree),
            rules,
            reading,
            ways,
            phases: Default::default(),
            jumps,
            tree,
            filter,
            known: Known::default(),
        };
        plan.index();
        plan
    }

    fn index(&mut self) {
        for (place, (rule, ways)) in self.rules.iter().zip(&self.ways).enumerate() {
            for (at, (link, way)) in rule.links.iter().zip(ways).enumerate() {
                self.reach.add(&self.tree, rule.phase, link, way, at == 0);
            }
            let sifted = ways.first().and_then(|way| way.sifted);
            self.phases[rule.phase as usize].push(Asked { place, sifted });
        }
    }

    /// Every operator is tried on every value.
    pub fn without_filter(mut self) -> Plan {
        self.ways.iter_mut().flatten().for_each(|way| way.sifted = None);
        self.reach = Reach::new(self.filter.width(), &self.tree);
        self.phases = Default::default();
        self.index();
        self
    }

    /// The rules of a phase, in their order.
    pub fn of(&self, phase: Phase) -> &[Asked] {
        &self.phases[phase as usize]
    }

    pub fn next(&self, rule: usize) -> usize {
        self.jumps[rule]
    }
}

/// The highest paranoia level that any rule sets: rules above it will hardly run, and would only make the filter large. Where one
/// does, it is tried without.
fn level(rules: &[Rule]) -> i64 {
    let effects = rules.iter().flat_map(|rule| &rule.links).flat_map(|link| &link.effects);
    let levels = effects.filter_map(|effect| match effect {
        Effect::Set {
            key,
            change: Change::Assign(text),
            ..
        } if key.constant().is_some_and(|key| key.ends_with(b"paranoia_level")) => text.constant().map(number),
        _ => None,
    });
    levels.max().unwrap_or(i64::MAX)
}

fn level_of(rule: &Rule) -> i64 {
    let level = rule.tags.iter().find_map(|tag| tag.strip_prefix("paranoia-level/"));
    level.map_or(0, |level| number(level.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn jumps_lead_to_markers() {
        let text = "SecRule ARGS x \"id:1\"\nSecRule ARGS x \"id:2,skipAfter:END\"\n\
            SecMarker OTHER\nSecAction \"id:3\"\nSecMarker END\nSecAction \"id:4,skipAfter:NOWHERE\"";
        let mut program = Program::default();
        program.add("x", text, Path::new("/nowhere")).unwrap();
        let plan = Plan::new(program, Reading::Text);
        assert_eq!((plan.next(0), plan.next(1), plan.next(3)), (1, 3, 4));
    }
}
