//! Words that every module stands on. They know nothing of Bitrix, HTTP or SQL.
//!
//! Closed list: `service` (what a module is), `scope` (who owns a task), `backoff`, `units`, `file`, `error`, `log`, `clock`, `chunk`,
//! `pieces`, `secret`, `template`; for tests, `seeded`.

pub mod backoff;
pub mod chunk;
pub mod clock;
pub mod error;
pub mod file;
pub mod log;
pub mod pieces;
pub mod scope;
pub mod secret;
#[cfg(test)]
pub mod seeded;
pub mod service;
pub mod template;

pub use pieces::Pieces;
pub use scope::Scope;
pub use service::{BoxFuture, Cx, Health, Service, Status};
