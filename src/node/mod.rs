//! The node: a small root supervisor, and the life of each module process. The only layer that knows all modules.
//!
//! ```text
//! prepare   folders, secrets, certificate, configuration of the daemons
//! sockets   listening sockets, bound once
//! children  the table: every module and daemon as a ChildSpec
//! keeper    one child: start, watch, restart with backoff
//! ordered   the same for a unit that is started by order
//! mount     the portal's files, before PHP starts
//! supervise all of them: signals, watchdog, reports to the agent
//! stop      in which order they end
//! leftover  what a killed supervisor left running
//! module    the other end: what a module process does
//! confined  one that has locked itself in
//! output    everybody's log lines
//! succession what follows one another under one name
//! reexec    another executable in the place of this one
//! upgrade   whose word counts for it, and the way back
//! verbs     the privileged acts, for the agent
//! ```

mod backup;
mod children;
mod confined;
mod galera;
mod keeper;
pub mod leftover;
pub mod module;
pub mod mount;
mod ordered;
pub mod output;
pub mod prepare;
mod reexec;
mod sockets;
mod stop;
mod succession;
mod supervise;
pub mod upgrade;
pub mod verbs;

pub use supervise::run;
