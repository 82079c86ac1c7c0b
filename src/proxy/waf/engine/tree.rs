//! The chains of transformations of all rules as one tree: what they begin with in common is done once.

use std::collections::HashMap;

use crate::proxy::waf::operator::ByteSet;
use crate::proxy::waf::transform::{Reading, Transform};

/// A place in the tree; the root is the value as it is. A parent's number is below its children's.
pub type Node = u16;
pub const ROOT: Node = 0;

#[derive(Debug)]
pub struct Tree {
    reading: Reading,
    /// Of each node but the root.
    steps: Vec<Step>,
    places: HashMap<(Node, Transform), Node>,
}

#[derive(Debug)]
pub struct Step {
    pub parent: Node,
    pub transform: Transform,
    /// A text without any of these stays as it is. `None`: nothing can be said.
    pub triggers: Option<ByteSet>,
}

impl Tree {
    pub fn new(reading: Reading) -> Tree {
        Tree {
            reading,
            steps: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// The nodes at which an operator looks: the last one, or all on the way.
    pub fn way(&mut self, transforms: &[Transform], is_multi: bool) -> Vec<Node> {
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
        let next = self.steps.len() as Node + 1;
        let place = *self.places.entry((parent, transform)).or_insert(next);
        if place == next {
            self.steps.push(Step {
                parent,
                transform,
                triggers: transform.triggers(self.reading),
            });
        }
        place
    }

    pub fn len(&self) -> usize {
        self.steps.len() + 1
    }

    /// `None`: the root.
    pub fn step(&self, node: Node) -> Option<&Step> {
        self.steps.get(usize::from(node).checked_sub(1)?)
    }

    /// The bytes that change a text somewhere on the way to a node. `None`: nothing can be said.
    pub fn triggers(&self, node: Node) -> Option<ByteSet> {
        let Some(step) = self.step(node) else {
            return Some(ByteSet::default());
        };
        let mut triggers = self.triggers(step.parent)?;
        triggers.join(step.triggers.as_ref()?);
        Some(triggers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_share_what_they_begin_with() {
        let mut tree = Tree::new(Reading::Text);
        assert_eq!(tree.way(&[Transform::Lowercase, Transform::Trim], false), [2]);
        assert_eq!(tree.way(&[Transform::Lowercase, Transform::Length], true), [0, 1, 3]);
        assert_eq!(tree.len(), 4);
        assert_eq!(
            tree.step(2).map(|step| (step.parent, step.transform)),
            Some((1, Transform::Trim))
        );
        assert!(
            tree.triggers(2)
                .is_some_and(|triggers| triggers.has(b'A') && triggers.has(b' '))
        );
        assert_eq!((tree.triggers(0), tree.triggers(3)), (Some(ByteSet::default()), None));
    }
}
