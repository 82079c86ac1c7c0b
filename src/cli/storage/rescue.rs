//! `storage rescue-export`: the files of this node's replica, read-only, over NFS on loopback, whether the storage runs or not.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::base::Scope;
use crate::config::Config;
use crate::storage::rescue::Rescue;

/// How long reads under way have to end.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Export {
    /// Folder to show [default: the mirror of this node's replica]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where to listen: an IPv4 address of loopback
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2050")]
    listen: SocketAddr,
}

impl Export {
    /// Until Ctrl-C.
    pub async fn perform(self, config: &Config) -> anyhow::Result<()> {
        let folder = self.folder.unwrap_or_else(|| config.storage().join("state/tree"));
        let rescue = Rescue::bind(&folder, self.listen).await;
        let rescue = rescue.with_context(|| format!("show {} at {}", folder.display(), self.listen))?;
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
        Ok(())
    }
}
