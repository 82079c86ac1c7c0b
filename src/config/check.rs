//! What a well-formed configuration must also satisfy. Pure; returns every problem with its key.

use std::collections::HashSet;
use std::path::Path;

use super::{Config, Engine, External, Files, Mount, Proxy, Route};

type Problems = Vec<(&'static str, String)>;

const NEEDS_ABSOLUTE: &str = "must be an absolute path";

/// All problems as (`section.key`, message with remedy).
pub fn check(config: &Config) -> Problems {
    let mut problems = Problems::new();
    node(config, &mut problems);
    proxy(&config.proxy, &mut problems);
    portal(config, &mut problems);
    services(config, &mut problems);
    push(config, &mut problems);
    cluster(config, &mut problems);
    files(config, &mut problems);
    upgrade(config, &mut problems);
    problems.extend(config.site_faults());
    problems.extend(config.cdn_faults());
    problems.extend(config.backup.faults());
    problems.extend(config.waf.faults());
    problems.extend(config.acme.faults(config));
    problems
}

fn require(problems: &mut Problems, holds: bool, key: &'static str, message: impl Into<String>) {
    if !holds {
        problems.push((key, message.into()));
    }
}

fn node(config: &Config, problems: &mut Problems) {
    let node = &config.node;
    for (key, path) in [
        ("node.data_dir", &node.data_dir),
        ("node.run_dir", &node.run_dir),
        ("node.log_dir", &node.log_dir),
    ] {
        require(problems, path.is_absolute(), key, NEEDS_ABSOLUTE);
    }
    // A unix socket's path holds 107 bytes; ours add a folder and a name.
    let short = node.run_dir.as_os_str().len() <= 80;
    require(
        problems,
        short,
        "node.run_dir",
        "is too long for a socket; use at most 80 bytes",
    );
    require(problems, is_account(&node.user), "node.user", "is not a user name");
    if let Err(error) = crate::base::log::check(&node.log) {
        require(problems, false, "node.log", format!("{error}; write it like \"info\""));
    }
}

fn proxy(proxy: &Proxy, problems: &mut Problems) {
    require(
        problems,
        is_absolute_or_empty(&proxy.certificate),
        "proxy.certificate",
        NEEDS_ABSOLUTE,
    );
    require(problems, is_absolute_or_empty(&proxy.key), "proxy.key", NEEDS_ABSOLUTE);
    let both = proxy.certificate.as_os_str().is_empty() == proxy.key.as_os_str().is_empty();
    require(
        problems,
        both,
        "proxy.key",
        "certificate and key belong together; set both or none",
    );
    let listens = !proxy.http.is_empty() || !proxy.https.is_empty();
    require(
        problems,
        listens,
        "proxy.http",
        "nothing to listen on; give an address in proxy.http or proxy.https",
    );
    let at_least_one = "must be at least 1";
    require(
        problems,
        proxy.max_connections > 0,
        "proxy.max_connections",
        at_least_one,
    );
    require(
        problems,
        proxy.max_connections_per_address > 0,
        "proxy.max_connections_per_address",
        at_least_one,
    );
    let headers = (4..=1024).contains(&proxy.max_headers);
    require(problems, headers, "proxy.max_headers", "must be between 4 and 1024");
    let header_size = (1 << 10..=1 << 20).contains(&proxy.max_header_size.0);
    require(
        problems,
        header_size,
        "proxy.max_header_size",
        "must be between 1KiB and 1MiB",
    );
    for (key, period) in [
        ("proxy.header_timeout", proxy.header_timeout),
        ("proxy.idle_timeout", proxy.idle_timeout),
        ("proxy.body_timeout", proxy.body_timeout),
        ("proxy.upstream_timeout", proxy.upstream_timeout),
    ] {
        require(problems, !period.0.is_zero(), key, "must be longer than zero");
    }
    origin(proxy, problems);
    for Route { prefix, upstream } in &proxy.routes {
        let path = prefix.starts_with('/') && prefix.ends_with('/');
        require(
            problems,
            path,
            "proxy.routes",
            format!("prefix \"{prefix}\" must start and end with /"),
        );
        let message = format!("upstream \"{upstream}\" must look like http://host:port");
        require(problems, is_upstream(upstream), "proxy.routes", message);
    }
}

/// Whose word on the client counts, and in what form it comes.
fn origin(proxy: &Proxy, problems: &mut Problems) {
    for network in &proxy.trusted {
        let message = format!("\"{network}\" would let every client say who it is; list the proxies' own addresses");
        require(problems, network.prefix_len() > 0, "proxy.trusted", message);
    }
    require(
        problems,
        !proxy.proxy_protocol || !proxy.trusted.is_empty(),
        "proxy.proxy_protocol",
        "is believed of proxies in proxy.trusted only; list them there",
    );
    let cache = proxy.cache.0 == 0 || (8 << 20..=64 << 30).contains(&proxy.cache.0);
    require(problems, cache, "proxy.cache", "must be 0, or between 8MiB and 64GiB");
    // A shard of the store holds an eighth at least on small machines.
    let largest = proxy.cache.0 == 0 || (1..=proxy.cache.0 / 8).contains(&proxy.cache_max_size.0);
    require(
        problems,
        largest,
        "proxy.cache_max_size",
        "must be at least 1 byte and at most an eighth of proxy.cache",
    );
    let memory = (8 << 20..=64 << 30).contains(&proxy.file_memory.0);
    require(problems, memory, "proxy.file_memory", "must be between 8MiB and 64GiB");
    for host in &proxy.composite {
        let message = format!("\"{host}\" is no host name in lower case; list names without ports, or \"*\" for all");
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_host = host == "*" || !host.is_empty() && host.bytes().all(is_letter);
        require(problems, is_host, "proxy.composite", message);
    }
    for host in &proxy.cloud_hosts {
        let message = format!("\"{host}\" must be a host in lower case, perhaps with a port, like storage.example.com");
        require(problems, is_store(host), "proxy.cloud_hosts", message);
    }
    require(
        problems,
        is_absolute_or_empty(&proxy.cloud_authority),
        "proxy.cloud_authority",
        NEEDS_ABSOLUTE,
    );
    let are_absolute = proxy.symlink_folders.iter().all(|folder| folder.is_absolute());
    require(problems, are_absolute, "proxy.symlink_folders", NEEDS_ABSOLUTE);
    let codings: HashSet<_> = proxy.compress.iter().collect();
    let once = codings.len() == proxy.compress.len();
    require(problems, once, "proxy.compress", "names a coding twice");
}

/// `host` or `host:port`; a name has a dot, so that none stands for a whole country.
fn is_store(store: &str) -> bool {
    let (host, port) = match store.split_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        None => (store, true),
    };
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let has_name = host.split('.').count() >= 2 && host.split('.').all(|label| !label.is_empty());
    port && has_name && host.bytes().all(is_letter)
}

