//! Root's way into MariaDB on this machine.

use std::path::Path;

use anyhow::Context;
use mysql_async::{Conn, OptsBuilder};

/// The caller must be root: the server knows it by the socket.
pub async fn connect(socket: &Path) -> anyhow::Result<Conn> {
    let options = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"));
    Conn::new(options)
        .await
        .with_context(|| format!("log in to MariaDB as root through {}", socket.display()))
}
