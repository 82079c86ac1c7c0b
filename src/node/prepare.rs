//! What must be on disk before children start: folders, secrets, the certificate, the daemons' configuration.
//! Can be repeated; changes only what differs. The caller is root.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::net::UnixStream;
use tracing::{info, warn};

use super::children::{ChildSpec, Probe, Ready, Run, SOON};
use super::galera;
use crate::base::BoxFuture;
use crate::base::file::{Access, ensure, ensure_folder, replace};
use crate::base::secret::Secret;
use crate::config::{Config, Daemons, Engine};
use crate::host::account::{self, Account};
use crate::host::child::Launch;
use crate::host::facts;
use crate::host::mount::Space;
use crate::host::sysctl;
use crate::host::unit::Unit;
use crate::net::mesh::trust::Trust;
use crate::net::{mesh, tls};
use crate::{db, php, storage};

pub use super::galera::UNIT as DATABASE;

/// MariaDB's own account, made by its package.
pub const DB_USER: &str = "mysql";
/// Of Debian's package, and of Red Hat's.
const DB_FOLDERS: [&str; 2] = ["/etc/mysql/mariadb.conf.d", "/etc/my.cnf.d"];
const DB_DROP_IN: &str = "zz-bitrix-node.cnf";
const POOL_FILE: &str = "bitrix-node.conf";
const INI_FILE: &str = "99-bitrix-node.ini";

/// A prepared node.
pub struct Node {
    /// The user of the modules.
    pub user: Account,
    pub daemons: Vec<ChildSpec>,
    /// Those whose configuration changed while they ran, and that can read it again.
    pub changed: Vec<&'static str>,
}

/// The folders, with the access that each one needs. Nothing of the network-facing user is writable by it
/// except its own log folder, so that root never follows a link that it laid.
pub fn folders(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "bitrix-node runs as root, and drops that for its modules; use sudo"
    );
    let (user, portal) = (
        account::require(&config.node.user)?,
        account::require(&config.portal.user)?,
    );
    let make =
        |folder: &Path, access: Access| ensure_folder(folder, access).with_context(|| folder.display().to_string());
    let open = Access::owned(0o755, 0, 0);
    make(&config.node.data_dir, open)?;
    make(&config.node.run_dir, open)?;
    make(&config.node.log_dir, open)?;
    // Secrets of the modules: root writes, the module user reads.
    make(&config.secrets(), Access::owned(0o750, 0, user.gid))?;
    make(&config.node.data_dir.join("tls"), Access::owned(0o750, 0, user.gid))?;
    if config.storage.engine == Engine::Replicated {
        make(&config.storage(), Access::owned(0o700, user.uid, user.gid))?;
    }
    make(&config.staging(), Access::owned(0o700, user.uid, user.gid))?;
    if config.storage.engine != Engine::None {
        make(&config.view(), Access::owned(0o700, user.uid, user.gid))?;
    }
    make(&config.node.run_dir.join("php"), open)?;
    // On files that are mounted it is made when they are.
    if !config.is_portal_on_files() && !config.portal_root().exists() {
        make(&config.portal_root(), Access::owned(0o755, portal.uid, portal.gid))?;
    }
    make(&config.portal_temporary(), Access::owned(0o700, portal.uid, portal.gid))?;
    for log in [config.access_log(), config.audit_log()].iter().flatten() {
        if let Some(folder) = log.parent().filter(|folder| *folder != config.node.log_dir) {
            make(folder, Access::owned(0o750, user.uid, user.gid))?;
        }
    }
    if let Some(mysql) = account::find(DB_USER)? {
        make(
            &config.node.run_dir.join("db"),
            Access::owned(0o755, mysql.uid, mysql.gid),
        )?;
    }
    Ok(())
}