fn upgrade(config: &Config, problems: &mut Problems) {
    let upgrade = &config.upgrade;
    require(problems, upgrade.key.is_absolute(), "upgrade.key", NEEDS_ABSOLUTE);
    let patience = (1..=600).contains(&upgrade.patience.0.as_secs());
    require(problems, patience, "upgrade.patience", "must be between 1s and 10m");
}

fn portal(config: &Config, problems: &mut Problems) {
    let portal = &config.portal;
    require(
        problems,
        is_absolute_or_empty(&portal.root),
        "portal.root",
        NEEDS_ABSOLUTE,
    );
    require(problems, is_account(&portal.user), "portal.user", "is not a user name");
    let apart = config.node.user != portal.user;
    require(
        problems,
        apart,
        "portal.user",
        "must differ from node.user, or PHP could read the node's keys",
    );
    let script = portal.fallback.starts_with('/') && portal.fallback.ends_with(".php");
    require(
        problems,
        script,
        "portal.fallback",
        "must be a path of a PHP script, like /bitrix/urlrewrite.php",
    );
    let letters = "use letters, digits and _ only";
    require(problems, is_identifier(&portal.database), "portal.database", letters);
    require(
        problems,
        is_identifier(&portal.database_user),
        "portal.database_user",
        letters,
    );
    let host = portal
        .domain
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    require(problems, host, "portal.domain", "is not a host name");
}

