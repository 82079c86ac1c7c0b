//! What values became under transformations: each chain is run once per value, what it does not change shares its bytes, and short
//! texts that are equal are one. With each text goes which operators may hold for it.

use std::collections::HashMap;

use bytes::Bytes;

use super::filter::{Candidates, Sifted};
use super::plan::{Node, Plan, ROOT};
use crate::proxy::waf::store::Store;
use crate::proxy::waf::transform::Transform;
use crate::proxy::waf::variable::{STORED, Variable};

/// A number of bytes that some value became.
pub type Stage = u32;

/// Longer texts are seldom equal, and looking for an equal one costs more.
const SHORT: usize = 256;

#[derive(Debug, Default)]
pub struct Memo {
    texts: Vec<Text>,
    /// By value: one more than its row; zero: not yet. Equal short values have one row.
    rows: Vec<u32>,
    /// By row and node; zero: not yet, else one more than the stage.
    places: Vec<Stage>,
    short: HashMap<Bytes, Stage>,
    /// By variable and node: one more than the place of its union; zero: none yet.
    union_places: Vec<u32>,
    unions: Vec<Union>,
}

/// What may hold for any value of a variable.
#[derive(Debug)]
struct Union {
    /// The value that was its last one: values come and change between phases.
    last: u32,
    candidates: Candidates,
}

#[derive(Debug)]
struct Text {
    bytes: Bytes,
    /// One more than the row of the values that are this text; zero: no value is.
    row: u32,
    /// Before a change of case: what may hold for the one may hold for the other.
    same: Option<Stage>,
    candidates: Option<Candidates>,
    /// What was tried and did not hold.
    failed: Option<Candidates>,
}

impl Memo {
    /// What a stored value is at a node. `work` grows by the bytes transformed.
    pub fn stage(&mut self, plan: &Plan, store: &Store, value: u32, node: Node, work: &mut u64) -> Stage {
        let row = self.row(plan, store, value);
        self.stage_of(plan, row, node, work)
    }

    fn row(&mut self, plan: &Plan, store: &Store, value: u32) -> u32 {
        if self.rows.len() < store.len() {
            self.rows.resize(store.len(), 0);
        }
        if let Some(row) = self.rows[value as usize].checked_sub(1) {
            return row;
        }
        let stage = self.push(store.get(value).text.clone(), None);
        let text = &mut self.texts[stage as usize];
        let width = plan.node_count();
        if text.row == 0 {
            let row = self.places.len() / width;
            self.places.resize(self.places.len() + width, 0);
            self.places[row * width + usize::from(ROOT)] = stage + 1;
            text.row = row as u32 + 1;
        }
        self.rows[value as usize] = text.row;
        text.row - 1
    }

    fn stage_of(&mut self, plan: &Plan, row: u32, node: Node, work: &mut u64) -> Stage {
        let place = row as usize * plan.node_count() + usize::from(node);
        if let Some(stage) = self.places[place].checked_sub(1) {
            return stage;
        }
        let (parent, transform) = plan.step(node).expect("the root is there since the row is");
        let before = self.stage_of(plan, row, parent, work);
        let text = &self.texts[before as usize].bytes;
        *work += text.len() as u64;
        let stage = match transform.apply(text, plan.reading) {
            Some(changed) if changed != *text => {
                let is_case = matches!(transform, Transform::Lowercase | Transform::Uppercase);
                self.push(changed.into(), is_case.then_some(before))
            }
            _ => before,
        };
        self.places[place] = stage + 1;
        stage
    }

    pub fn get(&self, stage: Stage) -> &Bytes {
        &self.texts[stage as usize].bytes
    }

    /// Whether an operator may hold for a text.
    pub fn may_hold(&mut self, plan: &Plan, stage: Stage, sifted: Sifted, work: &mut u64) -> bool {
        let has_failed = self.texts[stage as usize]
            .failed
            .as_ref()
            .is_some_and(|failed| failed.has(sifted));
        !has_failed && self.candidates(plan, stage, work).has(sifted)
    }

    /// An operator does not hold for a text, and need not be tried again.
    pub fn fails(&mut self, plan: &Plan, stage: Stage, sifted: Sifted) {
        let failed = &mut self.texts[stage as usize].failed;
        failed.get_or_insert_with(|| plan.filter.none()).insert(sifted);
    }

    /// Whether an operator may hold for any value of a variable.
    pub fn may_hold_for_any(
        &mut self,
        plan: &Plan,
        store: &Store,
        variable: Variable,
        node: Node,
        sifted: Sifted,
        work: &mut u64,
    ) -> bool {
        debug_assert!((variable as usize) < STORED);
        let numbers = store.of(variable);
        if numbers.is_empty() {
            return false;
        }
        let last = numbers[numbers.len() - 1];
        if self.union_places.is_empty() {
            self.union_places.resize(STORED * plan.node_count(), 0);
        }
        let place = variable as usize * plan.node_count() + usize::from(node);
        let known = self.union_places[place].checked_sub(1).map(|known| known as usize);
        if let Some(union) = known
            .map(|known| &self.unions[known])
            .filter(|union| union.last == last)
        {
            return union.candidates.has(sifted);
        }
        let mut candidates = plan.filter.none();
        let mut before = None;
        for number in numbers {
            let row = self.row(plan, store, *number);
            let stage = self.stage_of(plan, row, node, work);
            // Lists repeat themselves.
            if before != Some(stage) {
                candidates.join(self.candidates(plan, stage, work));
            }
            before = Some(stage);
        }
        let may_hold = candidates.has(sifted);
        let union = Union { last, candidates };
        match known {
            Some(known) => self.unions[known] = union,
            None => {
                self.unions.push(union);
                self.union_places[place] = self.unions.len() as u32;
            }
        }
        may_hold
    }

    fn candidates(&mut self, plan: &Plan, stage: Stage, work: &mut u64) -> &Candidates {
        let place = stage as usize;
        if self.texts[place].candidates.is_none() {
            let found = match self.texts[place].same {
                Some(before) => self.candidates(plan, before, work).clone(),
                None => {
                    let text = &self.texts[place].bytes;
                    *work += text.len() as u64;
                    plan.filter.sift(text)
                }
            };
            self.texts[place].candidates = Some(found);
        }
        self.texts[place].candidates.as_ref().expect("made above")
    }

    fn push(&mut self, bytes: Bytes, same: Option<Stage>) -> Stage {
        let next = self.texts.len() as Stage;
        if bytes.len() <= SHORT {
            let known = *self.short.entry(bytes.clone()).or_insert(next);
            if known != next {
                return known;
            }
        }
        self.texts.push(Text {
            bytes,
            row: 0,
            same,
            candidates: None,
            failed: None,
        });
        next
    }
}

/// The same for a value that no number stands for.
pub fn transformed(plan: &Plan, text: &Bytes, node: Node) -> Bytes {
    if node == ROOT {
        return text.clone();
    }
    let Some((parent, transform)) = plan.step(node) else {
        return text.clone();
    };
    let text = transformed(plan, text, parent);
    transform.apply(&text, plan.reading).map_or(text, Bytes::from)
}
