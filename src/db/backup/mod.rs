//! The data of a running MariaDB as a stream, and a data folder from such a stream.
//!
//! ```text
//! aside    a server of a Galera cluster, out of step while it is copied
//! copy     mariadb-backup of the running server, without a password: by the socket, as the system's user "mysql"
//! info     what that says of the moment it was made at
//! binlog   the server's binary logs: close, read, let go
//! tables   how many rows there are, and whether they can be read
//! scratch  a data folder of its own: from a stream, brought to a moment, looked at with a server that nobody else reaches
//! ```

pub mod aside;
pub mod binlog;
pub mod copy;
pub mod info;
pub mod scratch;
pub mod tables;

use super::create::name as quoted;
use super::root::connect;
