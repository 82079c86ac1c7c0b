//! From a parsed command line to the verb that carries it out.

use std::path::Path;

use super::tree::{Cli, Verb};
use super::{
    backup, cache, cdn, cert, config, db, generate, member, node, portal, push, registry, role, storage, token,
    upgrade, waf,
};
use crate::backup::s3;
use crate::base::error::EXIT_OK;
use crate::config::{self as settings, DEFAULT_PATH, Loaded};
use crate::host::{address, mount};
use crate::node as supervisor;

pub fn perform(cli: Cli) -> anyhow::Result<u8> {
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
        Verb::Waf(verb) => block_on(waf::perform(verb, load(&path)?, &path)),
        Verb::Cert(verb) => block_on(cert::perform(verb, load(&path)?.config)),
        Verb::Db(verb) => block_on(db::perform(verb, load(&path)?.config)),
        Verb::Backup(verb) => block_on(backup::perform(verb, load(&path)?.config, &path)),
        Verb::Cdn(verb) => block_on(cdn::perform(verb, load(&path)?.config)),
        Verb::Push(verb) => block_on(push::perform(verb, load(&path)?.config)),
        Verb::Role(verb) => block_on(role::perform(verb, load(&path)?.config)),
        Verb::Events(events) => block_on(events.perform(load(&path)?.config)),
        Verb::Registry(verb) => block_on(registry::perform(verb, load(&path)?.config)),
        Verb::Preflight(preflight) => preflight.perform(&load(&path)?.config),
        Verb::Sysctl(sysctl) => sysctl.perform(&load(&path)?.config),
        Verb::Demo(demo) => block_on(demo.perform()),
        Verb::Upgrade(verb) => block_on(upgrade::perform(verb, load(&path)?.config, &path)),
        Verb::Version { output } => generate::version(output),
        Verb::Completion { shell } => generate::completion(shell),
        Verb::Man { folder } => generate::man(&folder),
        Verb::Module { name } => supervisor::module::run(&name, &path).map(|()| EXIT_OK),
        Verb::BackupWorker => block_on(backup::tick(load(&path)?.config, &path)),
        Verb::StoreWorker => s3::serve(),
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
pub fn load(path: &Path) -> anyhow::Result<Loaded> {
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
