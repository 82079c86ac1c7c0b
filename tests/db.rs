//! The database that we make, in a real MariaDB.

use std::time::Duration;

use bitrix_node::base::secret::Secret;
use bitrix_node::config::parse;
use bitrix_node::db::galera::render as galera;
use bitrix_node::db::inspect::look::Look;
use bitrix_node::db::inspect::{Finding, inspect};
use bitrix_node::db::{self, create, render};
use bitrix_node::host::account;
use bitrix_node::host::command::Program;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};

use crate::support::mariadb::MariaDb;

const DATABASE: &str = "site_manager";
const USER: &str = "bitrix";

async fn login(server: &MariaDb, password: &Secret) -> mysql_async::Result<Conn> {
    let listen = server.config.db.listen;
    let options = OptsBuilder::default()
        .ip_or_hostname(listen.ip().to_string())
        .tcp_port(listen.port())
        .prefer_socket(false)
        .user(Some(USER))
        .pass(Some(password.expose()))
        .db_name(Some(DATABASE));
    Conn::new(options).await
}

#[tokio::test]
async fn portal_user_gets_its_database_and_no_other() {
    let server = MariaDb::start("").await;
    let socket = server.config.db_socket();
    let (first, second) = (Secret::generate().unwrap(), Secret::generate().unwrap());

    create::ensure_database(&socket, DATABASE, USER, &first).await.unwrap();
    login(&server, &first).await.expect("the first password is good");
    create::ensure_database(&socket, DATABASE, USER, &second).await.unwrap();
    login(&server, &first).await.expect_err("the old password is not");

    let mut portal = login(&server, &second).await.expect("the new password is good");
    portal.query_drop("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let databases: Vec<String> = portal.query("SHOW DATABASES").await.unwrap();
    assert_eq!(databases, ["information_schema", DATABASE]);
    // `_` is no wildcard in the grant.
    portal
        .query_drop("CREATE DATABASE siteXmanager")
        .await
        .expect_err("not its own");
    portal
        .query_drop("SELECT * FROM mysql.user")
        .await
        .expect_err("not its own");

    let expected = ("READ-COMMITTED", "", "utf8mb4", "1");
    let sees: (String, String, String, String) = portal
        .query_first("SELECT @@tx_isolation, @@sql_mode, @@character_set_database, @@innodb_flush_log_at_trx_commit")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&*sees.0, &*sees.1, &*sees.2, &*sees.3), expected);
}

/// The server itself reads what we render; whether it comes up so, `make test-galera` shows.
#[tokio::test]
async fn the_server_knows_each_line_of_a_galera_node() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[node]\nname = \"n1\"\ndata_dir = {0:?}\nrun_dir = {0:?}\n[cluster]\naddress = \"10.0.0.1\"\n[storage]\nengine = \"replicated\"\n\
         [db]\ngalera = true",
        folder.path()
    );
    let config = parse(&text, std::iter::empty()).unwrap().config;
    let base = render::Facts {
        config: &config,
        memory_bytes: 0,
        php_children: 4,
        form: render::Form::Whole,
    };
    let node = galera::Facts {
        config: &config,
        provider: "/usr/lib/galera/libgalera_smm.so".as_ref(),
        cluster: "portal-1",
        node: "n1",
        address: "10.0.0.1".parse().unwrap(),
    };
    for place in [config.db_data(), config.db_temporary()] {
        std::fs::create_dir_all(place).unwrap();
    }
    let rendered = render::my_cnf(&base).unwrap() + &galera::render(&node).unwrap();
    let told = async |text: &str| {
        let file = folder.path().join("my.cnf");
        std::fs::write(&file, text).unwrap();
        let program = Program::new(db::find(&config).expect("MariaDB is installed"))
            .arg(format!("--defaults-file={}", file.display()))
            .args([
                "--user=mysql",
                "--wsrep-cluster-address=gcomm://10.0.0.1",
                "--verbose",
                "--help",
            ]);
        program.run(Duration::from_secs(60)).await.unwrap()
    };
    let finished = told(&rendered).await;
    let value = |name: &str| {
        let mut lines = finished.output.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.trim().to_string())
    };
    for (name, expected) in [
        ("wsrep-node-name", "n1"),
        ("wsrep-node-address", "10.0.0.1"),
        ("wsrep-cluster-name", "portal-1"),
        ("wsrep-sst-receive-address", "10.0.0.1:4444"),
        ("wsrep-on", "TRUE"),
        ("skip-networking", "TRUE"),
        ("read-only", "TRUE"),
        ("innodb-autoinc-lock-mode", "2"),
        ("binlog-format", "ROW"),
    ] {
        assert_eq!(value(name).as_deref(), Some(expected), "{name}: {}", finished.errors);
    }
    assert!(!finished.errors.contains("unknown variable"), "{}", finished.errors);
    let bent = told(&rendered.replace("wsrep-node-name", "wsrep-nude-name")).await;
    assert!(bent.errors.contains("unknown variable"), "{}", bent.errors);
}

