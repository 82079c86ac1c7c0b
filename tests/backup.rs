//! A real MariaDB into a backup and out of it again, to a moment. The whole of it, on whole nodes, is `make test-backup`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitrix_node::backup::key::Recipients;
use bitrix_node::backup::manifest::Part;
use bitrix_node::backup::part::{Meter, pack, unpack};
use bitrix_node::backup::{Folder, Key, Store, chain};
use bitrix_node::base::clock;
use bitrix_node::db;
use bitrix_node::db::backup::binlog::{self, Closed};
use bitrix_node::db::backup::copy::Source;
use bitrix_node::db::backup::info::Info;
use bitrix_node::db::backup::scratch::{Replay, Scratch};
use bitrix_node::db::backup::tables;
use bitrix_node::host::account;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use crate::support::mariadb::MariaDb;

const SCHEMA: &str = "sitemanager";

async fn login(socket: &std::path::Path) -> Conn {
    let options = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"));
    Conn::new(options).await.unwrap()
}

/// As the commands do it.
struct Bed {
    server: MariaDb,
    store: Arc<Folder>,
    key: Key,
    _store: TempDir,
}

impl Bed {
    async fn start(sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bed = Bed {
            server: MariaDb::start(sections).await,
            store: Arc::new(Folder::new(folder.path().to_path_buf())),
            key: Key::generate(),
            _store: folder,
        };
        bed.run(&format!("CREATE DATABASE {SCHEMA}")).await;
        bed.run("CREATE TABLE sitemanager.t (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(100)) ENGINE=InnoDB")
            .await;
        bed
    }

    async fn run(&self, statement: &str) {
        let mut connection = login(&self.server.config.db_socket()).await;
        connection.query_drop(statement).await.unwrap();
        connection.disconnect().await.unwrap();
    }

    async fn insert(&self, text: &str) {
        self.run(&format!("INSERT INTO sitemanager.t (text) VALUES ('{text}')"))
            .await;
    }

    fn pack(&self, name: &str, content: &mut dyn Read) -> Part {
        let recipients = Recipients::parse([self.key.public().as_str()]).unwrap();
        let upload = self.store.put("b", name).unwrap();
        pack(name, content, upload, &recipients, &Meter::default()).unwrap()
    }

    async fn copy(&self) -> (Part, Info) {
        let source = Source {
            socket: self.server.config.db_socket(),
            account: account::require("mysql").unwrap(),
            scratch: self.server.folder.path().join("copy"),
            is_galera: false,
        };
        let (copying, mut stream) = source.start().await.unwrap();
        let part = std::thread::scope(|scope| scope.spawn(|| self.pack("database", &mut stream)).join().unwrap());
        let info = copying.finish().await.unwrap();
        assert!(!source.scratch.exists(), "nothing is left of it");
        (part, info)
    }

    fn unpack(&self, part: &Part, to: &mut dyn Write) -> std::io::Result<()> {
        let stored = self.store.get("b", &part.name)?;
        unpack(part, stored, &self.key, to, &Meter::default())
    }

    /// A whole data folder beside the server's.
    async fn restore(&self, part: &Part) -> Scratch {
        let scratch = Scratch {
            folder: self.server.folder.path().join("scratch"),
            account: account::require("mysql").unwrap(),
            binary: db::find(&self.server.config).unwrap(),
        };
        scratch.make().unwrap();
        let (filling, mut stream) = scratch.fill().unwrap();
        self.unpack(part, &mut stream).unwrap();
        drop(stream);
        filling.finish().await.unwrap();
        scratch.prepare().await.unwrap();
        scratch
    }

    /// The logs from `first` on, out of the store.
    async fn logs(&self, scratch: &Scratch, first: &str) -> Vec<PathBuf> {
        let Closed { folder, files, .. } = binlog::rotate(&self.server.config.db_socket(), false)
            .await
            .unwrap()
            .unwrap();
        let wanted = chain::wanted(first, &files).unwrap();
        let into = scratch.folder.join("logs");
        std::fs::create_dir(&into).unwrap();
        let mut paths = Vec::new();
        for file in wanted {
            let part = self.pack(&file, &mut binlog::open(&folder, &file).unwrap());
            let path = into.join(&file);
            self.unpack(&part, &mut std::fs::File::create(&path).unwrap()).unwrap();
            paths.push(path);
        }
        paths
    }
}