fn cluster(config: &Config, problems: &mut Problems) {
    let (cluster, storage) = (&config.cluster, &config.storage);
    let address = cluster.address.parse::<std::net::IpAddr>();
    let is_usable = address.is_ok_and(|address| !address.is_unspecified() && !address.is_multicast());
    require(
        problems,
        cluster.address.is_empty() || is_usable,
        "cluster.address",
        "must be the IP address at which other nodes reach this one",
    );
    let name = config.node.name.as_bytes();
    let is_name = name.len() <= 63
        && name
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    require(
        problems,
        cluster.address.is_empty() || is_name,
        "node.name",
        "in a cluster it has 1 to 63 of a-z, 0-9 and -",
    );
    let ports = (1..=u16::MAX - 5).contains(&cluster.port);
    require(problems, ports, "cluster.port", "six ports from this one must exist");
    let is_known = !cluster.address.is_empty() && storage.engine != Engine::None;
    for (key, runs) in [("db.run", config.db.run), ("cache.run", config.cache.run)] {
        let message =
            "who runs it is known in a cluster only: set cluster.address and storage.engine, or let it run here";
        require(problems, runs || is_known, key, message);
    }
    galera(config, is_known, problems);
    let is_open = !storage.listen.ip().is_loopback();
    require(
        problems,
        !is_open || !storage.clients.is_empty(),
        "storage.clients",
        "storage.listen is not loopback: list the networks whose hosts may mount the files",
    );
    let copies = (1..=5).contains(&storage.copies);
    require(problems, copies, "storage.copies", "must be between 1 and 5");
    let least = (1..=storage.copies).contains(&storage.min_copies);
    require(
        problems,
        least,
        "storage.min_copies",
        "must be between 1 and storage.copies",
    );
}

fn galera(config: &Config, is_known: bool, problems: &mut Problems) {
    let db = &config.db;
    if let Some(fault) = db.reads_fault() {
        require(problems, false, "db.reads", fault);
    }
    let is_arbiter = !db.arbiter.is_empty();
    let message = "is for a node of a cluster without a database: set db.run = false";
    require(problems, !is_arbiter || (is_known && !db.run), "db.arbiter", message);
    let is_even = db.arbiter.len().is_multiple_of(2) && !db.arbiter.iter().any(|address| address.is_unspecified());
    let message = "names the nodes with db.galera = true where their number is even; of three one can fail without it";
    require(problems, is_even, "db.arbiter", message);
    let message = "the nodes of a Galera cluster meet in a cluster: set cluster.address and storage.engine";
    require(problems, !db.galera || is_known, "db.galera", message);
    let message =
        "is for a node with db.run = true; one without its own data reaches the others' with db.run = false alone";
    require(problems, !db.galera || db.run, "db.galera", message);
}

