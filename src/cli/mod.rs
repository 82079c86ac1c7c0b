//! The command line: one variant per verb, each verb in a file of its own. The only layer that prints.
//!
//! Exit codes: 0 well, 1 degraded or the command failed, 2 down or a wrong command line.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod backup;
mod cache;
mod cdn;
mod cert;
mod client;
mod config;
mod db;
mod db_check;
mod db_shell;
mod demo;
mod dispatch;
mod doctor;
mod events;
mod generate;
mod init;
mod join;
mod logs;
mod member;
mod memcached;
mod node;
mod portal;
mod preflight;
mod push;
mod registry;
mod remove;
mod role;
mod roll;
mod seats;
mod settle;
mod status;
mod storage;
mod sysctl;
mod table;
mod token;
mod tree;
mod uninstall;
mod upgrade;
mod waf;

use std::process::ExitCode;

use clap::Parser;

use crate::base::error::{EXIT_DEGRADED, EXIT_DOWN, EXIT_OK, chain};

use dispatch::load;
use tree::period;
pub use tree::{Cli, Format};

/// Parses the command line and carries it out.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(memcached::renamed(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_DOWN));
        }
    };
    match dispatch::perform(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::from(EXIT_OK),
        Err(error) => {
            eprintln!("bitrix-node: {}", chain(error.as_ref()));
            ExitCode::from(EXIT_DEGRADED)
        }
    }
}

/// The reader of our output went away, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Commands that change the machine need root.
fn require_root() -> anyhow::Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "this command needs root; try it with sudo"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_tree_is_sound() {
        Cli::command().debug_assert();
    }
}
