//! The phase of the web application firewall: shows a request to the rules (`waf`) and does what they say.
//!
//! The head is judged first, then as much of the body as `waf.max_body` allows, held in memory until the verdict; then the request goes on
//! with that body. A request that another front sent was judged there.
//! Where `waf.answers` says so, what a request came to stays (`Watch`) and its answer is judged by it: the head, and of a body that is text
//! as much as `waf.max_answer` allows (`extent`). What the cache keeps was judged before.
//! A request that cannot be judged (the bound on work, a panic in the engine) goes on or is refused, as `waf.on_failure` says.

mod answer;
mod audit;
mod extent;
#[cfg(test)]
mod fixture;
mod held;
mod phase;
mod rules;

pub use answer::Watch;
pub use audit::{Action, Entry};
pub use extent::{Extent, extent};
pub use phase::{Firewall, Inspected};
pub use rules::load;
