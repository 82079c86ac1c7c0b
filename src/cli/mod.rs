//! The command line: one variant per verb, each verb in a file of its own. The only layer that prints.
//!
//! Exit codes: 0 well, 1 degraded or the command failed, 2 down or a wrong command line.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cache;
mod client;
mod config;
mod demo;
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
mod registry;
mod remove;
mod role;
mod roll;
mod seats;
mod settle;
mod status;
mod storage;
mod table;
mod token;
mod tree;
mod uninstall;
mod upgrade;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::base::error::{EXIT_DEGRADED, EXIT_DOWN, EXIT_OK, chain};
use crate::config::{self as settings, DEFAULT_PATH, Loaded};
use crate::host::{address, mount};
use crate::node as supervisor;

pub use tree::{Cli, Format};
use tree::{Verb, period};

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
    match perform(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::from(EXIT_OK),
        Err(error) => {
            eprintln!("bitrix-node: {}", chain(error.as_ref()));
            ExitCode::from(EXIT_DEGRADED)
        }
    }
}

fn perform(cli: Cli) -> anyhow::Result<u8> {
    let path = cli.config;
    match cli.verb {
        Verb::Init(init) => block_on(init.perform(load(&path)?, &path)),
        Verb::Join(join) => block_on(join.perform(load(&path)?, &path)),
        Verb::Token(verb) => block_on(token::perform(verb, load(&path)?.config)),
        Verb::Uninstall(uninstall) => block_on(uninstall.perform(load(&path)?.config, &path)),
        Verb::Run => supervisor::run(load(&path)?, &std::path::absolute(&path)?).map(|()| EXIT_OK),
        Verb::Status(show) => block_on(show.perform(load(&path)?.config)),
        Verb::Doctor(doctor) => block_on(doctor.perform(load(&path)?.config)),
        Verb::Logs(logs) => block_on(logs.perform(load(&path)?.config)),
        Verb::Config(verb) => config::perform(&verb, &path),
        Verb::Portal(verb) => block_on(portal::perform(verb, load(&path)?.config)),
        Verb::Storage(verb) => block_on(storage::perform(verb, load(&path)?.config)),
        Verb::Node(node::Verb::Remove(remove)) => block_on(remove.perform(load(&path)?.config)),
        Verb::Node(node::Verb::Member(verb)) => block_on(member::perform(verb, load(&path)?.config)),
        Verb::Node(verb) => node::perform(&verb, &load(&path)?.config),
        Verb::Cache(verb) => block_on(cache::perform(verb, load(&path)?.config)),
        Verb::Role(verb) => block_on(role::perform(verb, load(&path)?.config)),
        Verb::Events(events) => block_on(events.perform(load(&path)?.config)),
        Verb::Registry(verb) => block_on(registry::perform(verb, load(&path)?.config)),
        Verb::Preflight(preflight) => preflight.perform(&load(&path)?.config),
        Verb::Demo(demo) => block_on(demo.perform()),
        Verb::Upgrade(verb) => block_on(upgrade::perform(verb, load(&path)?.config, &path)),
        Verb::Version { output } => generate::version(output),
        Verb::Completion { shell } => generate::completion(shell),
        Verb::Man { folder } => generate::man(&folder),
        Verb::Module { name } => supervisor::module::run(&name, &path).map(|()| EXIT_OK),
        Verb::UpgradeProbe => {
            load(&path)?;
            println!("{}", supervisor::upgrade::introduce());
            Ok(EXIT_OK)
        }
        Verb::UpgradeGuard { order } => {
            let config = load(&path)?.config;
            block_on(supervisor::upgrade::watch(&order, &config, &path)).map(|()| EXIT_OK)
        }
        Verb::Memcached(flags) => flags.perform(),
        Verb::MountWorker { order } => {
            println!("{}", mount::serve(&order)?);
            Ok(EXIT_OK)
        }
        Verb::CronWorker { order } => supervisor::verbs::guard::serve(&order),
        Verb::AddressWorker { order } => {
            println!("{}", address::probe::serve(&order)?);
            Ok(EXIT_OK)
        }
    }
}

/// A file that was named must be there; without the default one the defaults hold.
fn load(path: &Path) -> anyhow::Result<Loaded> {
    settings::load(path, path != Path::new(DEFAULT_PATH)).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        anyhow::anyhow!("the configuration {} has mistakes:{}", path.display(), lines.concat())
    })
}

/// One thread is enough for a command.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
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