/// Where the portal's files are mounted, and that neither PHP nor the front can see more than these.
fn files(config: &Config, problems: &mut Problems) {
    let (storage, at) = (&config.storage, config.mount_point());
    let external = storage.external().filter(|_| storage.engine == Engine::External);
    if let Some(message) = mount(storage.mount(), storage.engine, external.as_ref()) {
        problems.push(("storage.mount", message.into()));
    }
    let is_mounted = storage.mount() == Mount::Kernel;
    let is_named = is_mounted && matches!(external, Some(External::Server { .. }));
    let message = "is for a server in storage.external that storage.mount = \"kernel\" mounts; locks of the replicated files over \
                   NFS are local to a node";
    require(
        problems,
        !storage.external_locks || is_named,
        "storage.external_locks",
        message,
    );
    let is_absolute = is_absolute_or_empty(&storage.mount_point);
    require(problems, is_absolute, "storage.mount_point", NEEDS_ABSOLUTE);
    let (node, replica) = (&config.node, config.storage());
    let hides = [&node.data_dir, &node.run_dir, &node.log_dir, &replica]
        .into_iter()
        .any(|folder| folder.starts_with(&at));
    let message = "would hide what the node itself needs; name a folder of its own, like /srv/portal";
    require(problems, !hides, "storage.mount_point", message);
    let (own, clients) = (storage.listen.ip(), &storage.clients);
    let is_let_in = own.is_loopback() || own.is_unspecified() || clients.iter().any(|network| network.contains(&own));
    let message = "this node mounts its files from storage.listen: list that address here, too";
    let is_own = is_mounted && storage.engine == Engine::Replicated;
    require(
        problems,
        !is_own || is_let_in || clients.is_empty(),
        "storage.clients",
        message,
    );
    let root = config.portal_root();
    let holds_registry = config.files().is_some_and(|files| match files {
        Files::Mounted { at, .. } | Files::Door { at } => at.starts_with(&root),
        Files::Watched(path) => path.starts_with(&root),
    });
    let message = "must be a folder below the mounted files, such as \"portal\" there: beside it lie things that no browser may see";
    require(problems, !holds_registry, "portal.root", message);
}

/// What is wrong with this way to mount.
fn mount(mount: Mount, engine: Engine, external: Option<&External>) -> Option<&'static str> {
    match (mount, engine) {
        (Mount::None, _) | (_, Engine::Replicated) => None,
        (_, Engine::None) => Some("there is nothing to mount; set storage.engine to \"replicated\" or \"external\""),
        (_, Engine::External) if matches!(external, Some(External::Path(_))) => {
            Some("storage.external is a path, which is mounted already; set \"none\"")
        }
        (Mount::Fuse, Engine::External) => Some(
            "only storage.engine = \"replicated\" has a FUSE door; a server in storage.external is mounted with \"kernel\"",
        ),
        (Mount::Kernel, Engine::External) => None,
    }
}

fn services(config: &Config, problems: &mut Problems) {
    let (php, db, cache) = (&config.php, &config.db, &config.cache);
    require(
        problems,
        is_absolute_or_empty(&php.binary),
        "php.binary",
        NEEDS_ABSOLUTE,
    );
    require(
        problems,
        !php.max_execution_time.0.is_zero(),
        "php.max_execution_time",
        "must be longer than zero",
    );
    let below = php.children == 0 || php.kept_connections < php.children;
    let message = "must be below php.children: each kept connection occupies a PHP process";
    require(problems, below, "php.kept_connections", message);
    require(problems, is_absolute_or_empty(&db.binary), "db.binary", NEEDS_ABSOLUTE);
    require(
        problems,
        is_absolute_or_empty(&db.data_dir),
        "db.data_dir",
        NEEDS_ABSOLUTE,
    );
    require(
        problems,
        db.listen.ip().is_loopback(),
        "db.listen",
        "must be a loopback address",
    );
    require(
        problems,
        cache.listen.ip().is_loopback(),
        "cache.listen",
        "must be a loopback address",
    );
    require(
        problems,
        config.storage.engine != Engine::External || config.storage.external().is_some(),
        "storage.external",
        "engine \"external\" needs nfs://host/export or an absolute path here",
    );
    let interface = &config.edge.interface;
    let is_interface = interface.len() <= 15 && !interface.contains(|c: char| c == '/' || c.is_whitespace());
    require(problems, is_interface, "edge.interface", "is no name of an interface");
    let item = (1 << 10..=1 << 30).contains(&cache.max_item_size.0);
    require(problems, item, "cache.max_item_size", "must be between 1KiB and 1GiB");
    if let Some(fault) = cache.backend_fault() {
        require(problems, false, "cache.backend", fault);
    }
    let composite = cache.composite.iter();
    require(
        problems,
        composite
            .clone()
            .all(|address| address.ip().is_loopback() && *address != cache.listen),
        "cache.composite",
        "must be loopback addresses other than cache.listen",
    );
    let prefixes = cache.sync_prefixes.iter();
    require(
        problems,
        prefixes.clone().all(|prefix| (1..=200).contains(&prefix.len())),
        "cache.sync_prefixes",
        "have 1 to 200 bytes each",
    );
    require(
        problems,
        cache.max_connections > 0,
        "cache.max_connections",
        "must be at least 1",
    );
}

