//! Another version of this executable: who vouches for it, how it comes into its place, and what happens when it does not come up.
//!
//! ```text
//! signature  whose word counts (pure)
//! install    the file itself: read once, checked, written whole; the one before it is kept beside it
//! probe      a look at an executable before it takes our place
//! guard      a process of the old executable that puts it back when the new one does not come up
//! ```
//!
//! Who notices what:
//! - Not an executable, another program, one that hangs, one that does not take this configuration or knows no hand-over:
//!   the probe, before anything happens. The old file is put back.
//! - The exec fails: the old executable itself, for it is still there.
//! - A module does not come up: the new supervisor. It puts the old file back and gives way to it, sockets kept.
//! - The new supervisor ends within 20 s, or is not ready in time: the guard. It puts the old file back, kills what is left, and systemd
//!   starts the old one; where there is no systemd, the guard becomes it. Connections are cut then.

mod guard;
mod install;
mod probe;
mod signature;

pub use crate::host::upgrade::{Record, Stage};
pub use guard::{Guard, watch};
pub use install::{Candidate, Place};
pub use probe::{introduce, is_older, probe};
pub use signature::Key;
