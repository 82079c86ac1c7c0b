//! bitrix-node: one executable that turns bare Linux machines into a Bitrix24 portal.
//!
//! # Processes
//!
//! ```text
//! bitrix-node run            supervisor: root, binds all sockets once, reads nothing from the network
//!   ├─ module agent          registry, roles, joins, status, doors        ┐ this executable again, as the user
//!   ├─ module cache          memcached protocols, or the way to them      │ "bitrix-node", sockets handed down
//!   ├─ module db             the way between PHP and MariaDB              │
//!   ├─ module proxy          HTTP/TLS front: files, FastCGI, other fronts │
//!   ├─ module push           messages to browsers, and who is online      ┘
//!   ├─ module storage        a replica of the files behind FUSE and NFSv3, where the configuration asks for it
//!   ├─ php-fpm               children, or units where systemd runs
//!   ├─ mariadbd
//!   ├─ mount-worker          one act on a mount, with a deadline: the supervisor itself touches none
//!   ├─ address-worker        asks the network for a floating address, without rights: the supervisor itself reads nothing of it
//!   └─ cron-worker           guards one run of the portal's jobs, as the portal's user
//! ```
//!
//! # Layers
//!
//! Folders are layers; an import points downward, and siblings do not know each other (`tests/house.rs`).
//!
//! ```text
//! base → config, metrics → net → host → registry, cluster, cert → proxy, cache, push, php, db, portal, storage, acme, backup
//!      → agent → node → cli
//! ```
//!
//! What siblings must know of each other goes through `node` as plain values, or over a socket.
//!
//! # Life of a request
//!
//! `net::serve` accepts → `proxy::http` (TLS, HTTP/1 or 2; `proxy::http3` beside it) → `framing` passes only what means one thing → `service`:
//! limits, firewall, route, target (file, PHP here or by `balance` on another node, upstream), headers → `access_log`. Whatever goes wrong is
//! a `proxy::Error` and leaves through `answer`.
//!
//! # Life of a node
//!
//! `cli` → `config::load` → `node::supervise`: the lock of the data folder, leftovers of a killed predecessor, `prepare` (folders, secrets,
//! certificate, configuration of the daemons), sockets, then a `keeper` per child, and `node::mount` where the portal's files are mounted: PHP
//! and the front wait for it. Modules beat each second and report to the
//! agent; `status` asks the agent. Stopping goes from the edge inward (`node::stop`).
//!
//! # Life of a cluster
//!
//! ```text
//! storage (replicated files) ◄─ registry (images, heartbeats) ◄─► agent ─ cluster::Snapshot ─► every module of the node
//!                                                                  │ ▲
//!              agents of other nodes, machines that join ◄─ mesh ─►┘ └─ host::verb ─► supervisor: addresses, jobs, certificates
//! ```
//!
//! `cli::init` founds, `agent::join` takes machines in, `agent::members` lets the storage's group follow. Each agent elects itself
//! (`agent::role`) and acts through the supervisor, which ends what is not said again in time (`node::verbs`). Modules read the
//! snapshot alone (`cluster`); what they meet of each other on other nodes, they meet over `net::mesh`.

pub mod base;
pub mod config;
pub mod host;
pub mod metrics;
pub mod net;

pub mod cert;
pub mod cluster;
pub mod registry;

pub mod acme;
pub mod backup;
pub mod cache;
pub mod db;
pub mod php;
pub mod portal;
pub mod proxy;
pub mod push;
pub mod storage;

pub mod agent;

pub mod node;

pub mod cli;