#[tokio::test]
async fn faults_of_a_database_that_comes_from_elsewhere_are_found_and_mended() {
    let server = MariaDb::start("").await;
    let socket = server.config.db_socket();
    let password = Secret::generate().unwrap();
    create::ensure_database(&socket, DATABASE, USER, &password)
        .await
        .unwrap();
    let mut portal = login(&server, &password).await.unwrap();
    for statement in [
        "CREATE TABLE good (id INT PRIMARY KEY)",
        "CREATE TABLE old (a INT, b VARCHAR(20)) ENGINE=MyISAM",
        "CREATE TABLE counted (id INT NOT NULL AUTO_INCREMENT, a INT, KEY (id)) ENGINE=Aria",
        "CREATE TABLE named (a INT NOT NULL, b INT, c INT NOT NULL, UNIQUE (b), UNIQUE (c, a), UNIQUE (a))",
        "CREATE TABLE latin (id INT PRIMARY KEY, text VARCHAR(20)) COLLATE latin1_swedish_ci",
        "CREATE VIEW seen AS SELECT * FROM old",
        "INSERT INTO old VALUES (1, 'x'), (1, 'x')",
        "INSERT INTO counted (a) VALUES (5), (5)",
    ] {
        portal.query_drop(statement).await.unwrap();
    }
    let mut look = Look::open(&socket).await.unwrap();
    let found = inspect(&look.facts().await.unwrap());
    let named = |finding: &Finding| finding.object.trim_start_matches("site_manager.").to_string();
    assert_eq!(
        found.iter().map(named).collect::<Vec<_>>(),
        ["counted", "old", "counted", "named", "old", "latin"],
        "{found:?}"
    );
    look.may_mend().await.unwrap();
    for finding in found.iter().filter(|finding| finding.is_safe) {
        look.mend(finding)
            .await
            .unwrap_or_else(|error| panic!("{finding:?}: {error:#}"));
    }
    let left = inspect(&look.facts().await.unwrap());
    assert_eq!(left.iter().map(named).collect::<Vec<_>>(), ["latin"]);
    // Nothing that anybody wrote looks otherwise now.
    let rows: Vec<(i64, String)> = portal.query("SELECT * FROM old").await.unwrap();
    assert_eq!(rows, [(1, "x".to_string()), (1, "x".to_string())]);
    portal
        .query_drop("INSERT INTO old VALUES (2, 'y')")
        .await
        .expect("as before");
    let key: Vec<String> = portal
        .query("SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_NAME = 'named' AND INDEX_NAME = 'PRIMARY'")
        .await
        .unwrap();
    assert_eq!(key, ["a"]);
    let root = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"));
    let mut root = Conn::new(root).await.unwrap();
    root.query_drop("SET GLOBAL sql_mode = 'STRICT_ALL_TABLES', GLOBAL read_only = ON")
        .await
        .unwrap();
    let found = inspect(&look.facts().await.unwrap());
    assert!(
        found
            .iter()
            .any(|finding| finding.statement == "SET GLOBAL sql_mode = ''"),
        "{found:?}"
    );
    look.may_mend().await.expect_err("it is not the one that is written to");
}

#[tokio::test]
async fn data_folder_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[node]\ndata_dir = \"{}\"", folder.path().display());
    let config = parse(&text, std::iter::empty()).unwrap().config;
    let data = config.db_data();
    std::fs::create_dir_all(data.join("mysql")).unwrap();
    std::fs::write(data.join("mysql/user.MAD"), "rows").unwrap();
    let account = account::require("root").unwrap();
    create::data_folder(&config, &account).await.expect_err("there is one");
    assert_eq!(std::fs::read(data.join("mysql/user.MAD")).unwrap(), b"rows");
}
