//! Seeded simulation of the registry: the real `Publish` of several authors over a simulated folder (`folder`), whose calls are lost, carried
//! out without an answer, or carried out long after they were given up; authors sleep past everything that is kept, die within
//! a commit and come again.
//!
//! Looked at as each version is published (`ledger`): it is the only one of its number and exactly what one change makes of the one before
//! (I6); what was acknowledged is there, what was refused is not, no change is there twice, no read goes back. Time is tokio's, paused; a
//! run is made of a seed (`make test-sim SEED=n` repeats one). Deliberate flaws of the folder must be found.

mod author;
mod folder;
mod ledger;
mod seed_tests;
