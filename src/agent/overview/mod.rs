//! What there is to see, made of reports. Pure.
//!
//! - `node`: a verdict over the services of one node, and a row for each.
//! - `facts`: what else a node knows of itself: its machine, its copy of the files, its certificates.
//! - `cluster`: one document over all nodes, of the snapshot and what each agent answered; `verdict` judges it.

mod cluster;
#[cfg(test)]
pub(in crate::agent) mod cluster_tests;
mod facts;
mod node;
mod verdict;

pub use cluster::{Answer, Cluster, Data, Heard as HeardOf, NodeRow, Part, Quorum, Seen, State, assemble};
pub use facts::{Certificate, Facts};
pub use node::{Heard, Overview, Row, Verdict, judge, row};
pub use verdict::{NODE_DAYS, PORTAL_DAYS};
