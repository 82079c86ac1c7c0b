//! PHP-FPM on this machine: which executable, how many processes, and its configuration; and PHP for jobs.
//! Starting and watching it is the supervisor's.

pub mod cli;
pub mod pool;
#[cfg(test)]
mod pool_tests;

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::host::command;

/// Debian and Ubuntu name the executable by version; RHEL has one without. Newest first.
const NAMES: [&str; 8] = [
    "php-fpm8.5",
    "php-fpm8.4",
    "php-fpm8.3",
    "php-fpm8.2",
    "php-fpm8.1",
    "php-fpm8.0",
    "php-fpm7.4",
    "php-fpm",
];

/// The executable that the configuration names, else the newest that is installed.
pub fn find(config: &Config) -> Option<PathBuf> {
    if config.php.binary.as_os_str().is_empty() {
        NAMES.iter().find_map(|name| command::find(name))
    } else {
        Some(config.php.binary.clone()).filter(|path| path.is_file())
    }
}

/// Where the distribution's unit looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub unit: String,
    /// For `pool::render` with `Form::Pool`.
    pub pools: PathBuf,
    /// For `pool::ini`.
    pub ini: PathBuf,
}

impl Places {
    /// From the executable's name: `php-fpm8.2` is Debian's, `php-fpm` is RHEL's. Pure.
    pub fn of(binary: &Path) -> Self {
        let name = binary.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.strip_prefix("php-fpm") {
            Some(version) if !version.is_empty() => Places {
                unit: format!("php{version}-fpm.service"),
                pools: format!("/etc/php/{version}/fpm/pool.d").into(),
                ini: format!("/etc/php/{version}/fpm/conf.d").into(),
            },
            _ => Places {
                unit: "php-fpm.service".to_string(),
                pools: "/etc/php-fpm.d".into(),
                ini: "/etc/php.d".into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_name_of_the_executable() {
        let debian = Places::of(Path::new("/usr/sbin/php-fpm8.2"));
        assert_eq!(debian.unit, "php8.2-fpm.service");
        assert_eq!(debian.pools, Path::new("/etc/php/8.2/fpm/pool.d"));
        assert_eq!(Places::of(Path::new("/usr/sbin/php-fpm")).unit, "php-fpm.service");
    }

    #[test]
    fn missing_executable_is_not_found() {
        let text = "[php]\nbinary = \"/nonexistent/php-fpm\"";
        let loaded = crate::config::parse(text, std::iter::empty()).expect("valid");
        assert_eq!(find(&loaded.config), None);
    }
}
