//! What values became under transformations: each chain is run once per text, what it does not change shares its bytes, and short
//! texts that are equal are one, long ones where they are the same bytes. With each text goes which operators may hold for it; with each variable, which may for any of its values.

use std::hash::BuildHasher;

use bytes::Bytes;
use hashbrown::HashTable;

use super::bits::{self, Set, Sets};
use super::filter::Sifted;
use super::known;
use super::plan::Plan;
use super::tree::{Node, ROOT};
use crate::proxy::waf::operator::ByteSet;
use crate::proxy::waf::store::Store;
use crate::proxy::waf::transform::Transform;
use crate::proxy::waf::variable::{STORED, Variable};

/// A number of bytes that some value became.
pub type Stage = u32;

/// Longer texts are looked for among what their own value became: equal ones of others are seldom.
const SHORT: usize = 256;
/// Texts of a common request.
const EXPECTED: usize = 256;

#[derive(Debug)]
pub struct Memo {
    texts: Vec<Text>,
    sets: Sets,
    /// By value: one more than its row; zero: not yet. Equal short values have one row.
    values: Vec<u32>,
    rows: Vec<Row>,
    /// By row and node; zero: not yet, else one more than the stage.
    places: Vec<Stage>,
    short: HashTable<Stage>,
    /// By where they lie.
    long: HashTable<Stage>,
    unions: [Option<Union>; STORED],
    opened: Vec<u64>,
    /// Bytes transformed and looked at; beyond the bound nothing more is begun, and no answer counts any more.
    pub work: u64,
    pub bound: u64,
}

/// A text that values are, with what it became.
#[derive(Clone, Copy, Debug)]
struct Row {
    root: Stage,
    /// Variables whose rules it was sifted for, as bits.
    ready: u64,
    /// Of these, what was known from earlier requests; all is, unless something was learned since.
    known: Option<u64>,
    /// What may hold for it, at the node where it is asked.
    may_hold: Set,
}

/// What may hold for any value of a variable.
#[derive(Clone, Copy, Debug)]
struct Union {
    /// How many of its values are in, and the last of them: values come and change between phases.
    count: usize,
    last: u32,
    may_hold: Set,
}

#[derive(Debug)]
struct Text {
    bytes: Bytes,
    /// Of a short text, or of where a long one lies.
    hash: u64,
    /// Made when it is needed.
    present: Option<ByteSet>,
    /// One more than the row of the values that are this text; zero: no value is.
    row: u32,
    /// Before a change of case: what may hold for the one may hold for the other.
    same: Option<Stage>,
    candidates: Option<Set>,
    /// What was tried and did not hold.
    failed: Option<Set>,
}

impl Memo {
    pub fn new(plan: &Plan, bound: u64) -> Memo {
        Memo {
            texts: Vec::with_capacity(EXPECTED),
            sets: Sets::new(plan.filter.width(), 2 * EXPECTED),
            values: Vec::with_capacity(EXPECTED),
            rows: Vec::with_capacity(EXPECTED),
            places: Vec::with_capacity(EXPECTED * plan.tree.len()),
            short: HashTable::with_capacity(EXPECTED),
            long: HashTable::new(),
            unions: [None; STORED],
            opened: Vec::new(),
            work: 0,
            bound,
        }
    }

    pub fn is_exhausted(&self) -> bool {
        self.work > self.bound
    }

    /// What a stored value is at a node.
    pub fn stage(&mut self, plan: &Plan, store: &Store, value: u32, node: Node) -> Stage {
        let row = self.row(plan, store, value);
        self.stage_of(plan, row, node)
    }

    fn row(&mut self, plan: &Plan, store: &Store, value: u32) -> u32 {
        if self.values.len() < store.len() {
            self.values.resize(store.len(), 0);
        }
        if let Some(row) = self.values[value as usize].checked_sub(1) {
            return row;
        }
        let stage = self.push(plan, store.get(value).text.clone(), None);
        let text = &mut self.texts[stage as usize];
        if text.row == 0 {
            let first = self.places.len();
            self.places.resize(first + plan.tree.len(), 0);
            self.places[first + usize::from(ROOT)] = stage + 1;
            let may_hold = self.sets.add_empty();
            let known = match text.bytes.len() <= known::LONGEST {
                true => plan.known.look(text.hash, &text.bytes, self.sets.get_mut(may_hold)),
                false => None,
            };
            self.rows.push(Row {
                root: stage,
                ready: known.unwrap_or(0),
                known,
                may_hold,
            });
            text.row = self.rows.len() as u32;
        }
        self.values[value as usize] = text.row;
        text.row - 1
    }

