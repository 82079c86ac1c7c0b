//! The demo portal with the settings that we render, on real PHP, MariaDB and memcached.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitrix_node::base::secret::Secret;
use bitrix_node::db::create;
use bitrix_node::host::command::{self, Program};
use bitrix_node::php::pool::{self, Form, PoolFacts};
use bitrix_node::portal::install::Target;
use bitrix_node::portal::{demo, settings};
use serde_json::Value;

use crate::support::daemon::{Daemon, free_port};
use crate::support::eventually::eventually;
use crate::support::http::{self, Answer};
use crate::support::mariadb::MariaDb;

struct Portal {
    port: u16,
    root: PathBuf,
    memcached: Option<Daemon>,
    _php: Daemon,
    _database: MariaDb,
}

impl Portal {
    async fn start() -> Self {
        let cache = free_port();
        let database = MariaDb::start(&format!("[cache]\nlisten = \"127.0.0.1:{cache}\"")).await;
        let (config, folder) = (&database.config, database.folder.path());
        let root = config.portal_root();
        let owner = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());

        let target = Target {
            root: &root,
            owner,
            replace: false,
        };
        let summary = demo::install(&target, &mut |_, _| {}).unwrap();
        assert!(summary.files > 5);
        let [password, crypto_key] = [(); 2].map(|()| Secret::generate().unwrap());
        let (name, user) = (&config.portal.database, &config.portal.database_user);
        create::ensure_database(&config.db_socket(), name, user, &password)
            .await
            .unwrap();
        let facts = settings::Facts {
            database_address: config.db.listen,
            database: name,
            database_user: user,
            password: &password,
            cache_address: config.cache.listen,
            crypto_key: &crypto_key,
            // Nothing of a node runs here. A whole one must have this check green, too.
            push: None,
            domain: "",
            https: false,
            temporary: &config.portal_temporary(),
        };
        settings::write(&root, &facts, owner).unwrap();

        let memcached = command::find("memcached").expect("memcached is installed");
        let arguments = ["-l", "127.0.0.1", "-u", "nobody", "-p", &cache.to_string()];
        let memcached = Daemon::start(&memcached, arguments, &folder.join("memcached.log"));
        let port = free_port();
        let pool = PoolFacts {
            config,
            node: "node-1",
            children: 4,
            form: Form::Pool,
        };
        let php = web_server(port, &root, &pool::render(&pool).unwrap(), folder);
        let portal = Portal {
            port,
            root,
            memcached: Some(memcached),
            _php: php,
            _database: database,
        };
        eventually("PHP answers", async || http::get(local(port), "/health")).await;
        portal
    }

    fn get(&self, path: &str) -> Answer {
        http::get(local(self.port), path).unwrap()
    }

    /// Status and content of /check.json.
    async fn checks(&self) -> (u16, Value) {
        let answer = self.get("/check.json");
        (
            answer.status,
            serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text())),
        )
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// PHP's own web server in place of the front, with the PHP settings of the pool.
fn web_server(port: u16, root: &Path, pool: &str, folder: &Path) -> Daemon {
    let router = folder.join("router.php");
    let code = "<?php $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH); $root = $_SERVER['DOCUMENT_ROOT'];
        if ($path === '/' || is_file($root . $path)) return false;
        require $root . '/bitrix/urlrewrite.php';";
    fs::write(&router, code).unwrap();
    let mut arguments = vec!["BITRIX_NODE=node-1".to_string(), "php".to_string()];
    for line in pool.lines().filter(|line| line.starts_with("php_")) {
        let setting = line.split_once('[').unwrap().1.replacen("] = ", "=", 1);
        arguments.extend(["-d".to_string(), setting]);
    }
    arguments.extend(["-S".to_string(), format!("127.0.0.1:{port}"), "-t".to_string()]);
    arguments.extend([root.display().to_string(), router.display().to_string()]);
    Daemon::start(Path::new("/usr/bin/env"), arguments, &folder.join("php.log"))
}

