//! What the council tells the data path, and what it wants to hear back.

use std::sync::Arc;

use super::message::Filled;
use super::placement::Placement;
use super::table::Epoch;

/// In this order and one after the other. `Standing` says the same already when an event comes; the event asks for what must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A table is being prepared in which shards move. Pass once over the locks under which data are changed, so that nothing is applied
    /// any more that looked at an older `Standing`; give up waiting for copies of shards that are no longer served, or let them finish for
    /// some 50 ms; then say `Told::Stopped`. The change of table waits for it, and a node that does not say it within a lease is left out.
    Stop(Arc<Placement>),
    /// This table is in force, or must be taken to be: drop the data of every shard that is not in `Placement::held` of this node.
    /// An owner of shards that have fillers begins to stream to these.
    Commit(Arc<Placement>),
    /// The node was left out of a table: all its data are void. Forget everything, then say `Told::Emptied`.
    Empty { incarnation: u64 },
    /// No majority has been in reach for a while: drop the keys that only save work, and serve these keys alone from now on. Sessions and
    /// locks are kept as they are, for they hold again if no table was made without this node, but nobody may see them.
    Alone,
    /// There is a leader again: drop the keys that only save work, once more. Comes before the `Stop` of the first table.
    Rejoined,
}

/// What the data path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// `Event::Stop` for the table of this epoch is done.
    Stopped(Epoch),
    /// `Event::Empty` is done.
    Emptied { incarnation: u64 },
    /// What this node had is gone, and it can keep nothing now: it leaves the table. `Event::Empty` follows.
    Lost,
    /// It can keep items again.
    Able,
    /// Under the table of this epoch, the node that is filling has all that this one owns of what it will hold, and from now on no
    /// change of a session, lock or version key is answered before that node has it too. Must be said anew under every table.
    Filled(Filled),
}