    fn stage_of(&mut self, plan: &Plan, row: u32, node: Node) -> Stage {
        let place = row as usize * plan.tree.len() + usize::from(node);
        if let Some(stage) = self.places[place].checked_sub(1) {
            return stage;
        }
        let step = plan.tree.step(node).expect("the root is there since the row is");
        let before = self.stage_of(plan, row, step.parent);
        let text = &mut self.texts[before as usize];
        let triggers = step.triggers.as_ref();
        let stays = triggers.is_some_and(|triggers| !triggers.meets(text.present()));
        let stage = match stays {
            true => before,
            false => {
                self.work += text.bytes.len() as u64;
                match step.transform.apply(&text.bytes, plan.reading) {
                    Some(changed) if changed != text.bytes => {
                        let is_case = matches!(step.transform, Transform::Lowercase | Transform::Uppercase);
                        let known = self.known(plan, row, &changed);
                        known.unwrap_or_else(|| self.push(plan, changed.into(), is_case.then_some(before)))
                    }
                    _ => before,
                }
            }
        };
        self.places[place] = stage + 1;
        stage
    }

    /// A long text among what a value became already.
    fn known(&self, plan: &Plan, row: u32, text: &[u8]) -> Option<Stage> {
        if text.len() <= SHORT {
            return None;
        }
        let width = plan.tree.len();
        let stages = self.places[row as usize * width..][..width].iter();
        let mut stages = stages.filter_map(|stage| stage.checked_sub(1));
        stages.find(|stage| self.texts[*stage as usize].bytes == text)
    }

    pub fn get(&self, stage: Stage) -> &Bytes {
        &self.texts[stage as usize].bytes
    }

    /// Whether an operator may hold for a text.
    pub fn may_hold(&mut self, plan: &Plan, stage: Stage, sifted: Sifted) -> bool {
        let failed = self.texts[stage as usize].failed;
        let has_failed = failed.is_some_and(|failed| bits::has(self.sets.get(failed), sifted));
        if has_failed {
            return false;
        }
        let candidates = self.candidates(plan, stage);
        bits::has(self.sets.get(candidates), sifted)
    }

    /// An operator does not hold for a text, and need not be tried again.
    pub fn fails(&mut self, stage: Stage, sifted: Sifted) {
        let sets = &mut self.sets;
        let failed = self.texts[stage as usize]
            .failed
            .get_or_insert_with(|| sets.add_empty());
        bits::insert(sets.get_mut(*failed), sifted);
    }

    /// Whether an operator may hold for a value of a variable that was sifted.
    pub fn may_hold_for(&self, value: u32, sifted: Sifted) -> bool {
        // One that came since then is tried.
        let row = self.values.get(value as usize).and_then(|row| row.checked_sub(1));
        row.is_none_or(|row| bits::has(self.sets.get(self.rows[row as usize].may_hold), sifted))
    }

    /// The operators that may hold for any value of a variable.
    pub fn sift(&mut self, plan: &Plan, store: &Store, variable: Variable) -> &[u64] {
        let place = variable as usize;
        let numbers = store.of(variable);
        let mut union = self.unions[place].unwrap_or_else(|| Union {
            count: 0,
            last: 0,
            may_hold: self.sets.add_empty(),
        });
        let is_same = union.count <= numbers.len() && (union.count == 0 || numbers[union.count - 1] == union.last);
        if !is_same {
            union.count = 0;
            self.sets.get_mut(union.may_hold).fill(0);
        }
        let is_first = union.count == 0;
        while let Some(number) = numbers.get(union.count) {
            if self.is_exhausted() {
                break;
            }
            let row = self.row(plan, store, *number);
            let is_new = self.sift_row(plan, row, variable);
            if is_new || is_first {
                let from = self.rows[row as usize].may_hold;
                self.sets
                    .join_common(union.may_hold, from, &plan.reach.of(variable).sifted);
            }
            union.count += 1;
            union.last = *number;
        }
        self.unions[place] = Some(union);
        self.sets.get(union.may_hold)
    }

