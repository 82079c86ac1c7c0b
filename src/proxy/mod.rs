//! The web front.

pub mod error;
pub mod exchange;
pub mod path;

pub use error::{Error, Kind};
pub use exchange::{Body, Exchange, Target};
