//! Rules made ready to run: by phase, with their jumps resolved and their transformations in one tree. Built once, shared, never changed.

use std::collections::HashMap;

use super::filter::{Builder, Filter, Sifted};
use crate::proxy::waf::operator::number;
use crate::proxy::waf::rule::{Change, Effect, Link, Phase, Rule};
use crate::proxy::waf::seclang::Program;
use crate::proxy::waf::transform::{Reading, Transform};

/// A place in the tree of transformations; the root is the value as it is.
pub type Node = u16;
pub const ROOT: Node = 0;

#[derive(Debug)]
pub struct Plan {
    pub rules: Vec<Rule>,
    pub reading: Reading,
    /// For each rule, in each of its links.
    pub ways: Vec<Vec<Way>>,
    phases: [Vec<usize>; 6],
    /// Where a rule goes on after a match; the next one's number where it says nothing.
    jumps: Vec<usize>,
    tree: Tree,
    pub filter: Filter,
}

/// How a link's operator meets values.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where it looks: the last node, or all on the way where it asks for that.
    pub nodes: Vec<Node>,
    /// Its number in the filter. `None`: it must be tried.
    pub sifted: Option<Sifted>,
}

#[derive(Debug, Default)]
struct Tree {
    /// Parent and transformation of each node but the root.
    nodes: Vec<(Node, Transform)>,
    places: HashMap<(Node, Transform), Node>,
}

impl Plan {
    pub fn new(program: Program, reading: Reading) -> Plan {
        let Program { rules, markers, .. } = program;
        let mut phases = [const { Vec::new() }; 6];
        let (mut tree, mut filter) = (Tree::default(), Builder::default());
        let (mut ways, mut jumps) = (Vec::new(), Vec::new());
        let level = level(&rules);
        for (place, rule) in rules.iter().enumerate() {
            phases[rule.phase as usize].push(place);
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
        Plan {
            rules,
            reading,
            ways,
            phases,
            jumps,
            tree,
            filter: filter.finish(),
        }
    }

    /// Every operator is tried on every value.
    pub fn without_filter(mut self) -> Plan {
        self.ways.iter_mut().flatten().for_each(|way| way.sifted = None);
        self
    }

    /// Numbers of the rules of a phase, in their order.
    pub fn of(&self, phase: Phase) -> &[usize] {
        &self.phases[phase as usize]
    }

    pub fn next(&self, rule: usize) -> usize {
        self.jumps[rule]
    }

    pub fn node_count(&self) -> usize {
        self.tree.nodes.len() + 1
    }

    /// `None`: the root.
    pub fn step(&self, node: Node) -> Option<(Node, Transform)> {
        self.tree.nodes.get(usize::from(node).checked_sub(1)?).copied()
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

impl Tree {
    fn way(&mut self, transforms: &[Transform], is_multi: bool) -> Vec<Node> {
        let mut nodes = vec![ROOT];
        for transform in transforms {
            let parent = *nodes.last().expect("starts with the root");
            nodes.push(self.child(parent, *transform));
        }
        match is_multi {
            true => nodes,
            false => nodes.split_off(nodes.len() - 1),
        }
    }

    fn child(&mut self, parent: Node, transform: Transform) -> Node {
        let next = self.nodes.len() as Node + 1;
        let place = *self.places.entry((parent, transform)).or_insert(next);
        if place == next {
            self.nodes.push((parent, transform));
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn chains_of_transformations_share_what_they_begin_with() {
        let text = "SecRule ARGS x \"id:1,t:lowercase,t:trim\"\nSecRule ARGS x \"id:2,t:lowercase,t:length,multiMatch,skipAfter:END\"\n\
            SecMarker OTHER\nSecAction \"id:3\"\nSecMarker END\nSecAction \"id:4,skipAfter:NOWHERE\"";
        let mut program = Program::default();
        program.add("x", text, Path::new("/nowhere")).unwrap();
        let plan = Plan::new(program, Reading::Text);
        assert_eq!(plan.node_count(), 4);
        assert_eq!(
            (&plan.ways[0][0].nodes[..], &plan.ways[1][0].nodes[..]),
            (&[2u16][..], &[0u16, 1, 3][..])
        );
        assert_eq!((plan.next(0), plan.next(1), plan.next(3)), (1, 3, 4));
        assert_eq!(plan.step(2), Some((1, Transform::Trim)));
    }
}
