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

/// The package that fills a need.
pub fn name(family: Family, need: Need) -> String {
    match (family, need) {
        (_, Need::Php) => "php-fpm".to_string(),
        (_, Need::MariaDb) => "mariadb-server".to_string(),
        (Family::Debian, Need::PhpExtension("mysqli")) => "php-mysql".to_string(),
        (Family::RedHat, Need::PhpExtension("mysqli")) => "php-mysqlnd".to_string(),
        (Family::RedHat, Need::PhpExtension("curl")) => "php-common".to_string(),
        (Family::RedHat, Need::PhpExtension(name @ ("memcache" | "memcached" | "zip"))) => format!("php-pecl-{name}"),
        (_, Need::PhpExtension(name)) => format!("php-{name}"),
    }
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
        assert_eq!(name(Family::Debian, Need::PhpExtension("mysqli")), "php-mysql");
        assert_eq!(
            name(Family::RedHat, Need::PhpExtension("memcached")),
            "php-pecl-memcached"
        );
        assert_eq!(name(Family::RedHat, Need::PhpExtension("gd")), "php-gd");
    }
}
