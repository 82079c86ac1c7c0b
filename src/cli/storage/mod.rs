//! `storage`: the replicated files, seen and changed by their operator. All but `status` is for root.

mod archive;
mod connection;
mod rescue;
mod status;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;

use super::{Format, require_root};
use crate::base::error::EXIT_OK;
use crate::config::Config;
use crate::storage::command::{Command, ask};
use connection::Connection;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copies, members, who leads, log and disk
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
        /// This copy was not in sync: give up what was acknowledged without it
        #[arg(long)]
        accept_loss: bool,
    },
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
            let address = storage_address(&address, &config)?;
            let add = Command::Add {
                name: node.clone(),
                address,
                witness,
            };
            command(&config, &add).await?;
            writeln!(
                std::io::stdout(),
                "{node} is taken in; `bitrix-node storage status` shows when it has everything"
            )?;
        }
        Verb::Remove { node } => {
            require_root()?;
            command(&config, &Command::Remove { name: node.clone() }).await?;
            writeln!(std::io::stdout(), "{node} is no member any more")?;
        }
        Verb::Recover {
            i_have_lost,
            accept_loss,
        } => {
            require_root()?;
            let recover = Command::Recover {
                lost: i_have_lost.clone(),
                accepts_loss: accept_loss,
            };
            command(&config, &recover).await?;
            writeln!(
                std::io::stdout(),
                "this node goes on alone in a moment. Keep {} off until their {} is emptied: together they may still be \
                 a majority of the old group.",
                i_have_lost.join(", "),
                config.storage().display()
            )?;
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

async fn command(config: &Config, command: &Command) -> anyhow::Result<()> {
    let connection = Connection::open(config).await?;
    let done = ask(&connection.caller, command).await;
    connection.close().await;
    done
}

/// Without a port it is the same as here.
fn storage_address(text: &str, config: &Config) -> anyhow::Result<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    let ip = text
        .parse()
        .context("the address must be an IP address, or ADDRESS:PORT")?;
    let port = config.storage_mesh().map(|own| own.port());
    let port = port.context("cluster.address is not set here: this node meets no others")?;
    Ok(SocketAddr::new(ip, port).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn an_address_without_port_gets_the_storages() {
        let text = "[cluster]\naddress = \"10.0.0.1\"\n";
        let config = parse(text, std::iter::empty()).unwrap().config;
        assert_eq!(storage_address("10.0.0.2", &config).unwrap(), "10.0.0.2:7401");
        assert_eq!(storage_address("10.0.0.2:9", &config).unwrap(), "10.0.0.2:9");
        assert_eq!(storage_address("fd00::2", &config).unwrap(), "[fd00::2]:7401");
        assert!(storage_address("node2", &config).is_err());
        let alone = parse("", std::iter::empty()).unwrap().config;
        assert!(storage_address("10.0.0.2", &alone).is_err());
    }
}