/// Secrets, certificate, and the daemons with their configuration. `go_on`: daemons that run are not stopped for a new one.
pub async fn node(config: &Config, go_on: bool) -> anyhow::Result<Node> {
    let user = account::require(&config.node.user)?;
    Secret::ensure(&config.secrets().join("admin.token"), Access::owned(0o640, 0, user.gid))?;
    Secret::ensure(&config.push_key(), Access::owned(0o640, 0, user.gid))?;
    certificate(config, &user)?;
    trust(config, &user)?;
    cert_key(config, &user)?;
    let (mut daemons, mut changed) = (Vec::new(), Vec::new());
    let missing: Vec<&str> = db::need::missing(config).into_iter().map(db::need::program).collect();
    galera::alone(config).await?;
    if !missing.is_empty() {
        let missing = missing.join(", ");
        warn!(
            missing,
            "not installed, and the database needs it; `bitrix-node init` installs it"
        );
    } else if config.db.run {
        let binary = db::find(config).context("MariaDB was there just now")?;
        daemons.push(mariadb(config, &binary, go_on).await?);
    } else if !config.db.arbiter.is_empty() {
        daemons.push(galera::arbiter(config, &user)?);
    }
    match php::find(config) {
        Some(binary) => {
            let (php, is_changed) = php_fpm(config, &binary, go_on).await?;
            changed.extend((go_on && is_changed).then_some(php.name));
            daemons.push(php);
        }
        None => warn!("PHP-FPM is not installed; `bitrix-node init` installs it"),
    }
    Ok(Node { user, daemons, changed })
}

/// Tells the kernel what many short connections need. Where it does not take that, as in a container, the node goes on without.
pub fn kernel(config: &Config) {
    if !config.node.sysctl {
        return;
    }
    for change in sysctl::wanted(&config.ports()) {
        match change.make() {
            Ok(()) => info!(%change, was = change.from, "the kernel is told"),
            Err(error) => {
                warn!(%change, %error, "the kernel does not take it; give a container these settings when it is started")
            }
        }
    }
}

/// Writes the daemons' configuration again; returns the names of those whose file changed.
pub fn reload(config: &Config) -> anyhow::Result<Vec<&'static str>> {
    let mut changed = Vec::new();
    if let Some(binary) = php::find(config).filter(|binary| write_pool(config, binary).is_ok_and(|changed| changed)) {
        info!(binary = %binary.display(), "the configuration of PHP-FPM changed");
        changed.push("php-fpm");
    }
    Ok(changed)
}

/// Whether MariaDB here is the unit `DATABASE`.
pub fn is_database_ordered(config: &Config) -> bool {
    galera::is_unit(config)
}

/// Whether it goes on as that one.
pub async fn is_database_running(config: &Config) -> io::Result<bool> {
    match is_database_ordered(config) {
        true => Ok(Unit(DATABASE.to_owned()).look().await?.is_there()),
        false => Ok(false),
    }
}

/// Ends MariaDB where it goes on as a unit, and gives the distribution its own back.
pub async fn let_database_go(config: &Config) -> anyhow::Result<()> {
    galera::leave(config).await
}

/// What `node` wrote into the folders of the daemons' own packages.
pub fn drop_ins(config: &Config) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = DB_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(DB_DROP_IN))
        .collect();
    if let Some(binary) = php::find(config) {
        let places = php::Places::of(&binary);
        files.extend([places.pools.join(POOL_FILE), places.ini.join(INI_FILE)]);
    }
    files.retain(|file| file.exists());
    files
}

/// A self-signed one unless the operator named another, or one is there.
fn certificate(config: &Config, user: &Account) -> anyhow::Result<()> {
    let (chain, key) = config.certificate();
    if !config.proxy.certificate.as_os_str().is_empty() || (chain.exists() && key.exists()) {
        return Ok(());
    }
    let mut names = vec![
        facts::host_name(),
        "localhost".to_string(),
        "127.0.0.1".to_string(),
        "::1".to_string(),
    ];
    names.splice(0..0, config.hosts());
    let (chain_text, key_text) = tls::self_signed(names).context("make a self-signed certificate")?;
    // The key first: a chain without its key would be taken for a whole pair.
    replace(&key, key_text.as_bytes(), Access::owned(0o640, 0, user.gid))?;
    replace(&chain, chain_text.as_bytes(), Access::owned(0o644, 0, 0))?;
    info!(certificate = %chain.display(), "made a self-signed certificate");
    Ok(())
}

