//! Which sifted operators look at which variables, at which nodes: what of a value is worth preparing.

use super::bits;
use super::filter::Sifted;
use super::plan::Way;
use super::tree::{Node, Tree};
use crate::proxy::waf::operator::ByteSet;
use crate::proxy::waf::rule::{Link, Phase};
use crate::proxy::waf::variable::{STORED, Target, Variable};

#[derive(Debug)]
pub struct Reach {
    variables: Vec<Looked>,
    /// By node: the operators that look there.
    nodes: Vec<Vec<u64>>,
    /// By phase.
    phases: [Needed; 6],
    width: usize,
}

/// What operators see of a variable.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    pub nodes: Vec<Node>,
    /// Of these nodes, those where any text may become another.
    pub always: Vec<Node>,
    /// A text without any of these is at all other nodes what it is.
    pub triggers: ByteSet,
    pub sifted: Vec<u64>,
}

/// What the rules of a phase need.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    /// Variables that sifted rules begin with.
    pub variables: Vec<Variable>,
    /// Operators that look at more than stored values: nothing is known before they are tried.
    pub unsure: Vec<u64>,
}

impl Reach {
    pub fn new(width: usize, tree: &Tree) -> Reach {
        let needed = Needed {
            variables: Vec::new(),
            unsure: vec![0; width],
        };
        let looked = Looked {
            sifted: vec![0; width],
            ..Looked::default()
        };
        Reach {
            variables: vec![looked; STORED],
            nodes: vec![vec![0; width]; tree.len()],
            phases: std::array::from_fn(|_| needed.clone()),
            width,
        }
    }

    /// `is_first`: of its rule's links.
    pub fn add(&mut self, tree: &Tree, phase: Phase, link: &Link, way: &Way, is_first: bool) {
        let Some(sifted) = way.sifted else { return };
        for node in &way.nodes {
            bits::insert(&mut self.nodes[usize::from(*node)], sifted);
        }
        for target in &link.targets.include {
            if is_stored(target) {
                self.variables[target.variable as usize].add(tree, &way.nodes, sifted);
            }
            let needed = &mut self.phases[phase as usize];
            match (is_first, is_stored(target)) {
                (true, true) if !needed.variables.contains(&target.variable) => needed.variables.push(target.variable),
                (true, false) => bits::insert(&mut needed.unsure, sifted),
                _ => {}
            }
        }
    }

    pub fn of(&self, variable: Variable) -> &Looked {
        &self.variables[variable as usize]
    }

    pub fn at(&self, node: Node) -> &[u64] {
        &self.nodes[usize::from(node)]
    }

    pub fn needed(&self, phase: Phase) -> &Needed {
        &self.phases[phase as usize]
    }

    /// Words of a set of operators.
    pub fn width(&self) -> usize {
        self.width
    }
}

impl Looked {
    fn add(&mut self, tree: &Tree, nodes: &[Node], sifted: Sifted) {
        bits::insert(&mut self.sifted, sifted);
        for node in nodes {
            if self.nodes.contains(node) {
                continue;
            }
            self.nodes.push(*node);
            match tree.triggers(*node) {
                Some(triggers) => self.triggers.join(&triggers),
                None => self.always.push(*node),
            }
        }
    }
}

/// Values that are there before rules run, and are looked at one by one.
pub fn is_stored(target: &Target) -> bool {
    target.variable.is_stored() && !target.is_count
}
