//! A new data folder, and the portal's database and user in a running server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mysql_async::prelude::Queryable;

use super::root::connect;
use crate::base::file::{self, Access};
use crate::base::secret::Secret;
use crate::config::Config;
use crate::host::account::Account;
use crate::host::command::{self, Program};

/// mariadb-install-db took 0.6 s here; a loaded machine with a slow disk may need a hundred times that.
const CREATION: Duration = Duration::from_secs(300);
/// Each statement changes a few rows of the grant tables.
const STATEMENTS: Duration = Duration::from_secs(60);
/// Where the portal's user may come from: the unix socket, and TCP on this machine (names are not resolved).
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Whether there is a whole data folder: `data_folder` makes it appear in one step.
pub fn is_initialised(datadir: &Path) -> bool {
    datadir.join("mysql").is_dir()
}

/// Makes `config.db_data()` with its system tables, owned by `account`; root logs in through the unix socket alone.
/// The work is done beside it, so that a half-made folder is never taken for a whole one.
///
/// Fails when the folder exists and is not empty.
pub async fn data_folder(config: &Config, account: &Account) -> anyhow::Result<()> {
    let datadir = config.db_data();
    let program = command::find("mariadb-install-db")
        .context("mariadb-install-db is not installed; it comes with the package mariadb-server")?;
    let parent = datadir.parent().context("the data folder needs a parent")?;
    let mut new = datadir.as_os_str().to_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", new.display()));
        }
        _ => {}
    }
    file::ensure_folder(&new, Access::owned(0o700, account.uid, account.gid))
        .with_context(|| format!("make {}", new.display()))?;
    let temporary = config.db_temporary();
    file::ensure_folder(&temporary, Access::owned(0o700, account.uid, account.gid))
        .with_context(|| format!("make {}", temporary.display()))?;
    Program::new(program)
        .arg("--no-defaults")
        .arg(format!("--tmpdir={}", temporary.display()))
        .arg(format!("--user={}", account.name))
        .arg(format!("--datadir={}", new.display()))
        // A machine's own name need not be in DNS or /etc/hosts; root comes through the socket alone.
        .args(["--auth-root-authentication-method=socket", "--skip-test-db", "--force"])
        .check(CREATION)
        .await
        .context("make the database's system tables")?;
    nix::unistd::syncfs(fs::File::open(&new)?).context("write the system tables to disk")?;
    // rename(2) replaces an empty folder and refuses any other.
    fs::rename(&new, &datadir).with_context(|| format!("move the new data folder to {}", datadir.display()))?;
    fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .context("keep the new data folder")
}

/// Makes sure of the portal's database and its user with this password and all rights on that database alone.
/// The calling process must be root: the server knows it by the socket.
pub async fn ensure_database(socket: &Path, database: &str, user: &str, password: &Secret) -> anyhow::Result<()> {
    let statements = statements(database, user, password.expose());
    let work = async {
        let mut connection = connect(socket).await?;
        for statement in &statements {
            // The statement holds the password: only its first words may be told.
            let words = || statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            connection.query_drop(statement).await.with_context(words)?;
        }
        connection.disconnect().await.context("log out")
    };
    tokio::time::timeout(STATEMENTS, work)
        .await
        .context("MariaDB does not answer")?
}

/// Pure. Run twice they change nothing, except that the password becomes this one.
fn statements(database: &str, user: &str, password: &str) -> Vec<String> {
    // `string` takes backslashes for escapes, as this mode does.
    let mut statements = vec![
        "SET SESSION sql_mode = ''".to_string(),
        format!(
            "CREATE DATABASE IF NOT EXISTS {} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
            name(database)
        ),
    ];
    for host in HOSTS {
        let (account, password) = (format!("{}@{}", string(user), string(host)), string(password));
        statements.push(format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {password}"));
        statements.push(format!("ALTER USER {account} IDENTIFIED BY {password}"));
        statements.push(format!(
            "GRANT ALL PRIVILEGES ON {}.* TO {account}",
            name(&pattern(database))
        ));
    }
    statements
}

/// A quoted identifier.
pub fn name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// In GRANT a database's name is a pattern: `_` and `%` would let the user into databases of similar names.
fn pattern(text: &str) -> String {
    text.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
}

/// A quoted string.
fn string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        let statements = statements("a`b_c", "u'x", "p\\'; DROP");
        assert!(statements[1].starts_with("CREATE DATABASE IF NOT EXISTS `a``b_c` "));
        assert_eq!(
            statements[2],
            r"CREATE USER IF NOT EXISTS 'u''x'@'localhost' IDENTIFIED BY 'p\\''; DROP'"
        );
        assert_eq!(
            statements[4],
            r"GRANT ALL PRIVILEGES ON `a``b\_c`.* TO 'u''x'@'localhost'"
        );
    }
}
