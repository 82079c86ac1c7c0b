//! Catch-up of a replica by its files: what a leader sends when the log that a replica would need is gone.
//!
//! ```text
//! sender                                         receiver
//! Hello: Raft's header, the note, totals   ──►
//!                                          ◄──   Begin: with the metadata, or nothing (a witness)
//! the metadata as of one entry             ──►   incoming/meta.db
//!                                          ◄──   Want: contents that it neither has nor can link
//! each of them, or "same", or "gone"       ──►   incoming/data/, synced by and by
//!                                          ◄──   Done; `incoming/complete`, then Raft installs
//!                                          ◄──   Answer: what Raft says to the sender
//! ```
//!
//! # Why the copy is right
//! The metadata are as of entry X. Contents are read while the sender applies more: each is as of X or later. The receiver
//! applies the log from X+1 on, and that is exact as after a crash (head of `state`): each byte is as at X, or was changed
//! after X and is changed again. Nobody reads contents of a replica before it has applied all that was committed (`exact`). So
//! the sender must keep the log above its last checkpoint while it sends: `Holds`.
//!
//! # What is used again
//! Contents of the receiver's own state are linked, not sent, where inode, generation, size and content index are those of X.
//! Its disk may be ahead of its rows, as a crash leaves it, and it may go on applying entries to the linked file: but by the
//! time of X no entry after the content index had changed the content, so whatever it is ahead by comes after X and is applied again.
//! The facts name one content only within one history. A state from before the replica lost its log, or from before an unclean
//! recovery, is a *leftover*: its contents are used only where their BLAKE3 is the sender's.
//! A content that is too short or missing is asked for. Bits that rotted are the scrub's business, and so is what the sender cannot
//! read: it is sent as far as that goes, so that one bad sector does not keep a new replica out, and mended from the others then.
//!
//! # Cuts and crashes
//! A content gets its name in `incoming/data` only after it was synced, and `incoming/meta.db` is replaced only after what differs from
//! the next one was removed. So every content under its name is whole and as `incoming/meta.db` says or newer, and the next
//! attempt goes on where this one was cut. When the process dies, the contents since the last sync come again.

mod choice;
mod codec;
mod converse;
mod hold;
mod progress;
mod receiver;
mod sender;
mod staging;

#[cfg(test)]
mod tests;

pub use hold::{Hold, Holds};
pub use progress::{Counts, Progress};
pub use receiver::{Local, NOTE, discard, receive, receive_note};
pub use sender::send;

/// Bytes of a content in one message.
const CHUNK: usize = 256 * 1024;
