//! PHP on the command line, with the settings and the environment of the pool's scripts. Pure, but for the search.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pool::{self, Form, PoolFacts};
use crate::base::template::Error;
use crate::config::Config;
use crate::host::command;

/// The executable that belongs to PHP-FPM's: `php8.2` to `php-fpm8.2`.
pub fn find(config: &Config) -> Option<PathBuf> {
    let fpm = super::find(config);
    let same = fpm.as_deref().and_then(sibling).and_then(|name| command::find(&name));
    same.or_else(|| command::find("php"))
}

fn sibling(fpm: &Path) -> Option<String> {
    let version = fpm.file_name()?.to_str()?.strip_prefix("php-fpm")?;
    Some(format!("php{version}"))
}

/// How a script is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub environment: Vec<(String, String)>,
    /// Before those of the script.
    pub arguments: Vec<String>,
}

/// As the pool of this node has it, so that both see the same limits, folders and caches.
pub fn settings(config: &Config, node: &str) -> Result<Settings, Error> {
    let facts = PoolFacts {
        config,
        node,
        children: 1,
        form: Form::Pool,
    };
    let pool = pool::render(&facts)?;
    let mut settings = Settings::default();
    for (key, value) in pool.lines().filter_map(|line| line.split_once(" = ")) {
        if let Some(name) = named(key, &["env"]) {
            settings.environment.push((name.to_owned(), value.to_owned()));
        }
        if let Some(name) = named(key, &["php_admin_value", "php_value", "php_admin_flag", "php_flag"]) {
            settings.arguments.extend(["-d".to_owned(), format!("{name}={value}")]);
        }
    }
    Ok(settings)
}

/// `name` of `kind[name]`.
fn named<'a>(key: &'a str, kinds: &[&str]) -> Option<&'a str> {
    let (kind, rest) = key.split_once('[')?;
    rest.strip_suffix(']').filter(|_| kinds.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config() -> Config {
        let text = "[php]\nmemory_limit = \"99MiB\"\n";
        crate::config::parse(text, std::iter::empty()).expect("valid").config
    }

    #[test]
    fn the_executable_is_of_the_same_version() {
        let of = |path: &str| sibling(Path::new(path));
        assert_eq!(of("/usr/sbin/php-fpm8.2").as_deref(), Some("php8.2"));
        assert_eq!(of("/usr/sbin/php-fpm").as_deref(), Some("php"));
        assert_eq!(of("/usr/bin/other"), None);
    }

    /// The real PHP takes what the pool says.
    #[tokio::test]
    async fn scripts_see_what_the_pools_scripts_see() {
        let config = config();
        let settings = settings(&config, "n1").expect("rendered");
        assert!(settings.environment.contains(&("BITRIX_NODE".into(), "n1".into())));
        let code = "echo json_encode(array_map('ini_get', ['memory_limit', 'session.save_path', 'default_charset', 'expose_php']));";
        let told = command::Program::new(find(&config).expect("PHP is installed"))
            .args(&settings.arguments)
            .args(["-r", code])
            .check(Duration::from_secs(30))
            .await
            .expect("it runs");
        let limit = (99 << 20).to_string();
        let expected = [limit.as_str(), "127.0.0.1:11211", "UTF-8", ""];
        let told: Vec<String> = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}"));
        assert_eq!(told, expected);
    }
}
