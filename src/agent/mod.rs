//! The agent: what is known of this node, for the operator.
//!
//! The supervisor and the modules send reports (`feed`), the agent looks at the machine itself (`survey`), the board keeps the latest,
//! `overview` judges them (pure), and two doors show them: the control socket for root on this machine, the admin port for those who
//! have the token. For the whole cluster the other agents are asked at that moment (`inquiry`).
//! `mesh` meets the agents of other nodes and lets machines join (`join`), `renew` keeps this node's certificate, `members` the storage's group.
//! `upgrade` takes this node's turn when the cluster gets another version.
//! `cert` gets the portal's certificates where this node has the seat for that.
//! `galera` has MariaDB started where it is one of several.
//! Where the storage is on, `registry` follows the shared facts of the cluster and adds this node's own; `outlook` makes of them the
//! snapshot that the modules get (pure), and `role` elects this node where it should be.

mod board;
pub mod cert;
pub mod doctor;
mod door;
mod feed;
pub mod galera;
mod inquiry;
pub mod join;
mod members;
mod mesh;
mod outlook;
mod overview;
mod ports;
mod registry;
mod renew;
mod report;
pub mod role;
mod room;
mod service;
mod survey;
pub mod upgrade;

pub use feed::send;
pub use mesh::Agents;
pub use overview::{Certificate, Cluster, Data, Facts, NodeRow, Overview, Part, Quorum, Row, State, Verdict};
pub use ports::Reach;
pub use report::{ChildReport, Kind, Phase, Report};
pub use service::Agent;