fn push(config: &Config, problems: &mut Problems) {
    let push = &config.push;
    require(
        problems,
        push.listen.ip().is_loopback(),
        "push.listen",
        "must be a loopback address: who reaches it may write to everybody",
    );
    require(
        problems,
        push.max_connections > 0,
        "push.max_connections",
        "must be at least 1",
    );
}

fn is_absolute_or_empty(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.is_absolute()
}

fn is_account(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    starts && name.len() <= 32 && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_upstream(upstream: &str) -> bool {
    let Some(authority) = upstream.strip_prefix("http://") else {
        return false;
    };
    authority
        .parse::<http::uri::Authority>()
        .is_ok_and(|authority| authority.port_u16().is_some() && !authority.host().is_empty())
        && !authority.contains('@')
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    /// Configuration with one fault, and the key that it is named by.
    const FAULTS: &[(&str, &str)] = &[
        ("[node]\ndata_dir = \"data\"", "node.data_dir"),
        ("[node]\nuser = \"bitrix\"", "portal.user"),
        ("[proxy]\nkey = \"/k.pem\"", "proxy.key"),
        ("[proxy]\nhttp = []\nhttps = []", "proxy.http"),
        ("[proxy]\nheader_timeout = \"0s\"", "proxy.header_timeout"),
        (
            "[[proxy.routes]]\nprefix = \"app\"\nupstream = \"http://127.0.0.1:1\"",
            "proxy.routes",
        ),
        (
            "[[proxy.routes]]\nprefix = \"/app/\"\nupstream = \"127.0.0.1:1\"",
            "proxy.routes",
        ),
        ("[proxy]\ncomposite = [\"Shop.example\"]", "proxy.composite"),
        ("[proxy]\ncloud_hosts = [\"com\"]", "proxy.cloud_hosts"),
        (
            "[proxy]\ncloud_hosts = [\"https://store.example\"]",
            "proxy.cloud_hosts",
        ),
        ("[proxy]\ncloud_hosts = [\".example\"]", "proxy.cloud_hosts"),
        ("[proxy]\ncloud_authority = \"ca.pem\"", "proxy.cloud_authority"),
        ("[proxy]\nsymlink_folders = [\"shared\"]", "proxy.symlink_folders"),
        ("[proxy]\nfile_memory = \"1MiB\"", "proxy.file_memory"),
        ("[proxy]\ncache = \"1MiB\"\ncache_max_size = \"64KiB\"", "proxy.cache"),
        (
            "[proxy]\ncache = \"16MiB\"\ncache_max_size = \"4MiB\"",
            "proxy.cache_max_size",
        ),
        ("[proxy]\ncomposite = [\"shop.example:80\"]", "proxy.composite"),
        ("[portal]\ndatabase = \"a`b\"", "portal.database"),
        ("[php]\nchildren = 4\nkept_connections = 4", "php.kept_connections"),
        ("[cache]\nlisten = \"0.0.0.0:11211\"", "cache.listen"),
        ("[cache]\nbackend = \"memcached:11311\"", "cache.backend"),
        ("[cache]\nbackend = \"10.0.0.1:11311\"", "cache.backend"),
        ("[cache]\nbackend = \"127.0.0.1:11211\"", "cache.backend"),
        (
            "[cache]\ncomposite = [\"127.0.0.1:11411\"]\nbackend = \"127.0.0.1:11411\"",
            "cache.backend",
        ),
        ("[cache]\ncomposite = [\"127.0.0.1:11211\"]", "cache.composite"),
        ("[cache]\nsync_prefixes = [\"\"]", "cache.sync_prefixes"),
        ("[push]\nlisten = \"0.0.0.0:8895\"", "push.listen"),
        ("[push]\nmax_connections = 0", "push.max_connections"),
        ("[db]\nrun = false", "db.run"),
        ("[backup]\nstore = \"backups\"", "backup.store"),
        ("[backup]\nstore = \"s3://b/x\"", "backup.s3_access_key"),
        ("[backup]\nrecipients = [\"ssh-rsa x\"]", "backup.recipients"),
        ("[backup]\ndaily = \"02:30\"", "backup.daily"),
        ("[backup]\nstore = \"/mnt\"\ndaily = \"2:30\"", "backup.daily"),
        ("[backup]\nlog_every = \"5s\"", "backup.log_every"),
        ("[backup]\nkeep_last = 0", "backup.keep_last"),
        ("[cluster]\naddress = \"10.0.0.2\"\n[cache]\nrun = false", "cache.run"),
        ("[db]\ngalera = true", "db.galera"),
        ("[db]\nreads = \"127.0.0.1:3307\"", "db.reads"),
        ("[db]\nreads = \"3307\"", "db.reads"),
        ("[db]\narbiter = [\"10.0.0.1\", \"10.0.0.2\"]", "db.arbiter"),
        (
            "[cluster]\naddress = \"10.0.0.3\"\n[storage]\nengine = \"replicated\"\n[db]\nrun = false\narbiter = [\"10.0.0.1\"]",
            "db.arbiter",
        ),
        (
            "[cluster]\naddress = \"10.0.0.2\"\n[storage]\nengine = \"replicated\"\n[db]\ngalera = true\nrun = false",
            "db.galera",
        ),
        ("[storage]\nlisten = \"0.0.0.0:2049\"", "storage.clients"),
        ("[storage]\nmin_copies = 4", "storage.min_copies"),
        ("[cluster]\naddress = \"0.0.0.0\"", "cluster.address"),
        ("[storage]\nengine = \"external\"", "storage.external"),
        ("[storage]\nmount = \"kernel\"", "storage.mount"),
        (
            "[storage]\nengine = \"external\"\nexternal = \"/mnt\"\nmount = \"kernel\"",
            "storage.mount",
        ),
        ("[storage]\nmount = \"fuse\"", "storage.mount"),
        (
            "[storage]\nengine = \"external\"\nexternal = \"nfs://nas/a\"\nmount = \"fuse\"",
            "storage.mount",
        ),
        ("[storage]\nexternal_locks = true", "storage.external_locks"),
        ("[storage]\nmount_point = \"files\"", "storage.mount_point"),
        ("[storage]\nmount_point = \"/var\"", "storage.mount_point"),
        (
            "[storage]\nengine = \"replicated\"\nmount = \"kernel\"\nlisten = \"10.0.0.1:2049\"\nclients = [\"10.1.0.0/16\"]",
            "storage.clients",
        ),
        (
            "[storage]\nengine = \"external\"\nexternal = \"/mnt/a\"\n[portal]\nroot = \"/mnt\"",
            "portal.root",
        ),
    ];

    #[test]
    fn each_rule_names_its_key() {
        for (text, key) in FAULTS {
            let problems = parse(text, std::iter::empty()).expect_err(text);
            assert_eq!(
                problems.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(),
                [*key],
                "{text}"
            );
        }
    }
}
