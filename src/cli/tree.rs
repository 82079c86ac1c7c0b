//! The command tree, from which help, completions and man pages are made.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::{
    backup, cache, cdn, cert, config, db, demo, doctor, events, init, join, logs, memcached, node, portal, preflight,
    push, registry, role, status, storage, sysctl, token, uninstall, upgrade, waf,
};
use crate::config::{DEFAULT_PATH, Period};

/// Turns bare Linux machines into a Bitrix24 portal.
#[derive(Debug, Parser)]
#[command(
    name = "bitrix-node",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Prepare this machine: packages, users, folders, secrets
    Init(init::Init),
    /// Make this machine a node of a cluster
    Join(join::Join),
    /// The right to join
    #[command(subcommand)]
    Token(token::Verb),
    /// Be the node, in the foreground; systemd runs this
    Run,
    /// Verdict first, then one line per node; --services: per module and daemon of this one
    Status(status::Show),
    /// What is wrong, what shows it, and what to do
    Doctor(doctor::Doctor),
    /// What the node and its children logged
    Logs(logs::Logs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Verb),
    /// The application on disk
    #[command(subcommand)]
    Portal(portal::Verb),
    /// The files that nodes share
    #[command(subcommand)]
    Storage(storage::Verb),
    /// The machines of the cluster
    #[command(subcommand)]
    Node(node::Verb),
    /// The portal's cache on all nodes
    #[command(subcommand)]
    Cache(cache::Verb),
    /// The web application firewall of this node
    #[command(subcommand)]
    Waf(waf::Verb),
    /// The portal's certificates on all nodes
    #[command(subcommand)]
    Cert(cert::Verb),
    /// The databases of a Galera cluster
    #[command(subcommand)]
    Db(db::Verb),
    /// Copies of the portal in another place, and the way back from them
    #[command(subcommand)]
    Backup(backup::Verb),
    /// What the fronts of all nodes keep of answers
    #[command(subcommand)]
    Cdn(cdn::Verb),
    /// The push server of this node
    #[command(subcommand)]
    Push(push::Verb),
    /// The exclusive roles: who holds them, and who shall
    #[command(subcommand)]
    Role(role::Verb),
    /// What happened in the cluster
    Events(events::Events),
    /// The shared facts of the cluster
    #[command(subcommand)]
    Registry(registry::Verb),
    /// Is this machine fit to be a node?
    Preflight(preflight::Preflight),
    /// Tell the kernel what many short connections need; a node does so when it starts
    Sysctl(sysctl::Sysctl),
    /// Leave the cluster and undo what init or join did; data stays
    Uninstall(uninstall::Uninstall),
    /// Run a whole demo portal in the foreground, and leave nothing behind
    Demo(demo::Demo),
    /// Another version in the place of this one
    #[command(subcommand)]
    Upgrade(upgrade::Verb),
    /// Version of this executable
    Version {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Completions for a shell, on standard output
    Completion { shell: clap_complete::Shell },
    /// Man pages of all commands, into a folder
    Man { folder: PathBuf },
    #[command(hide = true)]
    Module { name: String },
    #[command(hide = true)]
    Memcached(memcached::Memcached),
    #[command(hide = true)]
    MountWorker { order: String },
    #[command(hide = true)]
    AddressWorker { order: String },
    #[command(hide = true)]
    CronWorker { order: String },
    #[command(hide = true)]
    BackupWorker,
    #[command(hide = true)]
    StoreWorker,
    #[command(hide = true)]
    UpgradeProbe,
    #[command(hide = true)]
    UpgradeGuard { order: String },
}

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// A time on the command line.
pub fn period(text: &str) -> Result<Period, String> {
    Period::parse(text).ok_or_else(|| "write it like \"30s\"".to_string())
}