fn failing(checks: &Value) -> Vec<&str> {
    let checks = checks["checks"].as_object().unwrap().iter();
    checks
        .filter(|(_, check)| check["ok"] != true)
        .map(|(name, _)| name.as_str())
        .collect()
}

#[tokio::test]
async fn all_checks_are_green_and_turn_red_with_their_service() {
    let mut portal = Portal::start().await;
    let (status, checks) = portal.checks().await;
    assert_eq!(failing(&checks), [""; 0], "{checks:#}");
    assert_eq!(
        (status, &checks["ok"], &checks["node"]),
        (200, &true.into(), &"node-1".into())
    );
    assert_eq!(checks["checks"].as_object().unwrap().len(), 10);

    let page = portal.get("/");
    assert!(page.text().contains("All 10 checks are green"), "{}", page.text());
    let hello = portal.get("/hello/%3Cb%3Eworld/");
    assert!(hello.status == 200 && hello.text().contains("Hello, &lt;b&gt;world!"));
    let missing = portal.get("/no/such/page");
    assert!(missing.status == 404 && missing.text().contains("There is no such page"));

    drop(portal.memcached.take());
    let (status, checks) = portal.checks().await;
    assert_eq!((status, &checks["ok"]), (503, &false.into()));
    assert_eq!(failing(&checks), ["cache", "sessions"]);
    assert_eq!(portal.get("/").status, 200, "the page says what is wrong");
}

#[tokio::test]
async fn agent_runs_by_cron() {
    let portal = Portal::start().await;
    let script = portal.root.join("bitrix/modules/main/tools/cron_events.php");
    let php = command::find("php").unwrap();
    let run = Program::new(php).arg(script).check(Duration::from_secs(30)).await;
    assert_eq!(run.unwrap(), "", "cron would mail any output");
    let (_, checks) = portal.checks().await;
    let detail = checks["checks"]["agent"]["detail"].as_str().unwrap();
    assert!(detail.contains("by cron"), "{detail}");
}

#[tokio::test]
async fn uploaded_file_comes_back_and_never_runs() {
    let portal = Portal::start().await;
    let page = portal.get("/");
    let between = |text: &str, from: &str, to: &str| {
        let rest = text.split_once(from).unwrap_or_else(|| panic!("{from} in {text}")).1;
        rest.split_once(to).unwrap().0.to_string()
    };
    let cookie = between(&page.head, "Set-Cookie: ", ";");
    let token = between(&page.text(), "name=\"token\" value=\"", "\"");
    let send = async |token: &str, name: &str| {
        let headers = format!("Cookie: {cookie}\r\nContent-Type: multipart/form-data; boundary=cut\r\n");
        let body = format!(
            "--cut\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n{token}\r\n\
             --cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n\
             <?php echo 6 * 7;\r\n--cut--\r\n"
        );
        let answer = http::request(local(portal.port), "POST", "/upload.php", &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 303);
        let headers = format!("Cookie: {cookie}\r\n");
        http::request(local(portal.port), "GET", "/", &headers, b"")
            .unwrap()
            .text()
    };

    let refused = send("wrong", "a.txt").await;
    assert!(refused.contains("too old") && !refused.contains("/upload/demo/"));
    for (name, stored) in [
        ("report.txt", "-report.txt"),
        ("../a.php", "-a-php.bin"),
        ("b.php.txt", "-b-php.txt"),
    ] {
        let page = send(&token, name).await;
        let received = between(&page, "Received ", "<");
        assert!(received.ends_with(stored), "{name} became {received}");
        let link = format!("/upload/demo/{received}");
        assert!(page.contains(&format!("href=\"{link}\"")), "{page}");
        let file = portal.get(&link);
        assert_eq!((file.status, &*file.text()), (200, "<?php echo 6 * 7;"));
    }
}
