//! The database and the cache of one node under 127.0.0.1 of another: the modules as they are, a real MariaDB, real PHP.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitrix_node::base::secret::Secret;
use bitrix_node::base::service::{NamedSocket, Socket};
use bitrix_node::base::{Cx, Health, Scope, Service};
use bitrix_node::cache::{self, Cache};
use bitrix_node::cluster::{self, Fit, Member, Role, Seat, Snapshot, Standing};
use bitrix_node::config::{Config, parse};
use bitrix_node::db::{Db, create};
use bitrix_node::net::listen;
use bitrix_node::net::mesh::trust::Trust;
use futures_util::future::join_all;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::eventually::eventually;
use crate::support::mariadb::MariaDb;

const CLUSTER: &str = "[cluster]\naddress = \"127.0.0.1\"\n";
const AWAY: &str = "[db]\nrun = false\n[cache]\nrun = false\n[storage]\nengine = \"replicated\"\n";

fn listener(address: &str) -> (Socket, SocketAddr) {
    let listener = listen::tcp(address.parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    (Socket::Tcp(listener), address)
}

/// Those of the database and the cache, and the agent's port, from which both are counted.
fn mesh_listeners() -> (Socket, Socket, u16) {
    for _ in 0..100 {
        let (db, address) = listener("127.0.0.1:0");
        let base = address.port() - 5;
        // Somebody else may have that one.
        if let Ok(cache) = listen::tcp(SocketAddr::new(address.ip(), base + 2)) {
            return (db, Socket::Tcp(cache), base);
        }
    }
    panic!("no two ports are free");
}

/// One module of a node, run in this process.
fn run(scope: &Scope, module: &Arc<impl Service + 'static>, sockets: Vec<(&str, Socket)>) {
    let named = |(name, socket): (&str, Socket)| NamedSocket {
        name: name.into(),
        socket,
    };
    let cx = Cx {
        scope: scope.clone(),
        sockets: sockets.into_iter().map(named).collect(),
    };
    let module = module.clone();
    scope.spawn(async move { module.run(cx).await.expect("runs until drained") });
}

/// n1 has MariaDB and the cache, n2 has neither; the test is the agent of both.
struct Pair {
    mariadb: MariaDb,
    _folder: TempDir,
    near: Arc<Db>,
    password: Secret,
    /// Where n2's PHP looks.
    db: SocketAddr,
    cache: SocketAddr,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// The agent's port of n2.
    away: u16,
    scope: Scope,
}

impl Pair {
    async fn start() -> Self {
        let mariadb = MariaDb::start(CLUSTER).await;
        let password = Secret::generate().unwrap();
        create::ensure_database(&mariadb.config.db_socket(), "site", "bitrix", &password)
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let away = config(folder.path(), &format!("{CLUSTER}{AWAY}"));
        let first = Trust::new(mariadb.config.trust());
        let name = |text: &str| text.parse().unwrap();
        first.found(name("c"), &name("n1"), None).unwrap();
        first.issue(&name("n2"), &Trust::new(away.trust())).unwrap();

        let scope = Scope::new();
        let (snapshot, snapshots) = watch::channel(Arc::default());
        for config in [&mariadb.config, &away] {
            let listener = listen::unix(&config.view_socket()).unwrap();
            cluster::publish(listener, snapshots.clone(), &scope).unwrap();
        }
        // Both modules' ports are counted from the agent's.
        let (db_mesh, cache_mesh, base) = mesh_listeners();
        let (cache_here, _) = listener("127.0.0.1:0");
        let here = Arc::new(mariadb.config.clone());
        run(&scope, &Arc::new(Db::new(here.clone())), vec![("db-mesh", db_mesh)]);
        let sockets = vec![("cache", cache_here), ("cache-mesh", cache_mesh)];
        run(&scope, &Arc::new(Cache::new(here)), sockets);
        let ((db_socket, db), (cache_socket, cache)) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
        let away = Arc::new(away);
        let near = Arc::new(Db::new(away.clone()));
        run(&scope, &near, vec![("db", db_socket)]);
        let (_, cache_mesh_away, base_away) = mesh_listeners();
        let sockets = vec![("cache", cache_socket), ("cache-mesh", cache_mesh_away)];
        run(&scope, &Arc::new(cache::Relay::new(away)), sockets);
        let pair = Pair {
            mariadb,
            _folder: folder,
            near,
            password,
            db,
            cache,
            snapshot,
            away: base_away,
            scope,
        };
        pair.give(Some("n1"), 1, base);
        eventually("the caches have found a leader", async || pair.store().await).await;
        pair
    }

    /// Both roles to that node.
    fn give(&self, holder: Option<&str>, epoch: u64, base: u16) {
        let member = |name: &str, port: u16| Member {
            name: name.into(),
            address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            standing: Standing::Member,
            is_live: true,
            fit: Fit::NONE,
        };
        let seat = |role| Seat {
            role,
            seat: String::new(),
            holder: holder.map(str::to_string),
            epoch,
        };
        self.snapshot.send_replace(Arc::new(Snapshot {
            revision: epoch,
            nodes: vec![member("n1", base), member("n2", self.away)],
            seats: vec![seat(Role::Db), seat(Role::Cache)],
            ..Snapshot::default()
        }));
    }

    /// Through n2.
    async fn store(&self) -> Result<(), String> {
        let mut cache = TcpStream::connect(self.cache)
            .await
            .map_err(|error| error.to_string())?;
        cache
            .write_all(b"set memc.sess.key.x 0 0 1\r\n1\r\nquit\r\n")
            .await
            .unwrap();
        let mut said = String::new();
        cache
            .read_to_string(&mut said)
            .await
            .map_err(|error| error.to_string())?;
        if said == "STORED\r\n" { Ok(()) } else { Err(said) }
    }

    fn take(&self, epoch: u64) {
        self.give(None, epoch, 1);
    }

    async fn login(&self, address: SocketAddr) -> mysql_async::Result<Conn> {
        let options = OptsBuilder::default()
            .ip_or_hostname(address.ip().to_string())
            .tcp_port(address.port())
            .prefer_socket(false)
            .user(Some("bitrix"))
            .pass(Some(self.password.expose()))
            .db_name(Some("site"));
        Conn::new(options).await
    }

    async fn visit(&self, address: SocketAddr) -> Duration {
        let start = Instant::now();
        let mut connection = self.login(address).await.unwrap();
        assert_eq!(connection.query_first::<u8, _>("SELECT 1").await.unwrap(), Some(1));
        connection.disconnect().await.unwrap();
        start.elapsed()
    }

    /// A visit's median, with so many clients side by side.
    async fn median(&self, address: SocketAddr, clients: usize, visits: usize) -> Duration {
        let client = async || {
            let mut took = Vec::new();
            for _ in 0..visits {
                took.push(self.visit(address).await);
            }
            took
        };
        let mut took = join_all((0..clients).map(|_| client())).await.concat();
        took.sort_unstable();
        took[took.len() / 2]
    }
}

fn config(folder: &Path, sections: &str) -> Config {
    let text = format!(
        "[node]\ndata_dir = \"{0}\"\nrun_dir = \"{0}\"\n{sections}",
        folder.display()
    );
    parse(&text, std::iter::empty()).unwrap().config
}

fn php(script: &str) -> String {
    #[allow(clippy::disallowed_methods)]
    let output = std::process::Command::new("php")
        .args(["-d", "display_errors=stderr", "-r", script])
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn php_reaches_the_database_and_the_cache_of_another_node_on_its_own_loopback() {
    let pair = Pair::start().await;
    let (db, password) = (pair.db, pair.password.expose());
    let script = format!(
        "mysqli_report(MYSQLI_REPORT_OFF); $c = mysqli_connect('p:{}', 'bitrix', '{password}', 'site', {});
         if (!$c) exit(mysqli_connect_errno() . ' ' . mysqli_connect_error());
         $c->query('CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY, body LONGTEXT)');
         $body = str_repeat('x', 3000000); $c->query(\"REPLACE INTO t VALUES (1, '$body')\");
         $got = $c->query('SELECT body, CURRENT_USER() u, GET_LOCK(\"l\", 0) l FROM t')->fetch_assoc();
         echo $got['body'] === $body ? 'same ' : 'other ', $got['u'], ' ', $got['l'];",
        db.ip(),
        db.port(),
    );
    assert_eq!(php(&script), "same bitrix@localhost 1");
    let script = format!(
        "$m = new Memcached(); $m->addServer('{}', {}); $m->set('k', str_repeat('v', 100000));
         echo strlen($m->get('k')), ' ', $m->getResultCode();",
        pair.cache.ip(),
        pair.cache.port(),
    );
    assert_eq!(php(&script), "100000 0");

    // Nobody has it for longer than PHP is let wait: an error that says so, and no reset.
    pair.take(2);
    let start = Instant::now();
    let script = format!(
        "mysqli_report(MYSQLI_REPORT_OFF); @mysqli_connect('{}', 'bitrix', 'x', 'site', {}); 
         echo mysqli_connect_errno(), ' ', mysqli_connect_error();",
        db.ip(),
        db.port(),
    );
    assert_eq!(php(&script), "2003 No node of the cluster has the database now");
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert_eq!(pair.near.status().health, Health::Degraded);
    let mut cache = TcpStream::connect(pair.cache).await.unwrap();
    cache.write_all(b"get k\r\n").await.unwrap();
    assert_eq!(
        cache.read_to_end(&mut Vec::new()).await.unwrap(),
        0,
        "closed, not reset"
    );
    pair.scope.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_deposed_holder_is_cut_and_taken_back() {
    let pair = Pair::start().await;
    let base = pair.snapshot.borrow().nodes[0].address.unwrap().port();
    let mut session = pair.login(pair.db).await.unwrap();
    session.query_drop("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    session.query_drop("START TRANSACTION").await.unwrap();
    session.query_drop("INSERT INTO t VALUES (1)").await.unwrap();
    pair.give(Some("n1"), 2, base);
    eventually("the session is cut", async || match session.query_drop("DO 1").await {
        Ok(()) => Err("it goes on".to_string()),
        Err(_) => Ok(()),
    })
    .await;
    let mut direct = pair.login(pair.mariadb.config.db.listen).await.unwrap();
    eventually("no session is left", async || {
        let sessions: Vec<String> = direct
            .query("SELECT USER FROM information_schema.PROCESSLIST")
            .await
            .unwrap();
        match sessions.len() {
            1 => Ok(()),
            count => Err(format!("{count} sessions")),
        }
    })
    .await;
    let rows: Vec<u8> = direct.query("SELECT id FROM t").await.unwrap();
    assert_eq!(rows, [0; 0]);
    // The next one finds its way by itself.
    pair.visit(pair.db).await;
    pair.scope.stop(Duration::ZERO).await;
}

/// Noise of a loaded machine hits both alike when they take turns.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_way_costs_is_printed() {
    let pair = Pair::start().await;
    pair.visit(pair.db).await;
    for clients in [1, 8] {
        let mut ratios = Vec::new();
        for _ in 0..5 {
            let direct = pair.median(pair.mariadb.config.db.listen, clients, 60 / clients).await;
            let relayed = pair.median(pair.db, clients, 60 / clients).await;
            ratios.push(relayed.as_secs_f64() / direct.as_secs_f64());
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "connect, SELECT 1, close with {clients} clients: relayed takes {:.2} times as long as direct ({:.2} to {:.2})",
            ratios[2], ratios[0], ratios[4]
        );
        assert!(ratios[2] > 0.0);
    }
    pair.scope.stop(Duration::ZERO).await;
    fs::metadata(pair.mariadb.folder.path()).expect("the server ran until here");
}
