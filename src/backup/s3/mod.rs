//! Backups in a bucket of an S3 service. Blocks.
//!
//! Commands on backups are root's, and nothing that comes from the network is read as root: each act is a process of its own
//! (`worker`) that runs as the modules' user. What it does comes on its standard input, the credentials too, so that they stand
//! neither on a command line nor in an environment.
//!
//! ```text
//! S3 (root) ─ order, content in frames ─► worker ─ object_store ─► connector (TLS 1.2/1.3, HTTP/1.1) ─► service
//! ```

mod connector;
mod frame;
mod order;
mod store;
mod worker;

pub use order::{Act, Place};
pub use store::S3;
pub use worker::{MISSING, VERB, serve};
