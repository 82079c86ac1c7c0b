//! The web application firewall: rules in SecLang, as the OWASP Core Rule Set writes them, over requests and answers.
//!
//! ```text
//! folders of rules ─► seclang (text to typed rules) ─► engine::Plan (one for all requests)
//! request ─► engine::Transaction: store (values), body (codecs), transform, operator ─► Report: hits, score, verdict
//! ```
//!
//! Knows nothing of the front: no HTTP library, no runtime, no configuration. The rules are not part of this program.

mod body;
mod engine;
mod load;
mod macros;
mod operator;
mod rule;
mod seclang;
mod secret;
mod store;
mod transform;
mod variable;

pub use engine::{Answer, Hit, Interruption, Plan, Report, Request, Transaction};
pub use load::{Own, load};
pub use rule::{Engine, Place, Rule};
pub use seclang::{Error, Program};
pub use transform::Reading;
