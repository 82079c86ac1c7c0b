//! External memcached servers in the place of the embedded store: `cache.backend` names them.
//!
//! - `wire`: commands as meta commands with base64 keys, which carry what every dialect can say, and their replies. No I/O.
//! - `link`: one connection; commands are sent as they come, many under way, answered in order.
//! - `place`: which of the servers that are up has a key, by rendezvous. `health`: which are up.
//! - `external`: the servers together.
//!
//! A server that failed to answer may hold what others have replaced meanwhile: it is emptied before it is asked again. Uniques are
//! each server's own, so a key's `gets` and `cas` go to one server. Failure shows as a miss or as an error, within `link::PATIENCE`.

mod external;
mod health;
mod link;
mod place;
mod wire;

#[cfg(test)]
mod backend_tests;

pub use external::External;
