//! `storage`: the files that nodes share, seen and changed by their operator. All but `status` is for root.

mod archive;
mod connection;
mod members;
mod mount;
mod rescue;
mod scrub;
mod status;

use std::path::PathBuf;

use clap::Subcommand;

use super::{Format, require_root};
use crate::base::error::EXIT_OK;
use crate::config::Config;
pub use archive::Session;
use connection::Connection;
pub use mount::{let_go, require_files};
pub use status::replica as report;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copies, members, who leads, log and disk; and how this node sees the files
    Status {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Take a node into the group; it learns first and votes when it has everything
    Add {
        /// The node's name, as in its certificate
        node: String,
        /// IP address of the node, or ADDRESS:PORT of its storage
        address: String,
        /// It votes and keeps the log, but holds no files
        #[arg(long)]
        witness: bool,
    },
    /// Let a node go; its copy no longer counts
    Remove { node: String },
    /// Go on with this node's copy alone: all other members are lost for good
    #[command(visible_alias = "promote")]
    Recover {
        /// Every other member, by name
        #[arg(long, value_name = "NODE", value_delimiter = ',', required = true)]
        i_have_lost: Vec<String>,
        /// This copy was not in sync, or more were than storage.copies: give up what was acknowledged without it
        #[arg(long)]
        accept_loss: bool,
    },
    /// Compare this node's contents with the other copies, and mend what the majority says is wrong
    Scrub,
    /// Put a tar archive into the files
    Import {
        /// The archive, .tar or .tar.gz; - for standard input
        archive: PathBuf,
        /// Folder of the portal's tree to put it into
        #[arg(long, default_value = "/")]
        into: PathBuf,
    },
    /// Write the files as a tar archive
    Export {
        /// The archive, .tar or .tar.gz; - for standard output
        archive: PathBuf,
        /// Folder of the portal's tree
        #[arg(long, default_value = "/")]
        from: PathBuf,
    },
    /// Mount the portal's files on this node by the kernel's NFSv3 client
    ///
    /// A running node does it by itself, with storage.mount = "kernel"; with "fuse" the node alone can.
    Mount {
        /// Folder, absent or empty [default: storage.mount_point]
        #[arg(long, value_name = "PATH")]
        at: Option<PathBuf>,
    },
    /// Let go of the mount at once, even when its server is gone
    Umount {
        /// Folder [default: storage.mount_point]
        #[arg(long, value_name = "PATH")]
        at: Option<PathBuf>,
    },
    /// Show the replica's files read-only over NFSv3, on loopback only
    ///
    /// For a cluster without a majority, and for looking into a backup. The server behind it is not made to face
    /// a network: addresses other than IPv4 loopback are refused. It shows the mirror `tree/` as it is on this
    /// disk, which may be older than what the cluster acknowledged; owners and times are those of this host's files.
    RescueExport(rescue::Export),
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    match verb {
        Verb::Status { output } => return status::show(&config, output).await,
        Verb::RescueExport(export) => export.perform(&config).await?,
        Verb::Add { node, address, witness } => {
            require_root()?;
            members::add(&config, node, &address, witness).await?;
        }
        Verb::Remove { node } => {
            require_root()?;
            members::remove(&config, node).await?;
        }
        Verb::Recover {
            i_have_lost,
            accept_loss,
        } => {
            require_root()?;
            members::recover(&config, i_have_lost, accept_loss).await?;
        }
        Verb::Mount { at } => {
            require_root()?;
            mount::mount(&config, at).await?;
        }
        Verb::Umount { at } => {
            require_root()?;
            mount::umount(&config, at).await?;
        }
        Verb::Scrub => {
            require_root()?;
            return scrub::scrub(&config).await;
        }
        Verb::Import { archive, into } => {
            require_root()?;
            archive::import(&config, &archive, &into).await?;
        }
        Verb::Export { archive, from } => {
            require_root()?;
            archive::export(&config, &archive, &from).await?;
        }
    }
    Ok(EXIT_OK)
}
