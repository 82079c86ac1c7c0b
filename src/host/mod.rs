//! The machine under us: accounts, facts, programs, units, mounts, addresses, the kernel's settings, and how a process locks itself in.
//! Everything that starts a process is here.

pub mod account;
pub mod address;
pub mod child;
pub mod command;
pub mod confine;
pub mod facts;
pub mod inheritance;
pub mod mount;
pub mod package;
pub mod pair;
pub mod process;
pub mod sysctl;
#[cfg(test)]
pub(crate) mod tests;
pub mod transient;
pub mod unit;
pub mod upgrade;
pub mod verb;
