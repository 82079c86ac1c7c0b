//! What must be true of the registry, looked at as it happens: every version when it is published, every answer when it comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::registry::view::Stamp;
use crate::registry::{Change, Error, Revision, VERSIONS_KEPT, View, read_image};

/// Names one change; it is the text of its event.
pub type Name = String;

#[derive(Default)]
struct State {
    /// What was asked for, by its name.
    changes: BTreeMap<Name, Change>,
    /// All versions, oldest first, by the change that made each.
    made: Vec<Name>,
    newest: View,
    acknowledged: BTreeMap<Name, Revision>,
    refused: BTreeMap<Name, Error>,
    /// Nobody knows what became of them.
    unknown: u64,
    reads: u64,
    /// Names that were linked anew where an old version had been collected.
    revived: u64,
    is_calm: bool,
    faults: Vec<String>,
}

/// Clones are the same ledger.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<State>>);

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn fault(&self, what: String) {
        self.state().faults.push(what);
    }

    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// No more faults of the folder and of authors from here on.
    pub fn calm(&self) {
        self.state().is_calm = true;
    }

    pub fn is_calm(&self) -> bool {
        self.state().is_calm
    }

    /// Somebody begins to commit.
    pub fn begins(&self, name: &str, change: &Change) {
        self.state().changes.insert(name.into(), change.clone());
    }

    /// A file got the name of a version.
    pub fn published(&self, name: &str, image: &[u8]) {
        let Some(revision) = version(name) else { return };
        let mut state = self.state();
        let next = state.made.len() as Revision + 1;
        if revision < state.newest.floor {
            state.revived += 1;
            return;
        }
        let wrong = match read_image(image) {
            Err(error) => Some(format!("{name} cannot be read: {error}")),
            Ok(_) if revision != next => Some(format!("{name} is published, {next} would be next")),
            Ok(view) => state.follow(view).err(),
        };
        state.faults.extend(wrong);
    }

    /// A name is no more.
    pub fn removed(&self, name: &str) {
        let Some(revision) = version(name) else { return };
        let mut state = self.state();
        if revision >= state.newest.floor {
            let floor = state.newest.floor;
            state.faults.push(format!("{name} is removed, the floor is {floor}"));
        }
    }

    /// How a commit ended; `None`: its author died over it.
    pub fn ended(&self, name: Name, result: Option<Result<Arc<View>, Error>>) {
        let mut state = self.state();
        match result {
            Some(Ok(view)) => {
                let made = usize::try_from(view.revision)
                    .ok()
                    .and_then(|at| state.made.get(at - 1));
                if made != Some(&name) {
                    let wrong = format!(
                        "{name} was acknowledged as version {}, which is {made:?}",
                        view.revision
                    );
                    state.faults.push(wrong);
                }
                state.acknowledged.insert(name, view.revision);
            }
            Some(Err(error @ (Error::Stale(_) | Error::Invalid(_)))) => {
                state.refused.insert(name, error);
            }
            Some(Err(Error::Unreachable(_))) | None => state.unknown += 1,
            Some(Err(error)) => state.faults.push(format!("{name}: {error}")),
        }
    }

    /// What a read that begins now must see at least.
    pub fn begin_read(&self) -> Revision {
        self.state().newest.revision
    }

    pub fn end_read(&self, least: Revision, result: Result<Arc<View>, Error>) {
        let mut state = self.state();
        let wrong = match result {
            Ok(view) if view.revision < least => Some(format!("a read shows {}, {least} was there", view.revision)),
            Ok(view) => {
                state.reads += 1;
                let made = usize::try_from(view.revision)
                    .ok()
                    .and_then(|at| state.made.get(at.checked_sub(1)?));
                let shown = view.events.last().map(|event| &event.text);
                (made != shown).then(|| format!("a read shows {shown:?} as version {}, it is {made:?}", view.revision))
            }
            Err(Error::Unreachable(_)) => None,
            Err(error) => Some(format!("a read: {error}")),
        };
        state.faults.extend(wrong);
    }

    /// When all is over.
    pub fn judge(&self) {
        let mut state = self.state();
        let refused = state.made.iter().filter(|name| state.refused.contains_key(*name));
        let wrong: Vec<_> = refused
            .map(|name| format!("{name} was refused ({}) and is there", state.refused[name]))
            .collect();
        state.faults.extend(wrong);
        let (acknowledged, unknown, reads) = (state.acknowledged.len(), state.unknown, state.reads);
        if acknowledged < 40 || unknown < 5 || reads < 10 {
            let little = format!("too little happened: {acknowledged} acknowledged, {unknown} unknown, {reads} reads");
            state.faults.push(little);
        }
    }

    pub fn summary(&self) -> String {
        let state = self.state();
        format!(
            "{} versions, {} acknowledged, {} refused, {} unknown, {} reads, {} old names revived",
            state.made.len(),
            state.acknowledged.len(),
            state.refused.len(),
            state.unknown,
            state.reads,
            state.revived
        )
    }
}

impl State {
    /// I6: the version is what one change makes of the one before.
    fn follow(&mut self, view: View) -> Result<(), String> {
        let commit = view.history.last().ok_or("a version without a history")?;
        let name = view.events.last().map(|event| event.text.clone()).unwrap_or_default();
        let change = self.changes.get(&name).ok_or(format!("nobody asked for {name:?}"))?;
        let stamp = Stamp {
            author: commit.author.clone(),
            time: commit.time,
            attempt: commit.attempt,
            kept: VERSIONS_KEPT,
        };
        let revision = view.revision;
        let follows = self.newest.apply(change, &stamp).ok().as_ref() == Some(&view);
        let before = self.made.iter().position(|made| *made == name);
        self.made.push(name.clone());
        self.newest = view;
        match (follows, before) {
            (false, _) => Err(format!("version {revision} is not what {name} makes of the one before")),
            (true, Some(before)) => Err(format!("{name} made version {} and {revision}", before + 1)),
            (true, None) => Ok(()),
        }
    }
}

fn version(name: &str) -> Option<Revision> {
    name.strip_prefix('v')?.parse().ok()
}
