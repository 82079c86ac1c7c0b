//! The phase of the web application firewall: shows a request to the rules (`waf`) and does what they say.
//!
//! The head is judged first, then as much of the body as `waf.max_body` allows, held in memory until the verdict; then the request goes on
//! with that body. A request that another front sent was judged there. Answers are not looked at.
//! A request that cannot be judged (the bound on work, a panic in the engine) goes on or is refused, as `waf.on_failure` says.

mod audit;
mod held;
mod phase;
mod rules;

pub use audit::{Action, Entry};
pub use phase::Firewall;
pub use rules::load;
