//! Cache: a server of the memcached protocols with its own store.
pub mod command;
mod number;
pub mod store;
