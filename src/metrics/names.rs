//! Every metric of bitrix-node: name and help. Counters get `_total` from the encoder. No label comes from user input.

/// A metric's name and what it counts.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    pub name: &'static str,
    pub help: &'static str,
}

const fn name(name: &'static str, help: &'static str) -> Name {
    Name { name, help }
}

pub const PROXY_REQUESTS: Name = name("bitrix_proxy_requests", "Requests answered, by status class and target");
pub const PROXY_REQUEST_SECONDS: Name = name(
    "bitrix_proxy_request_seconds",
    "From the request's header to the end of the answer's header, by target",
);
pub const PROXY_CONNECTIONS: Name = name("bitrix_proxy_connections", "Open client connections");
pub const PROXY_OPENED: Name = name(
    "bitrix_proxy_connections_opened",
    "Client connections that began to speak HTTP, by version",
);
pub const PROXY_RECEIVED: Name = name(
    "bitrix_proxy_requests_received",
    "Requests of clients, by version of HTTP",
);
pub const PROXY_REFUSED: Name = name("bitrix_proxy_refused", "Connections and requests refused, by reason");
pub const PROXY_PANICS: Name = name("bitrix_proxy_panics", "Connection tasks that panicked");
pub const PROXY_LOG_DROPPED: Name = name(
    "bitrix_proxy_log_dropped",
    "Lines of the access log dropped because the disk did not keep up",
);
pub const PROXY_FASTCGI_CONNECTIONS: Name =
    name("bitrix_proxy_fastcgi_connections", "Connections to PHP-FPM, by state");