/// A node that shall meet others and was not issued a certificate by one of them founds a cluster.
fn trust(config: &Config, user: &Account) -> anyhow::Result<()> {
    let trust = Trust::new(config.trust());
    if config.cluster.address.is_empty() {
        return Ok(());
    }
    match trust.exists() {
        true => trust.admit(user.gid)?,
        false => found_cluster(config, &trust, user)?,
    }
    if config.storage.engine == Engine::Replicated && trust.is_founder() && !trust.has_founded() {
        storage::found(&config.storage(), Some((user.uid, user.gid))).context("found the storage")?;
        trust.mark_founded()?;
    }
    Ok(())
}

/// What private keys are sealed with in the registry: who joins is handed it. In a cluster that is older than it, every node makes the
/// same one of the authority's key, which all of them have.
fn cert_key(config: &Config, user: &Account) -> anyhow::Result<()> {
    let (path, access) = (config.cert_key(), Access::owned(0o640, 0, user.gid));
    let authority = config.trust().join("authority.key");
    match std::fs::read_to_string(&authority) {
        Ok(authority) if !path.exists() => {
            let derived = blake3::derive_key("bitrix-node secrets/cert.key 1", authority.trim().as_bytes());
            let text = data_encoding::HEXLOWER.encode(&derived);
            replace(&path, format!("{text}\n").as_bytes(), access)?;
        }
        _ => drop(Secret::ensure(&path, access)?),
    }
    Ok(())
}

fn found_cluster(config: &Config, trust: &Trust, user: &Account) -> anyhow::Result<()> {
    let node: mesh::Name = facts::node_name(config).parse().context("node.name")?;
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let cluster = format!("portal-{:08x}", u32::from_be_bytes(random));
    let name: mesh::Name = cluster.parse().expect("letters and digits");
    trust.found(name, &node, Some(user.gid)).context("found a cluster")?;
    info!(cluster, %node, "founded a cluster");
    Ok(())
}

/// Whose mounts PHP sees.
pub fn space(config: &Config) -> Space {
    if by_units(config) { Space::Init } else { Space::Own }
}

/// Whether systemd owns the daemons.
pub fn by_units(config: &Config) -> bool {
    match config.node.daemons {
        Daemons::Unit => true,
        Daemons::Child => false,
        Daemons::Auto => facts::has_systemd(),
    }
}

fn php_children(config: &Config) -> usize {
    php::pool::children(config, facts::memory(), facts::processors())
}

