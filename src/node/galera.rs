//! MariaDB as a child that is started by order (`db::galera`): what must be on disk for it, and its line in the table. And that of
//! garbd, where a node without data breaks ties.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::signal::Signal;

use super::children::{ChildSpec, Probe, Ready, Run};
use crate::base::BoxFuture;
use crate::base::file::{Access, ensure, ensure_folder};
use crate::config::Config;
use crate::db::galera::ground::Ground;
use crate::db::galera::{Orders, render};
use crate::db::probe;
use crate::host::account::Account;
use crate::host::child::Launch;
use crate::host::command;
use crate::net::listen;
use crate::net::mesh::trust::Trust;

/// Its part of the configuration.
pub fn part(config: &Config) -> anyhow::Result<String> {
    let provider =
        render::provider().context("Galera is not installed: install galera-4 and mariadb-backup (with socat)")?;
    for (program, package) in [("mariadb-backup", "mariadb-backup"), ("socat", "socat")] {
        anyhow::ensure!(
            command::find(program).is_some(),
            "{program} is not installed: a node gets its data from another one by it; install the package {package}"
        );
    }
    let identity = Trust::new(config.trust())
        .identity()
        .context("this node's certificate")?;
    let address: IpAddr = config.cluster.address.parse().context("cluster.address")?;
    let facts = render::Facts {
        config,
        provider: &provider,
        cluster: identity.cluster.as_str(),
        node: identity.node.as_str(),
        address,
    };
    Ok(render::render(&facts)?)
}

/// Its line.
pub fn spec(config: &Config, binary: &Path, defaults: &Path, account: Account) -> anyhow::Result<ChildSpec> {
    trust(config, &account)?;
    let launch = Launch {
        program: binary.to_path_buf(),
        arguments: vec![format!("--defaults-file={}", defaults.display()).into()],
        environment: Vec::new(),
        account: Some(account.clone()),
        sockets: Vec::new(),
        // A clean end: it holds data, and the others go on at once.
        when_orphaned: Signal::SIGTERM,
    };
    let ground = Ground {
        config: Arc::new(config.clone()),
        binary: binary.to_path_buf(),
        defaults: defaults.to_path_buf(),
        account,
    };
    let (socket, status) = (config.db_socket(), config.db_galera_status());
    let probe: Probe = Arc::new(move || {
        let (socket, status) = (socket.clone(), status.clone());
        Box::pin(async move { probe::serves(&socket, &status).await }) as BoxFuture<'static, io::Result<()>>
    });
    Ok(ChildSpec {
        name: "mariadb",
        run: Run::Program(launch),
        ready: Ready::Answers(probe),
        stop: Signal::SIGTERM,
        reload: None,
        needs_files: false,
        overlaps: false,
        orders: Some(Arc::new(Orders::new(ground))),
    })
}

/// The line of garbd on a node that breaks ties. It is one of our own users' programs: the modules' trust is its.
pub fn arbiter(config: &Config, user: &Account) -> anyhow::Result<ChildSpec> {
    let program = command::find("garbd").context("garbd is not installed: install galera-arbitrator-4")?;
    let trust = Trust::new(config.trust());
    let identity = trust.identity().context("this node's certificate")?;
    let address: IpAddr = config.cluster.address.parse().context("cluster.address")?;
    let facts = render::Facts {
        config,
        provider: &program,
        cluster: identity.cluster.as_str(),
        node: identity.node.as_str(),
        address,
    };
    let work = config.node.run_dir.join("garbd");
    ensure_folder(&work, Access::owned(0o700, user.uid, user.gid)).with_context(|| work.display().to_string())?;
    let arguments = render::arbiter(&facts, &config.trust(), &work)?;
    let port = SocketAddr::new(address, render::PORTS[0]);
    let probe: Probe = Arc::new(move || {
        Box::pin(async move {
            match listen::is_taken(port)? {
                true => Ok(()),
                false => Err(io::Error::other("it does not listen yet")),
            }
        })
    });
    Ok(ChildSpec {
        name: "garbd",
        run: Run::Program(Launch {
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            account: Some(user.clone()),
            sockets: Vec::new(),
            when_orphaned: Signal::SIGTERM,
        }),
        ready: Ready::Answers(probe),
        stop: Signal::SIGTERM,
        reload: None,
        needs_files: false,
        overlaps: false,
        orders: None,
    })
}

/// The certificates once more, for MariaDB's user alone: those of the modules it cannot read.
pub fn trust(config: &Config, account: &Account) -> anyhow::Result<()> {
    let (from, to) = (config.trust(), config.db_trust());
    ensure_folder(&to, Access::owned(0o750, 0, account.gid)).with_context(|| to.display().to_string())?;
    for name in render::FILES {
        let bytes = fs::read(from.join(name)).with_context(|| name.to_owned())?;
        ensure(&to.join(name), &bytes, Access::owned(0o640, 0, account.gid)).with_context(|| name.to_owned())?;
    }
    Ok(())
}
