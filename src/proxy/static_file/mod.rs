//! Static files below the document root.
//!
//! - Symbolic links are followed within the root; one that leaves it is 403, unless `follow_symlinks` (openat2, RESOLVE_BENEATH).
//! - What was looked at is remembered, and small files (256 KiB; text 2 MiB) with their content, in at most `proxy.file_memory`. A hit
//!   costs no system call. Each entry is compared with the disk at most once a second: **a change shows after a second**. Absence is never remembered.
//! - Text without a copy for the client's coding is compressed once, and that is kept beside it (`packed`).
//! - Larger files are streamed from the blocking pool, and stay open for a few seconds (`handles`). A file that shrinks meanwhile cuts the connection, so that the client notices.
//! - `name.br` and `name.gz` beside a file are its precompressed copies, while they are not older than it.

mod entry;
mod files;
mod handles;
mod packed;
mod reply;
mod root;
#[cfg(test)]
mod serve_tests;
mod stream;

pub use entry::{Stamp, Text};
pub use files::{Files, Found, Manner};
