//! MariaDB as a child or a unit that is started by order (`db::galera`): what must be on disk for it, and its line in the table. And that
//! of garbd, where a node without data breaks ties.
//!
//! As a unit it is not the distribution's `mariadb.service`: that one is started at boot and by its package, finds its position
//! by itself, and is restarted by systemd after a crash. Here each start is a decision of the cluster. So the unit is a transient one of our
//! own (`host::transient`), and the distribution's is masked while this node is one of a Galera cluster.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure as require};
use nix::sys::signal::Signal;
use tracing::info;

use super::children::{ChildSpec, Probe, Ready, Run, SOON};
use super::{prepare, stop};
use crate::base::BoxFuture;
use crate::base::file::{Access, ensure, ensure_folder};
use crate::config::Config;
use crate::db::galera::ground::Ground;
use crate::db::galera::{Orders, render};
use crate::db::need::Part;
use crate::db::{create, probe};
use crate::host::account::Account;
use crate::host::child::Launch;
use crate::host::transient::Transient;
use crate::host::unit::Unit;
use crate::host::{command, facts};
use crate::net::listen;
use crate::net::mesh::trust::Trust;

/// MariaDB's unit where it is started by order.
pub const UNIT: &str = "bitrix-node-mariadb.service";
/// The distribution's, and where that one has its data.
pub const DISTRIBUTION: &str = "mariadb.service";
const DATA: &str = "/var/lib/mysql";
/// The line of garbd.
pub const ARBITER: &str = "garbd";
/// The distributions' units of garbd, which start at boot, too.
const ARBITERS: [&str; 2] = ["garb.service", "garbd.service"];
/// This node's own.
const NODE: &str = "bitrix-node.service";

/// Whether MariaDB here is a unit that is started by order.
pub fn is_unit(config: &Config) -> bool {
    config.db.run && config.db.galera && prepare::by_units(config)
}

/// Units of the distribution that must not run here. Pure.
fn unwanted(config: &Config) -> Vec<&'static str> {
    match Part::of(config) {
        Part::Member => vec![DISTRIBUTION],
        Part::Arbiter => ARBITERS.to_vec(),
        Part::None | Part::Alone => Vec::new(),
    }
}

/// Sees to it that nothing runs here beside what this configuration has run, now and later.
pub async fn alone(config: &Config) -> anyhow::Result<()> {
    if !facts::has_systemd() {
        return Ok(());
    }
    if !is_unit(config) {
        end_unit().await?;
    }
    for name in unwanted(config) {
        let unit = Unit(name.to_owned());
        let seen = unit.look().await?;
        if seen.is_masked() || !seen.is_known() {
            continue;
        }
        require!(
            !is_left_behind(config, Path::new(DATA)),
            "the portal's data are in {DATA}, where {DISTRIBUTION} has them: set db.data_dir = {DATA:?} to go on with them, or \
             move them away"
        );
        unit.mask().await.with_context(|| format!("mask {name}"))?;
        info!(name, "masked: it is bitrix-node's to start here");
    }
    let is_theirs = Part::of(config) == Part::Alone && prepare::by_units(config);
    if is_theirs {
        unmask(DISTRIBUTION).await?;
    }
    Ok(())
}

/// What `alone` did, undone.
pub async fn leave(config: &Config) -> anyhow::Result<()> {
    end_unit().await?;
    for name in unwanted(config) {
        unmask(name).await?;
    }
    Ok(())
}

async fn unmask(name: &str) -> anyhow::Result<()> {
    let unit = Unit(name.to_owned());
    if unit.look().await?.is_masked() {
        unit.unmask().await.with_context(|| format!("unmask {name}"))?;
    }
    Ok(())
}

async fn end_unit() -> anyhow::Result<()> {
    let ours = Unit(UNIT.to_owned());
    if ours.look().await?.is_there() {
        ours.stop().await.with_context(|| format!("stop {UNIT}"))?;
    }
    Ok(())
}

