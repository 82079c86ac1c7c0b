//! Several nodes' storage in one process, over the real mesh on loopback: they join, any door serves, and a leader that dies
//! under calls loses none and doubles none. A kill ends a node's tasks where they stand, as after `kill -9`.

mod alone;
mod archive;
mod fault;
mod fuse;
mod kernel;
mod node;
mod promise;
