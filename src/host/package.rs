//! Packages of the distribution: what the portal needs by the names of its family, and how to install it.

use std::io;
use std::time::Duration;

use super::command::{self, Program};

/// A mirror may be slow.
const INSTALL: Duration = Duration::from_secs(1800);

/// Which package tool this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian, Ubuntu: apt-get.
    Debian,
    /// RHEL, Alma, Rocky, Fedora: dnf.
    RedHat,
}

/// What a node needs from the distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Php,
    /// One of `PHP_EXTENSIONS`.
    PhpExtension(&'static str),
    MariaDb,
    /// The provider by which MariaDB is one of several.
    Galera,
    /// Copies a running server's data folder: to another node, or into a backup.
    MariaBackup,
    /// What that goes through between two nodes.
    Socat,
    /// garbd: a voice without data.
    Arbiter,
}

/// PHP extensions that the portal uses, as `php-fpm -m` names them.
pub const PHP_EXTENSIONS: [&str; 8] = [
    "curl",
    "gd",
    "mbstring",
    "memcache",
    "memcached",
    "mysqli",
    "xml",
    "zip",
];

/// The family of this machine; `None` when neither tool is there.
pub fn family() -> Option<Family> {
    let has = |name: &str| command::find(name).is_some();
    if has("apt-get") {
        Some(Family::Debian)
    } else if has("dnf") {
        Some(Family::RedHat)
    } else {
        None
    }
}

/// The packages that fill these needs, each once.
pub fn names(family: Family, needs: &[Need]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in needs.iter().flat_map(|need| filling(family, *need)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn filling(family: Family, need: Need) -> Vec<String> {
    let one = match (family, need) {
        (_, Need::Php) => "php-fpm",
        (_, Need::MariaDb) => "mariadb-server",
        (_, Need::MariaBackup) => "mariadb-backup",
        (_, Need::Socat) => "socat",
        (Family::Debian, Need::Galera) => "galera-4",
        (Family::Debian, Need::Arbiter) => "galera-arbitrator-4",
        // There the server's part comes by itself, and garbd with the provider.
        (Family::RedHat, Need::Galera) => return ["mariadb-server-galera", "galera"].map(str::to_string).to_vec(),
        (Family::RedHat, Need::Arbiter) => "galera",
        (Family::Debian, Need::PhpExtension("mysqli")) => "php-mysql",
        (Family::RedHat, Need::PhpExtension("mysqli")) => "php-mysqlnd",
        (Family::RedHat, Need::PhpExtension("curl")) => "php-common",
        (Family::RedHat, Need::PhpExtension(name @ ("memcache" | "memcached" | "zip"))) => {
            return vec![format!("php-pecl-{name}")];
        }
        (_, Need::PhpExtension(name)) => return vec![format!("php-{name}")],
    };
    vec![one.to_string()]
}

/// Which needs the installed PHP does not fill yet.
pub async fn missing_extensions(php: &std::path::Path) -> io::Result<Vec<Need>> {
    let modules = Program::new(php).arg("-m").check(Duration::from_secs(20)).await?;
    let has = |name: &str| modules.lines().any(|line| line.trim().eq_ignore_ascii_case(name));
    Ok(PHP_EXTENSIONS
        .into_iter()
        .filter(|name| !has(name))
        .map(Need::PhpExtension)
        .collect())
}

/// Installs packages; those that are there already stay as they are.
pub async fn install(family: Family, packages: &[String]) -> io::Result<()> {
    match family {
        Family::Debian => {
            apt().args(["update", "-qq"]).check(INSTALL).await?;
            apt()
                .args(["install", "-y", "-qq", "--no-install-recommends", "--"])
                .args(packages)
                .check(INSTALL)
                .await
                .map(drop)
        }
        Family::RedHat => {
            let dnf = command::find("dnf").ok_or_else(|| io::Error::other("dnf is not installed"))?;
            Program::new(dnf)
                .args(["install", "-y", "-q", "--"])
                .args(packages)
                .check(INSTALL)
                .await
                .map(drop)
        }
    }
}

fn apt() -> Program {
    Program::new("/usr/bin/apt-get").env("DEBIAN_FRONTEND", "noninteractive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_family() {
        let extensions = ["mysqli", "memcached", "gd"].map(Need::PhpExtension);
        assert_eq!(
            names(Family::Debian, &extensions),
            ["php-mysql", "php-memcached", "php-gd"]
        );
        assert_eq!(
            names(Family::RedHat, &extensions),
            ["php-mysqlnd", "php-pecl-memcached", "php-gd"]
        );
    }

    #[test]
    fn a_package_that_fills_two_needs_is_named_once() {
        let both = [Need::Galera, Need::Arbiter];
        assert_eq!(names(Family::RedHat, &both), ["mariadb-server-galera", "galera"]);
        assert_eq!(names(Family::Debian, &both), ["galera-4", "galera-arbitrator-4"]);
    }
}
