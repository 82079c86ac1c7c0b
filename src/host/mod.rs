//! The machine under us: accounts, facts, programs. Everything that starts a process is here.

pub mod account;
pub mod command;
pub mod facts;