async fn mariadb(config: &Config, binary: &Path, go_on: bool) -> anyhow::Result<ChildSpec> {
    let is_theirs = by_units(config) && !config.db.galera;
    let form = if is_theirs {
        db::render::Form::DropIn
    } else {
        db::render::Form::Whole
    };
    let facts = db::render::Facts {
        config,
        memory_bytes: facts::memory(),
        php_children: php_children(config),
        form,
    };
    let mut text = db::render::my_cnf(&facts)?;
    if config.db.galera {
        text += &galera::part(config)?;
    }
    let readable = Access::owned(0o644, 0, 0);
    let socket = config.db_socket();
    let run = if is_theirs {
        let folder = DB_FOLDERS.map(Path::new).into_iter().find(|f| f.is_dir());
        let folder = folder.context("no folder for MariaDB's configuration; set node.daemons = \"child\"")?;
        let unit = Unit(galera::DISTRIBUTION.to_string());
        let is_changed = ensure(&folder.join(DB_DROP_IN), text.as_bytes(), readable)?;
        if is_changed && go_on {
            warn!("MariaDB's configuration changed; it holds when MariaDB is started again");
        } else if is_changed {
            // New places and sizes hold after a restart only.
            unit.stop()
                .await
                .context("restart MariaDB with its new configuration")?;
        }
        Run::Unit(unit)
    } else {
        let account = account::require(DB_USER).context("MariaDB's user")?;
        let data = config.db_data();
        if !db::create::is_initialised(&data) {
            info!(folder = %data.display(), "making MariaDB's data folder");
            db::create::data_folder(config, &account).await?;
        }
        let file = config.node.run_dir.join("my.cnf");
        ensure(&file, text.as_bytes(), readable)?;
        if config.db.galera {
            return galera::spec(config, binary, &file, account);
        }
        Run::Program(Launch {
            program: binary.to_path_buf(),
            arguments: vec![format!("--defaults-file={}", file.display()).into()],
            environment: Vec::new(),
            account: Some(account),
            sockets: Vec::new(),
            // A clean end: it holds data.
            when_orphaned: Signal::SIGTERM,
        })
    };
    let probe: Probe = Arc::new(move || {
        let socket = socket.clone();
        Box::pin(async move { db::probe::answers(&socket).await }) as BoxFuture<'static, io::Result<()>>
    });
    Ok(ChildSpec {
        name: "mariadb",
        run,
        ready: Ready::Answers(probe),
        stop: Signal::SIGTERM,
        reload: None,
        needs_files: false,
        overlaps: false,
        orders: None,
        pause: SOON,
    })
}

/// And whether its configuration changed.
async fn php_fpm(config: &Config, binary: &Path, go_on: bool) -> anyhow::Result<(ChildSpec, bool)> {
    let changed = write_pool(config, binary)?;
    let run = if by_units(config) {
        let unit = Unit(php::Places::of(binary).unit);
        if changed && !go_on {
            unit.stop()
                .await
                .context("restart PHP-FPM with its new configuration")?;
        }
        Run::Unit(unit)
    } else {
        Run::Program(Launch {
            program: binary.to_path_buf(),
            arguments: php::pool::arguments(&pool_file(config), facts::memory()),
            environment: Vec::new(),
            // Its master stays root to start workers as the portal's user.
            account: None,
            sockets: Vec::new(),
            // Takes its workers along.
            when_orphaned: Signal::SIGTERM,
        })
    };
    let socket = config.php_socket();
    let probe: Probe = Arc::new(move || {
        let socket = socket.clone();
        Box::pin(async move { UnixStream::connect(&socket).await.map(drop) }) as BoxFuture<'static, io::Result<()>>
    });
    // SIGQUIT ends it when the running requests are answered, SIGUSR2 re-executes it without closing its socket.
    let (stop, reload) = (Signal::SIGQUIT, Some(Signal::SIGUSR2));
    let spec = ChildSpec {
        name: "php-fpm",
        run,
        ready: Ready::Answers(probe),
        stop,
        reload,
        needs_files: true,
        overlaps: false,
        orders: None,
        pause: SOON,
    };
    Ok((spec, changed))
}

fn pool_file(config: &Config) -> std::path::PathBuf {
    config.node.run_dir.join("php").join("fpm.conf")
}

/// Returns whether a file changed.
fn write_pool(config: &Config, binary: &Path) -> anyhow::Result<bool> {
    let readable = Access::owned(0o644, 0, 0);
    let node = facts::node_name(config);
    let form = if by_units(config) {
        php::pool::Form::Pool
    } else {
        php::pool::Form::Whole
    };
    let pool_facts = php::pool::PoolFacts {
        config,
        node: &node,
        children: php_children(config),
        form,
    };
    let pool = php::pool::render(&pool_facts)?;
    if !by_units(config) {
        return Ok(ensure(&pool_file(config), pool.as_bytes(), readable)?);
    }
    let places = php::Places::of(binary);
    let ini = php::pool::ini(facts::memory());
    let changed = ensure(&places.pools.join(POOL_FILE), pool.as_bytes(), readable)?;
    Ok(ensure(&places.ini.join(INI_FILE), ini.as_bytes(), readable)? || changed)
}
