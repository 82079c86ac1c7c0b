//! From sockets to byte streams: listeners, the accept loop, TLS, names.

pub mod listen;
pub mod mesh;
pub mod name;
pub mod serve;
pub mod tls;
