//! `storage rescue-export`: the files of this node's replica, read-only, over NFS on loopback, whether the storage runs or not.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::base::Scope;
use crate::base::error::EXIT_OK;
use crate::config::Config;
use crate::storage::rescue::Rescue;

/// How long reads under way have to end.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the replica's files read-only over NFSv3, on loopback only
    ///
    /// For a cluster without a majority, and for looking into a backup. The server behind it is not made to face
    /// a network: addresses other than IPv4 loopback are refused. It shows the mirror `tree/` as it is on this
    /// disk, which may be older than what the cluster acknowledged; owners and times are those of this host's files.
    RescueExport(RescueExport),
}

#[derive(Debug, Args)]
pub struct RescueExport {
    /// Folder to show [default: the mirror of this node's replica]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where to listen: an IPv4 address of loopback
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2050")]
    listen: SocketAddr,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    let Verb::RescueExport(export) = verb;
    let folder = export.folder.unwrap_or_else(|| config.storage().join("state/tree"));
    let rescue = Rescue::bind(&folder, export.listen).await;
    let rescue = rescue.with_context(|| format!("show {} at {}", folder.display(), export.listen))?;
    let (address, port) = (rescue.address.ip(), rescue.address.port());
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} is shown read-only; Ctrl-C ends it. For example:\n  mount -t nfs -o \
         ro,soft,nolock,vers=3,tcp,port={port},mountport={port} {address}:/ /mnt",
        folder.display()
    )?;
    out.flush()?;
    let scope = Scope::new();
    tokio::select! {
        served = rescue.run(&scope) => served.context("serve")?,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    scope.stop(GRACE).await;
    Ok(EXIT_OK)
}
