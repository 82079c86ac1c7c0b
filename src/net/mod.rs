//! From sockets to byte streams: listeners, the accept loop, TLS, names.

pub mod listen;
pub mod name;
pub mod serve;
pub mod tls;
