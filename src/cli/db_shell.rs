//! `db shell`: MariaDB's own client, where the portal's statements go.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;

use crate::base::file::Access;
use crate::base::secret::Secret;
use crate::config::Config;
use crate::host::{command, inheritance};

/// Newest name first.
const CLIENTS: [&str; 2] = ["mariadb", "mysql"];

#[derive(Debug, Args)]
pub struct Shell {
    /// To MariaDB on this machine, as root, instead of to the one that the portal writes to, as the portal
    #[arg(long)]
    local: bool,
    /// For the client, after `--`: -e 'SHOW TABLES'
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Shell {
    /// Becomes the client; returns only when that fails.
    pub fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let client =
            client().context("MariaDB's client is not installed: install the package mariadb-client, or mariadb")?;
        if self.local {
            let socket = format!("--socket={}", config.db_socket().display());
            return become_client(&client, vec![socket, "--user=root".into()], self.arguments);
        }
        let password = config.secrets().join("database.password");
        ensure!(
            password.exists(),
            "the portal has no database yet: `bitrix-node portal install` makes it; --local leads to MariaDB here"
        );
        let password = Secret::ensure(&password, Access::owned(0o600, 0, 0))?;
        let text = options(config, password.expose());
        // Open until the client has read it.
        let (_options, path) = inheritance::leave(&text).context("keep the password in memory")?;
        let first = format!("--defaults-extra-file={}", path.display());
        become_client(
            &client,
            vec![first, format!("--database={}", config.portal.database)],
            self.arguments,
        )
    }
}

fn client() -> Option<PathBuf> {
    CLIENTS.iter().find_map(|name| command::find(name))
}

fn become_client(client: &Path, mut own: Vec<String>, more: Vec<String>) -> anyhow::Result<u8> {
    own.extend(more);
    Err(command::become_program(client, &own)).with_context(|| format!("start {}", client.display()))
}

/// An option file: what is on a command line, others can see.
fn options(config: &Config, password: &str) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let listen = config.db.listen;
    format!(
        "[client]\nprotocol=tcp\nhost={}\nport={}\nuser={}\npassword={}\n",
        listen.ip(),
        listen.port(),
        quoted(&config.portal.database_user),
        quoted(password)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_password_is_quoted_as_option_files_want_it() {
        let loaded = config::parse("", std::iter::empty()).expect("defaults are valid");
        let text = options(&loaded.config, r#"a"b\c#d"#);
        assert!(text.contains("password=\"a\\\"b\\\\c#d\"\n"), "{text}");
        assert!(
            text.starts_with("[client]\nprotocol=tcp\nhost=127.0.0.1\nport=3306\n"),
            "{text}"
        );
    }
}
