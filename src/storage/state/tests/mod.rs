//! Tests of the state machine: random sequences against a model, crashes at every step, and the rules one by one.

/// A line for who runs the tests with `--nocapture`.
macro_rules! report {
    ($($what:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($what)*);
    }};
}
use report;

mod bulk;
mod crash;
pub mod faulty;
mod grace;
mod locking;
pub mod model;
mod model_names;
mod permission;
pub mod random;
mod remembered;
mod rules;
mod session;
pub mod world;
