//! MariaDB's configuration. Pure.

use crate::base::template::{self, Error, render as fill};
use crate::config::Config;

const TEMPLATE: &str = include_str!("../../assets/templates/my.cnf");

/// InnoDB's own default; less makes the portal read its indexes from disk.
const SMALLEST_POOL: u64 = 128 << 20;
/// Connections beside the portal's: backups, people, ourselves.
const SPARE_CONNECTIONS: usize = 50;
/// What is answered is in there, too, and on the disk. A log backup removes what it has; without any they must not fill the disk.
const BINLOG: &str = "log-bin = binlog
binlog-format = ROW
server-id = 1
sync-binlog = 1
max-binlog-size = 128M
expire-logs-days = 10
";
/// Most nodes of a cluster: the PHP of each one comes here. A connection that is not open costs nothing.
const NODES: usize = 9;

/// Which file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole file for a server of our own (`mariadbd --defaults-file=FILE`), which logs to standard error.
    Whole,
    /// A drop-in on top of the distribution's files, whose data folder, pid file and log stay.
    DropIn,
}

/// What the server depends on.
pub struct Facts<'a> {
    pub config: &'a Config,
    pub memory_bytes: u64,
    /// PHP processes; each may hold two connections, since the portal takes its named locks through a second one.
    pub php_children: usize,
    pub form: Form,
}

/// The configuration file.
pub fn my_cnf(facts: &Facts) -> Result<String, Error> {
    let config = facts.config;
    let socket = config.db_socket();
    let buffer_pool = match config.db.buffer_pool.0 {
        0 => (facts.memory_bytes / 4).max(SMALLEST_POOL),
        configured => configured,
    };
    let nodes = if config.cluster.address.is_empty() { 1 } else { NODES };
    let connections = nodes * facts.php_children * 2 + SPARE_CONNECTIONS;
    let text = fill(
        TEMPLATE,
        &[
            ("socket", template::path(&socket)?),
            ("address", &config.db.listen.ip().to_string()),
            ("port", &config.db.listen.port().to_string()),
            ("connections", &connections.to_string()),
            ("buffer_pool", &buffer_pool.to_string()),
        ],
    )?;
    Ok(text + &placement(facts)? + &binlog(config))
}

/// Lines of `[mysqld]` that have the server keep binary logs, for backups that lead to any moment. Rows, not statements: what they do
/// does not depend on when and where they are done.
fn binlog(config: &Config) -> String {
    match config.backup.log {
        true => format!("{BINLOG}{}", if config.db.galera { "log-slave-updates\n" } else { "" }),
        false => String::new(),
    }
}

/// Further lines of `[mysqld]` that say where the server keeps things, where that is ours to say.
fn placement(facts: &Facts) -> Result<String, Error> {
    let config = facts.config;
    let data = config.db_data();
    let data = template::path(&data)?;
    match facts.form {
        Form::Whole => {
            let pid = config.db_socket().with_file_name("mariadbd.pid");
            let (pid, temporary) = (template::path(&pid)?.to_string(), config.db_temporary());
            Ok(format!(
                "datadir = {data}\ntmpdir = {}\npid-file = {pid}\n",
                template::path(&temporary)?
            ))
        }
        Form::DropIn if config.db.data_dir.as_os_str().is_empty() => Ok(String::new()),
        Form::DropIn => Ok(format!("datadir = {data}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn cnf(text: &str, form: Form) -> String {
        let config = parse(text, std::iter::empty()).expect("valid").config;
        let facts = Facts {
            config: &config,
            memory_bytes: 4 << 30,
            php_children: 10,
            form,
        };
        my_cnf(&facts).expect("rendered")
    }

    #[test]
    fn own_server_keeps_everything_in_our_folders() {
        let text = cnf("", Form::Whole);
        for line in [
            "datadir = /var/lib/bitrix-node/db",
            "pid-file = /run/bitrix-node/db/mariadbd.pid",
            "socket = /run/bitrix-node/db/mariadb.sock",
            "bind-address = 127.0.0.1",
            "port = 3306",
            "innodb-buffer-pool-size = 1073741824",
            "max-connections = 70",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_php_of_other_nodes_finds_room() {
        let text = cnf("[cluster]\naddress = \"10.0.0.1\"", Form::Whole);
        assert!(text.contains("max-connections = 230\n"), "{text}");
    }

    #[test]
    fn drop_in_leaves_the_distributions_places() {
        let text = cnf("", Form::DropIn);
        assert!(!text.contains("datadir") && !text.contains("pid-file"));
        assert!(cnf("[db]\ndata_dir = \"/srv/db\"", Form::DropIn).contains("\ndatadir = /srv/db\n"));
    }

    #[test]
    fn binary_logs_are_kept_where_backups_need_them() {
        assert!(!cnf("", Form::Whole).contains("log-bin"));
        let text = cnf("[backup]\nlog = true", Form::Whole);
        assert!(
            text.ends_with("expire-logs-days = 10\n") && text.contains("\nlog-bin = binlog\n"),
            "{text}"
        );
    }

    #[test]
    fn configured_buffer_pool_wins() {
        let text = cnf("[db]\nbuffer_pool = \"256MiB\"", Form::Whole);
        assert!(text.contains("innodb-buffer-pool-size = 268435456\n"));
    }
}
