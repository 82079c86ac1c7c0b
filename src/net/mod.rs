//! From sockets to byte streams: listeners, the accept loop, how connections end, TLS, QUIC, names, the mesh and what is relayed over it.

pub mod last_chance;
pub mod listen;
pub mod local;
pub mod mesh;
pub mod name;
pub mod quic;
pub mod relay;
#[cfg(test)]
mod relay_tests;
pub mod serve;
pub mod tally;
pub mod tls;
