//! Seeded simulation of replica groups: the real `Group` and log over a simulated network, disks and clocks.
//!
//! Each node has a runtime of its own with a clock that runs at its own rate, and is stepped a millisecond at a time; so a
//! node can crash (its runtime is dropped), stand still with or without its timers, and be slow, apart from all others.
//! The checks (`ledger`, `object`, and `world` for the disks) are those of the storage's invariants. A run is made of a seed:
//! `make test-sim SEED=n` repeats one. Nothing here reads the wall clock, as nothing in the storage decides by it.

mod client;
mod ledger;
mod machine;
mod nemesis;
mod node;
mod object;
mod scenario_tests;
mod seed_tests;
mod wire;
mod world;