async fn texts(socket: &std::path::Path) -> Vec<String> {
    let mut connection = login(socket).await;
    let rows = connection
        .query("SELECT text FROM sitemanager.t ORDER BY id")
        .await
        .unwrap();
    connection.disconnect().await.unwrap();
    rows
}

/// The next whole second, and that it is over.
async fn second() -> u64 {
    let second = clock::unix().as_secs() + 1;
    while clock::unix() < Duration::from_secs(second) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second
}

#[tokio::test]
async fn a_copy_and_its_logs_lead_to_the_chosen_second() {
    let bed = Bed::start("[backup]\nlog = true\n").await;
    bed.insert("in the copy").await;
    let (part, info) = bed.copy().await;
    let (file, offset, _) = info.position.expect("it keeps logs");
    bed.insert("in the log").await;
    second().await;
    bed.insert("Ж \"now\" before").await;
    let moment = second().await;
    bed.insert("after").await;
    bed.run("DROP TABLE sitemanager.t").await;

    let scratch = bed.restore(&part).await;
    let files = bed.logs(&scratch, &file).await;
    let server = scratch.start().await.unwrap();
    assert_eq!(texts(&server.socket).await, ["in the copy"]);
    let replay = Replay {
        files: &files,
        offset,
        until: Some(moment),
    };
    server.replay(&replay).await.unwrap();
    assert_eq!(
        texts(&server.socket).await,
        ["in the copy", "in the log", "Ж \"now\" before"]
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn tables_are_counted_and_checked_in_what_was_restored() {
    let bed = Bed::start("").await;
    for text in ["one", "two"] {
        bed.insert(text).await;
    }
    let (part, info) = bed.copy().await;
    assert_eq!(info.position, None, "it keeps no logs");
    let scratch = bed.restore(&part).await;
    let server = scratch.start().await.unwrap();
    let counts = tables::count(&server.socket, SCHEMA).await.unwrap();
    assert_eq!(counts, [("t".to_owned(), Some(2))].into());
    let faults = tables::check(&server.socket, SCHEMA, counts.keys()).await.unwrap();
    assert_eq!(faults, Vec::<String>::new());
    let none = tables::check(&server.socket, SCHEMA, [&"gone".to_owned()].into_iter())
        .await
        .unwrap();
    assert!(!none.is_empty(), "a table that is not there");
    server.stop().await.unwrap();
    scratch.make().expect_err("it is not empty");
}

#[tokio::test]
async fn a_copy_that_is_not_read_to_its_end_is_none() {
    let bed = Bed::start("").await;
    let source = Source {
        socket: bed.server.config.db_socket(),
        account: account::require("mysql").unwrap(),
        scratch: bed.server.folder.path().join("copy"),
        is_galera: false,
    };
    let (copying, stream) = source.start().await.unwrap();
    drop(stream);
    copying.finish().await.expect_err("nobody has it");
}

#[tokio::test]
async fn logs_that_a_backup_has_are_let_go_and_told_from_others_of_the_same_name() {
    let bed = Bed::start("[backup]\nlog = true\n").await;
    let socket = bed.server.config.db_socket();
    let first = binlog::rotate(&socket, false).await.unwrap().unwrap();
    bed.insert("x").await;
    let second = binlog::rotate(&socket, false).await.unwrap().unwrap();
    assert!(second.files.len() == first.files.len() + 1 && second.until >= first.until);
    let (old, new) = (&second.files[0], second.files.last().unwrap());
    let folder = &second.folder;
    assert_ne!(binlog::head(folder, old).unwrap(), binlog::head(folder, new).unwrap());
    assert_eq!(binlog::head(folder, new).unwrap(), binlog::head(folder, new).unwrap());
    binlog::purge(&socket, new).await.unwrap();
    assert!(binlog::open(folder, old).is_err() && binlog::open(folder, new).is_ok());
}
