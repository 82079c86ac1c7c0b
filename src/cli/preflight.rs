//! `preflight`: is this machine fit to be a node? Each check has a result, what was seen, and how to mend it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Format, table};
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::{Config, Engine, Mount};
use crate::db::need;
use crate::host::mount::fuse;
use crate::host::package::Need;
use crate::host::{account, facts, package};
use crate::net::listen;
use crate::{db, php};

/// Below the first a node fails, below the second it is warned: PHP, MariaDB and the cache share the memory.
const MEMORY: (u64, u64) = (1 << 30, 4 << 30);
const DISK: (u64, u64) = (2 << 30, 20 << 30);

#[derive(Debug, Args)]
pub struct Preflight {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Outcome {
    Pass,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    outcome: Outcome,
    id: &'static str,
    seen: String,
    /// Empty when it passed.
    fix: String,
}

impl Check {
    fn new(outcome: Outcome, id: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = if outcome == Outcome::Pass {
            String::new()
        } else {
            fix.into()
        };
        Check {
            outcome,
            id,
            seen: seen.into(),
            fix,
        }
    }
}

impl Preflight {
    pub fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let checks = look(config);
        let has_failed = checks.iter().any(|check| check.outcome == Outcome::Fail);
        let text = match self.output {
            Format::Table => render(&checks),
            Format::Json => serde_json::to_string_pretty(&checks)? + "\n",
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(if has_failed { EXIT_DEGRADED } else { EXIT_OK })
    }
}

/// What would keep a node from running here, and cannot be mended by `init` or `join`.
pub fn failures(config: &Config) -> Vec<String> {
    let failed = look(config).into_iter().filter(|check| check.outcome == Outcome::Fail);
    failed
        .map(|check| format!("{}: {}; {}", check.id, check.seen, check.fix))
        .collect()
}

fn look(config: &Config) -> Vec<Check> {
    let mut checks = vec![
        Check::new(
            if nix::unistd::geteuid().is_root() {
                Outcome::Pass
            } else {
                Outcome::Fail
            },
            "user.root",
            format!("running as uid {}", nix::unistd::geteuid()),
            "run it with sudo",
        ),
        amount("memory", facts::memory(), MEMORY, "give the machine more memory"),
        amount(
            "disk.free",
            free_disk(&config.node.data_dir),
            DISK,
            "free space, or move node.data_dir",
        ),
        package_tool(),
        needed("php", php::find(config).as_deref()),
        user(&config.node.user),
        user(&config.portal.user),
    ];
    checks.extend(database(config));
    if config.storage.mount() == Mount::Fuse {
        checks.push(device());
    }
    if config.storage.mount() != Mount::None {
        checks.push(may_mount(facts::may_mount()));
    }
    // A node that runs already holds its own ports.
    if config.control_socket().exists() && std::os::unix::net::UnixStream::connect(config.control_socket()).is_ok() {
        checks.push(Check::new(Outcome::Pass, "ports", "held by this running node", ""));
        return checks;
    }
    let proxy = config.proxy.http.iter().chain(&config.proxy.https);
    let storage = (config.storage.engine == Engine::Replicated).then_some(&config.storage.listen);
    checks.extend(
        proxy
            .chain([&config.cache.listen, &config.admin.listen])
            .chain((!is_database_there(config)).then_some(&config.db.listen))
            .chain(storage)
            .map(port),
    );
    checks
}

/// The distribution's MariaDB starts by itself when it is installed, and becomes this node's own, or is stopped for it.
fn is_database_there(config: &Config) -> bool {
    config.db.run && facts::has_systemd() && db::find(config).is_some()
}

/// `fail` and `warn` are the least amounts.
fn amount(id: &'static str, bytes: u64, (fail, warn): (u64, u64), fix: &str) -> Check {
    let outcome = match bytes {
        bytes if bytes < fail => Outcome::Fail,
        bytes if bytes < warn => Outcome::Warn,
        _ => Outcome::Pass,
    };
    Check::new(
        outcome,
        id,
        format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        fix,
    )
}

/// Free bytes where the folder is or will be.
fn free_disk(folder: &Path) -> u64 {
    let there = folder
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    nix::sys::statvfs::statvfs(there).map_or(0, |seen| seen.blocks_available() * seen.fragment_size())
}

fn device() -> Check {
    match fuse::device() {
        Ok(_) => Check::new(Outcome::Pass, "fuse", format!("{} can be opened", fuse::DEVICE), ""),
        Err(errno) => {
            let seen = format!("{}: {}", fuse::DEVICE, errno.desc());
            Check::new(Outcome::Fail, "fuse", seen, fuse::remedy(errno))
        }
    }
}

fn may_mount(may: bool) -> Check {
    match may {
        true => Check::new(Outcome::Pass, "mount", "allowed", ""),
        false => Check::new(
            Outcome::Fail,
            "mount",
            "this process lacks CAP_SYS_ADMIN",
            "run it as root; give a container --cap-add SYS_ADMIN, or set storage.mount = \"none\"",
        ),
    }
}

fn package_tool() -> Check {
    match package::family() {
        Some(family) => Check::new(Outcome::Pass, "packages", format!("{family:?} family"), ""),
        None => Check::new(
            Outcome::Warn,
            "packages",
            "neither apt-get nor dnf",
            "install PHP-FPM and MariaDB by hand",
        ),
    }
}

fn needed(id: &'static str, found: Option<&Path>) -> Check {
    match found {
        Some(path) => Check::new(Outcome::Pass, id, path.display().to_string(), ""),
        None => Check::new(Outcome::Warn, id, "not installed", "bitrix-node init installs it"),
    }
}

fn database(config: &Config) -> Vec<Check> {
    let missing = need::missing(config);
    let needs = need::Part::of(config).needs().iter();
    let check = |need: &Need| match missing.contains(need) {
        true => needed(need::program(*need), None),
        false => Check::new(Outcome::Pass, need::program(*need), "installed", ""),
    };
    needs.map(check).collect()
}

fn user(name: &str) -> Check {
    let found = account::find(name);
    match found {
        Ok(Some(account)) => Check::new(Outcome::Pass, "user", format!("{name} is uid {}", account.uid), ""),
        Ok(None) => Check::new(
            Outcome::Warn,
            "user",
            format!("no user {name}"),
            "bitrix-node init makes it",
        ),
        Err(error) => Check::new(Outcome::Fail, "user", error.to_string(), "mend /etc/passwd"),
    }
}

fn port(address: &SocketAddr) -> Check {
    let bound: std::io::Result<TcpListener> = listen::tcp(*address);
    match bound {
        Ok(_) => Check::new(Outcome::Pass, "port", format!("{address} is free"), ""),
        Err(error) => Check::new(
            Outcome::Fail,
            "port",
            format!("{address}: {error}"),
            format!("see who holds it: ss -ltnp sport = :{}", address.port()),
        ),
    }
}

fn render(checks: &[Check]) -> String {
    let mut table = table::new(&["RESULT", "CHECK", "SEEN", "FIX"]);
    for check in checks {
        let outcome = format!("{:?}", check.outcome).to_uppercase();
        table.add_row([outcome, check.id.to_string(), check.seen.clone(), check.fix.clone()]);
    }
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let (passed, warned, failed) = (count(Outcome::Pass), count(Outcome::Warn), count(Outcome::Fail));
    format!(
        "{}{passed} passed, {warned} warned, {failed} failed\n",
        table::text(&table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_fail_warn_pass() {
        let outcome = |bytes| amount("memory", bytes, (10, 20), "more").outcome;
        assert_eq!(
            [outcome(9), outcome(10), outcome(19), outcome(20)].map(|o| format!("{o:?}")),
            ["Fail", "Warn", "Warn", "Pass"]
        );
    }

    #[test]
    fn who_may_not_mount_is_told_what_to_do() {
        let check = may_mount(false);
        assert!(check.outcome == Outcome::Fail && check.fix.contains("--cap-add SYS_ADMIN"));
        assert_eq!(may_mount(facts::may_mount()).outcome, {
            // Of the tests' own process, told by what the kernel lets it do.
            let may = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).is_ok();
            if may { Outcome::Pass } else { Outcome::Fail }
        });
    }

    #[test]
    fn taken_port_fails_with_a_remedy() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("bound");
        let check = port(&holder.local_addr().expect("address"));
        assert_eq!(check.outcome, Outcome::Fail);
        assert!(check.fix.contains("ss -ltnp"));
    }
}
