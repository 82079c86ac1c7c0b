//! Mounts by mount(2) alone: no mount(8), no mount.nfs.
//!
//! A call on a mount whose server is gone can block for ever, and with it whoever makes it. So whatever may touch a mount is an
//! `Order` to a worker: this executable again, for one act, with a deadline, killed beyond it (`worker`). What asks only reads
//! the kernel's table of mounts, which never blocks.
//!
//! ```text
//! table   /proc/PID/mountinfo, and what is mounted at a folder
//! nfs     an export as the kernel's NFSv3 client wants it told
//! fuse    the mount that this node's own storage serves
//! order   what a worker can be asked, and its answers
//! act     the acts themselves, in the worker
//! abort   the last of them: nobody shall wait for an answer any more
//! worker  the other side: start, wait, kill; at most one at a time
//! pipe    one for a thread that serves a FUSE mount, kept with it
//! handover  a FUSE mount, from the supervisor that keeps it to the storage that serves it
//! ```

mod abort;
mod act;
pub mod fuse;
mod handover;
mod nfs;
mod order;
mod pipe;
mod table;
mod worker;

pub use act::serve;
pub use handover::{Estate, Handed, Heir, Trustee};
pub use order::{Answer, Order, Refusal, Room, Space};
pub use pipe::Pipe;
pub use table::{Placed, Table};
pub use worker::{Error, Worker};
