//! Another executable in the place of this one: the supervisor becomes it by execve(2), and all goes on.
//!
//! The process id stays, and so do the children, which are bound to it; the listening sockets, so that no connection is refused;
//! the device and the memory of a FUSE mount, so that whoever works on the files notices nothing; the lock of the data folder;
//! the log pipes. Daemons (PHP-FPM, MariaDB) run on as they are. Modules are replaced afterwards, one by one, by those of the new
//! executable: the front's successor starts before the old one drains, each other module's when the old one has ended. Clients
//! see no refused connection and no cut answer; they wait while the storage or the cache starts, and the cache begins empty.
//!
//! ```text
//! estate  what is handed over, as text (pure)
//! leave   the old executable's side: gather it, exec
//! enter   the new one's side: take it up
//! roll    modules one by one
//! turn    the whole course, from the wish to the last module
//! ```
//!
//! Signals wait during the change, and systemd is told that it is a reload.
//!
//! # What a release must keep
//!
//! For a while two versions run side by side: on one node for seconds, in a cluster for as long as the roll takes, and longer when
//! it is paused or rolled back. So a release reads what the one before it wrote, and the one before it can go on with what
//! this one writes:
//! - `estate`: its outer part for ever; a new `FORMAT` only together with reading the last one.
//! - Between modules of one node (reports, snapshots, verbs, the mount's hand-over): fields are added, with defaults; none changes
//!   its meaning.
//! - Between nodes (mesh calls, the storage's log and wire, heartbeats): a version that is refused by the one before it
//!   must wait for a release in which all nodes know it.
//! - On disk (the storage's log and state, the registry's schema): a release that changes the schema makes older nodes refuse the
//!   registry as soon as one node commits with it, so it must not be committed by a release that is rolled out.

mod enter;
mod estate;
mod leave;
mod roll;
mod turn;

pub use enter::inherit;
pub use estate::{FORMAT, OLDEST};
pub use leave::Leaver;
pub use roll::{Module, order};
pub use turn::{Request, Requests, Turn};
