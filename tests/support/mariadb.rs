//! A real MariaDB with a fresh data folder and the configuration that we render.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use bitrix_node::config::{Config, parse};
use bitrix_node::db::{self, create, probe, render};
use bitrix_node::host::account;
use tempfile::TempDir;

use super::daemon::{Daemon, free_port};
use super::eventually::eventually;

pub struct MariaDb {
    // Dropped in this order: the server first, then its files.
    _server: Daemon,
    pub folder: TempDir,
    pub config: Config,
}

impl MariaDb {
    /// Ready to take connections. `sections` is added to the configuration.
    pub async fn start(sections: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("bitrix-node-")
            .tempdir_in("/tmp")
            .unwrap();
        // The server's user must reach its own folders inside.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "[node]\ndata_dir = \"{0}\"\nrun_dir = \"{0}\"\n[db]\nlisten = \"127.0.0.1:{1}\"\ndata_dir = \"{0}/mariadb\"\n{sections}",
            folder.path().display(),
            free_port(),
        );
        let config = parse(&text, std::iter::empty()).unwrap().config;
        let account = account::require("mysql").unwrap();
        let run = folder.path().join("db");
        fs::create_dir(&run).unwrap();
        chown(&run, Some(account.uid), Some(account.gid)).unwrap();
        let data = config.db_data();
        assert!(!create::is_initialised(&data));
        create::data_folder(&config, &account).await.unwrap();
        assert!(create::is_initialised(&data));
        let file = folder.path().join("my.cnf");
        let facts = render::Facts {
            config: &config,
            memory_bytes: 0,
            php_children: 4,
            form: render::Form::Whole,
        };
        fs::write(&file, render::my_cnf(&facts).unwrap()).unwrap();
        let defaults = format!("--defaults-file={}", file.display());
        let binary = db::find(&config).expect("MariaDB is installed");
        let log = folder.path().join("mariadb.log");
        let server = Daemon::start(&binary, [defaults.as_str(), "--user=mysql"], &log);
        let socket = config.db_socket();
        eventually(&format!("MariaDB answers, see {}", log.display()), async || {
            probe::answers(&socket).await
        })
        .await;
        MariaDb {
            _server: server,
            folder,
            config,
        }
    }
}
