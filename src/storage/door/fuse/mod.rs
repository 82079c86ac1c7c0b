//! The FUSE door: the mount that PHP uses. Files as on a local disk, locks that hold on all nodes, and a mount that outlives the
//! processes that serve it.
//!
//! ```text
//! reader   requests from the device ─► wire (codec) ─► door: at once from what is promised, else a task ─► ask: the leader
//! landing  where a request comes first, through a pipe: whenever this process is killed, the next one has it
//! memory   a memfd: what is under way, and is done again by the process that comes next
//! writes   write-behind           opens, locks, flock   who has what open and locked here
//! pages, told, notifier, hearer   recalls of the leader, passed on to the kernel
//! pending, dying                  interrupts: whoever waits can be killed
//! ```
//!
//! Node numbers are inode numbers, so nothing is kept by what the kernel looked up. The kernel checks permissions; the door asks as
//! root. What the leader promises (`storage::promise`) is answered from memory and may be kept by the kernel for `PROMISED`;
//! recalls reach the kernel before they are confirmed, or soon after where it holds a lock itself; so it hears when the lease is over, just
//! before another node can lead. What was not promised (listings, what this node has just made) the kernel has for `UNPROMISED`, and what
//! a process told it that was killed then for `PROMISED`. An open is answered from the promise: what was closed on one node before is seen by
//! whoever opens later on another.
//!
//! The protocol layer is our own: fuse-backend-rs and fuser answer when a handler returns, and drop what the kernel says of interrupts;
//! both read the device into memory that dies with them.

mod ask;
mod convert;
mod device;
mod door;
mod dying;
mod files;
mod flock;
mod hearer;
mod landing;
mod listing;
mod lock_table;
mod locks;
mod memory;
mod names;
mod notifier;
mod opens;
mod pages;
mod pending;
mod reader;
mod recall;
mod spin;
mod told;
pub mod wire;
mod writes;

pub use hearer::serve;
