//! From sockets to byte streams: listeners, the accept loop, TLS, names, the mesh and what is relayed over it.

pub mod listen;
pub mod mesh;
pub mod name;
pub mod relay;
#[cfg(test)]
mod relay_tests;
pub mod serve;
pub mod tls;