pub const PROXY_TARGET_REQUESTS: Name = name(
    "bitrix_proxy_target_requests",
    "Attempts to have a request answered by PHP of a node, by node",
);
pub const PROXY_TARGET_FAILURES: Name = name("bitrix_proxy_target_failures", "Attempts that failed, by node");
pub const PROXY_TARGET_EJECTIONS: Name = name(
    "bitrix_proxy_target_ejections",
    "Times that a node was left alone for its failures, by node",
);
pub const PROXY_TARGET_IN_FLIGHT: Name = name(
    "bitrix_proxy_target_in_flight",
    "Requests of this front that PHP of a node works on; of its own node, those of other fronts too",
);
pub const PROXY_REPEATED: Name = name(
    "bitrix_proxy_repeated",
    "Failed requests that were sent to another node, or were not because the budget was spent",
);
pub const PROXY_LIMITED: Name = name(
    "bitrix_proxy_limited",
    "Requests refused because their client sent too many, by limit",
);
pub const PROXY_COMPRESSED: Name = name("bitrix_proxy_compressed", "Answers compressed on their way, by coding");
pub const PROXY_COMPRESSED_BYTES: Name = name(
    "bitrix_proxy_compressed_bytes",
    "Bytes of the answers compressed on their way, before and after, by coding",
);
pub const PROXY_UNCOMPRESSED: Name = name(
    "bitrix_proxy_uncompressed",
    "Answers that went out plain because too many were being compressed",
);
pub const PROXY_EDGE_REQUESTS: Name = name(
    "bitrix_proxy_edge_requests",
    "Requests that could be answered out of what is kept, by whether they were",
);
pub const PROXY_EDGE_SENT_BYTES: Name = name(
    "bitrix_proxy_edge_sent_bytes",
    "Bytes of bodies out of what is kept that were handed to clients",
);
pub const PROXY_EDGE_PURGED: Name = name(
    "bitrix_proxy_edge_purged",
    "Addresses whose answers were removed because an operator said so",
);
pub const PROXY_EDGE_KEPT: Name = name("bitrix_proxy_edge_kept", "Addresses whose answers are kept");
pub const PROXY_EDGE_KEPT_BYTES: Name = name("bitrix_proxy_edge_kept_bytes", "Memory that they take");
pub const PROXY_WAF: Name = name(
    "bitrix_proxy_waf",
    "Requests that the firewall looked at, by what it came to",
);
pub const PROXY_WAF_ANSWERS: Name = name(
    "bitrix_proxy_waf_answers",
    "Answers that the firewall looked at, by what it came to",
);
pub const PROXY_WAF_SECONDS: Name = name(
    "bitrix_proxy_waf_seconds",
    "Time that the firewall took for a request, or for an answer",
);
pub const PROXY_WAF_LOG_DROPPED: Name = name(
    "bitrix_proxy_waf_log_dropped",
    "Lines of the firewall's log dropped because there were too many",
);
pub const CACHE_COMMANDS: Name = name("bitrix_cache_commands", "Commands served, by kind and result");
pub const CACHE_CONNECTIONS: Name = name("bitrix_cache_connections", "Open client connections");
pub const CACHE_ITEMS: Name = name("bitrix_cache_items", "Items held");
pub const CACHE_BYTES: Name = name("bitrix_cache_bytes", "Bytes held, keys and overhead included");
pub const CACHE_EVICTIONS: Name = name(
    "bitrix_cache_evictions",
    "Items removed to make room before they expired",
);
pub const CACHE_RELAYED: Name = name(
    "bitrix_cache_relayed",
    "Open connections to another node's cache, or of other nodes to the one here",
);
pub const CACHE_REFUSED: Name = name(
    "bitrix_cache_refused",
    "Connections turned away because no node had the cache",
);
pub const PUSH_CONNECTIONS: Name = name("bitrix_push_connections", "Clients that listen, by transport");
pub const PUSH_CHANNELS: Name = name("bitrix_push_channels", "Channels and users that clients listen to");
pub const PUSH_PUBLISHED: Name = name("bitrix_push_published", "Messages published, by who did");
pub const PUSH_DELIVERED: Name = name("bitrix_push_delivered", "Messages handed to clients that listened");
pub const PUSH_REFUSED: Name = name("bitrix_push_refused", "Requests and connections refused, by reason");
pub const PUSH_CUT: Name = name("bitrix_push_cut", "Connections that the server ended, by reason");
pub const PUSH_KEPT: Name = name("bitrix_push_kept", "Messages kept for those who come back");
pub const PUSH_KEPT_BYTES: Name = name("bitrix_push_kept_bytes", "Bytes of the messages kept");
pub const DB_RELAYED: Name = name(
    "bitrix_db_relayed",
    "Open connections to another node's database, or of other nodes to the one here",
);
pub const DB_REFUSED: Name = name(
    "bitrix_db_refused",
    "Connections turned away because no node had the database",
);
pub const DB_SESSIONS: Name = name("bitrix_db_sessions", "Sessions with the database begun");
pub const DB_CUT: Name = name(
    "bitrix_db_cut",
    "Sessions cut because their node is not the one that is written to any more",
);
pub const DB_CONNECT_SECONDS: Name = name(
    "bitrix_db_connect_seconds",
    "From a connection on this node to the database that it leads to",
);
pub const DB_READS_RELAYED: Name = name("bitrix_db_reads_relayed", "Open connections of the port for reads");
pub const DB_READS_REFUSED: Name = name(
    "bitrix_db_reads_refused",
    "Connections of the port for reads turned away because no node had the database",
);
pub const DB_READS_SESSIONS: Name = name("bitrix_db_reads_sessions", "Sessions begun by the port for reads");
pub const DB_READS_CUT: Name = name(
    "bitrix_db_reads_cut",
    "Sessions of the port for reads cut because their node has fallen behind",
);
pub const DB_READS_CONNECT_SECONDS: Name = name(
    "bitrix_db_reads_connect_seconds",
    "From a connection on the port for reads to the database that it leads to",
);
pub const NODE_CHILD_UP: Name = name("bitrix_node_child_up", "1 while a module or daemon is ready, by name");
pub const NODE_CHILD_RESTARTS: Name = name(
    "bitrix_node_child_restarts",
    "Restarts since the supervisor started, by name",
);
pub const NODE_BUILD: Name = name("bitrix_node_build", "Always 1; the version is in the label");
pub const MOUNT_MOUNTS: Name = name(
    "bitrix_mount_mounts",
    "Times that the supervisor mounted the portal's files",
);
pub const MOUNT_PROBES: Name = name("bitrix_mount_probes", "Looks at the portal's files, by result");
pub const MOUNT_PROBE_SECONDS: Name = name("bitrix_mount_probe_seconds", "How long the files took to answer");
pub const MOUNT_TOTAL_BYTES: Name = name(
    "bitrix_mount_total_bytes",
    "Size of the file system that the files are on",
);
pub const MOUNT_FREE_BYTES: Name = name("bitrix_mount_free_bytes", "Room on it for users other than root");
