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
mod faulty;
mod locking;
mod model;
mod model_names;
mod permission;
mod random;
mod remembered;
mod rules;
mod session;
mod world;