/// Whether there are a portal's data that this configuration would not use.
fn is_left_behind(config: &Config, folder: &Path) -> bool {
    let own = config.db_data();
    config.db.run && own != folder && !create::is_initialised(&own) && folder.join(&config.portal.database).is_dir()
}

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
    let arguments = vec![format!("--defaults-file={}", defaults.display()).into()];
    let run = match prepare::by_units(config) {
        true => Run::Ordered(Transient {
            unit: Unit(UNIT.to_owned()),
            description: "MariaDB, a node of bitrix-node's Galera cluster",
            program: binary.to_path_buf(),
            arguments,
            account: account.clone(),
            ticket: config.db_ticket(),
            outlives: NODE,
            grace: stop::grace("mariadb"),
        }),
        false => Run::Program(Launch {
            program: binary.to_path_buf(),
            arguments,
            environment: Vec::new(),
            account: Some(account.clone()),
            sockets: Vec::new(),
            // A clean end: it holds data, and the others go on at once.
            when_orphaned: Signal::SIGTERM,
        }),
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
        run,
        ready: Ready::Answers(probe),
        stop: Signal::SIGTERM,
        reload: None,
        needs_files: false,
        overlaps: false,
        orders: Some(Arc::new(Orders::new(ground))),
        pause: SOON,
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
    let launch = Launch {
        program,
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: Vec::new(),
        account: Some(user.clone()),
        sockets: Vec::new(),
        when_orphaned: Signal::SIGTERM,
    };
    Ok(tie_breaker(launch, probe))
}

fn tie_breaker(launch: Launch, probe: Probe) -> ChildSpec {
    ChildSpec {
        name: ARBITER,
        run: Run::Program(launch),
        ready: Ready::Answers(probe),
        stop: Signal::SIGTERM,
        // It reads its certificate at its start alone.
        reload: Some(Signal::SIGTERM),
        needs_files: false,
        overlaps: false,
        orders: None,
        // Else the group still counts the last one.
        pause: render::DROPPED,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::agent::Phase;
    use crate::base::Scope;
    use crate::config::parse;
    use crate::node::keeper::{Keeper, State};
    use crate::node::leftover::Note;
    use crate::node::output::Output;

    #[test]
    fn what_the_distribution_would_start_is_not_wanted_beside_ours() {
        let unwanted = |db: &str| {
            let text = format!("[cluster]\naddress = \"10.0.0.1\"\n[storage]\nengine = \"replicated\"\n[db]\n{db}");
            super::unwanted(&parse(&text, std::iter::empty()).unwrap().config)
        };
        assert_eq!(unwanted("galera = true"), [DISTRIBUTION]);
        assert_eq!(
            unwanted("run = false\narbiter = [\"10.0.0.2\", \"10.0.0.3\"]"),
            ARBITERS
        );
        assert_eq!(
            (unwanted("run = false"), unwanted("run = true")),
            (Vec::new(), Vec::new())
        );
    }

    #[tokio::test]
    async fn an_arbiter_is_started_anew_for_a_new_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let launch = Launch {
            program: "/bin/sleep".into(),
            arguments: vec!["1000".into()],
            environment: Vec::new(),
            account: None,
            sockets: Vec::new(),
            when_orphaned: Signal::SIGKILL,
        };
        let probe: Probe = Arc::new(|| Box::pin(std::future::ready(Ok(()))));
        let spec = ChildSpec {
            pause: SOON,
            ..tie_breaker(launch, probe)
        };
        let (scope, note) = (Scope::new(), Arc::new(Note::new(folder.path())));
        let keeper = Keeper::new(spec, Output::journal(), note, Arc::default(), scope.clone());
        let (mut state, reload, stop) = (keeper.state.subscribe(), keeper.reload.clone(), keeper.stop.clone());
        let kept = scope.spawn(keeper.run(None));
        let ready = |state: &State| state.phase == Phase::Ready;
        let first = state.wait_for(ready).await.unwrap().pid;
        reload.notify_one();
        let next = state.wait_for(|state| ready(state) && state.pid != first);
        let next = tokio::time::timeout(Duration::from_secs(30), next).await;
        assert!(next.expect("it is started anew").unwrap().pid.is_some());
        stop.cancel();
        kept.await.unwrap();
        scope.stop(Duration::ZERO).await;
    }

    #[test]
    fn data_of_before_are_not_left_behind_without_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let (own, theirs) = (folder.path().join("own"), folder.path().join("theirs"));
        let config = |own: &Path| {
            let text = format!("[db]\ndata_dir = {own:?}");
            parse(&text, std::iter::empty()).unwrap().config
        };
        assert!(!is_left_behind(&config(&own), &theirs), "there are none");
        fs::create_dir_all(theirs.join(&config(&own).portal.database)).unwrap();
        assert!(is_left_behind(&config(&own), &theirs));
        assert!(!is_left_behind(&config(&theirs), &theirs), "they are its own");
        fs::create_dir_all(own.join("mysql")).unwrap();
        assert!(!is_left_behind(&config(&own), &theirs), "it has data already");
    }
}
