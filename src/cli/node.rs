//! `node`: the machines of the cluster.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Subcommand;

use super::{member, remove, require_root};
use crate::base::error::EXIT_OK;
use crate::config::Config;
use crate::net::mesh::trust::Trust;

#[derive(Debug, Subcommand)]
pub enum Verb {
    #[command(flatten)]
    Member(member::Verb),
    /// Sign a new node's certificate; its folder goes to the new node's data_dir as `trust`
    Issue {
        /// The new node's name: 1 to 63 of a-z, 0-9 and -
        node: String,
        /// New folder for its certificate and key
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Let a node go that is drained or dead; its certificate is refused from then on
    Remove(remove::Remove),
}

pub fn perform(verb: &Verb, config: &Config) -> anyhow::Result<u8> {
    require_root()?;
    match verb {
        // `cli::perform` took it.
        Verb::Remove(_) | Verb::Member(_) => {}
        Verb::Issue { node, into } => {
            let trust = Trust::new(config.trust());
            ensure!(
                trust.is_founder(),
                "the authority's key is not here; run this on the node that founded the cluster"
            );
            let name = node.parse().context("the node's name")?;
            trust.issue(&name, &Trust::new(into))?;
            writeln!(
                std::io::stdout(),
                "copy {} to the new node as {}; it is as secret as a password",
                into.display(),
                config.trust().display()
            )?;
        }
    }
    Ok(EXIT_OK)
}
