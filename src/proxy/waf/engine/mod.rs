//! Rules run over one request: phase by phase, in their order, as SecLang means it.
//!
//! ```text
//! Plan ── rules by phase, jumps, tree of transformations, who looks where (`reach`); one for all requests
//! Transaction ── values (`store`), collections (`state`), what values became under transformations (`memo`), hits
//!     run(phase): values → memo, filter → operators that may hold for any of them; of these and of those that must be tried:
//!         rule → link → target → value → operator → effects; after the last link: message, verdict, jump
//! ```
//!
//! `filter` (with `literal`, `erase`: what a pattern needs) and `known` (texts of earlier requests) only leave out operators that cannot
//! hold: with them and without, a request comes to the same (`Plan::without_filter`, and the tests that compare the two).
//!
//! Collections (`IP`, `GLOBAL`, `SESSION`) live as long as their request: what spans requests, `proxy::flood` counts.

mod bits;
mod erase;
mod filter;
mod known;
mod literal;
mod matching;
mod memo;
mod plan;
mod rarity;
mod reach;
mod request;
mod state;
mod transaction;
mod tree;

pub use plan::Plan;
pub use request::{Answer, Request};
pub use transaction::{Hit, Interruption, Report, Transaction};

#[cfg(test)]
mod tests;