    /// `false`: it was done for this variable already.
    fn sift_row(&mut self, plan: &Plan, row: u32, variable: Variable) -> bool {
        let Row {
            root, ready, may_hold, ..
        } = self.rows[row as usize];
        if ready >> variable as u32 & 1 == 1 {
            return false;
        }
        self.rows[row as usize].ready |= 1 << variable as u32;
        let looked = plan.reach.of(variable);
        let nodes = match looked.triggers.meets(self.texts[root as usize].present()) {
            true => &looked.nodes,
            // At most nodes it is what it is.
            false => {
                let found = self.candidates(plan, root);
                self.sets.join_common(may_hold, found, &looked.sifted);
                &looked.always
            }
        };
        for node in nodes {
            let stage = self.stage_of(plan, row, *node);
            let found = self.candidates(plan, stage);
            self.sets.join_common(may_hold, found, plan.reach.at(*node));
        }
        true
    }

    fn candidates(&mut self, plan: &Plan, stage: Stage) -> Set {
        let place = stage as usize;
        if let Some(found) = self.texts[place].candidates {
            return found;
        }
        let found = match self.texts[place].same {
            Some(before) => self.candidates(plan, before),
            None => {
                let set = self.sets.add_empty();
                let text = &mut self.texts[place];
                self.work += text.bytes.len() as u64;
                let present = text.present().lowercase();
                let found = self.sets.get_mut(set);
                plan.filter.sift(&text.bytes, &present, &mut self.opened, found);
                set
            }
        };
        self.texts[place].candidates = Some(found);
        found
    }

    fn push(&mut self, plan: &Plan, bytes: Bytes, same: Option<Stage>) -> Stage {
        let next = self.texts.len() as Stage;
        let hash;
        if bytes.len() <= SHORT {
            hash = plan.known.hasher.hash_one(&bytes);
            let texts = &self.texts;
            let known = self.short.find(hash, |stage| texts[*stage as usize].bytes == bytes);
            if let Some(known) = known {
                return *known;
            }
            self.short
                .insert_unique(hash, next, |stage| texts[*stage as usize].hash);
        } else {
            hash = plan.known.hasher.hash_one(place(&bytes));
            let texts = &self.texts;
            let is_same = |stage: &Stage| place(&texts[*stage as usize].bytes) == place(&bytes);
            if let Some(known) = self.long.find(hash, is_same) {
                return *known;
            }
            self.long.insert_unique(hash, next, |stage| texts[*stage as usize].hash);
        }
        self.texts.push(Text {
            bytes,
            hash,
            present: None,
            row: 0,
            same,
            candidates: None,
            failed: None,
        });
        next
    }

    /// An operator was tried on a value: where it holds at none of the nodes at which it looks, it need not be tried again.
    pub fn settle(&mut self, plan: &Plan, store: &Store, value: u32, nodes: &[Node], sifted: Sifted) {
        let row = self.row(plan, store, value);
        for node in nodes {
            let stage = self.stage_of(plan, row, *node);
            if self.may_hold(plan, stage, sifted) {
                return;
            }
        }
        let row = &mut self.rows[row as usize];
        bits::remove(self.sets.get_mut(row.may_hold), sifted);
        row.known = None;
    }

    /// Leaves to later requests what was found out about texts that come again.
    pub fn remember(&self, plan: &Plan) {
        for row in &self.rows {
            let text = &self.texts[row.root as usize];
            if row.ready != 0 && row.known != Some(row.ready) && known::is_worth(row.ready, text.bytes.len()) {
                let may_hold = self.sets.get(row.may_hold);
                plan.known.learn(text.hash, &text.bytes, row.ready, may_hold);
            }
        }
    }
}

/// Where bytes lie; they stay there as long as their text is kept.
fn place(bytes: &Bytes) -> (usize, usize) {
    (bytes.as_ptr() as usize, bytes.len())
}

impl Text {
    fn present(&mut self) -> &ByteSet {
        self.present.get_or_insert_with(|| ByteSet::of(&self.bytes))
    }
}

/// The same for a value that no number stands for.
pub fn transformed(plan: &Plan, text: &Bytes, node: Node) -> Bytes {
    let Some(step) = plan.tree.step(node) else {
        return text.clone();
    };
    let text = transformed(plan, text, step.parent);
    step.transform.apply(&text, plan.reading).map_or(text, Bytes::from)
}
