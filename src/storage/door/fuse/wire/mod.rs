//! The kernel's FUSE protocol: bytes to requests, answers to bytes. No I/O.

pub mod abi;
pub mod answer;
pub mod init;
pub mod request;

pub use answer::{Answer, Body, Listing};
pub use request::{Ask, Request};
