//! PHP-FPM's configuration. Pure.

use std::ffi::OsString;
use std::path::Path;

use crate::base::template::{self, Error, render as fill};
use crate::config::Config;

const GLOBAL: &str = include_str!("../../assets/templates/fpm-global.conf");
const POOL: &str = include_str!("../../assets/templates/fpm-pool.conf");
const INI: &str = include_str!("../../assets/templates/php.ini");

/// What a busy PHP process of a portal takes, shared pages aside.
const MEMORY_PER_CHILD: u64 = 96 << 20;
/// A page view opens a handful of parallel requests; with fewer children they wait for one another.
const FEWEST_CHILDREN: usize = 4;
/// Waiting for the database, a child needs no processor; beyond this many per processor they only queue in the kernel.
const MOST_CHILDREN_PER_PROCESSOR: usize = 32;
/// Bytes per second of the slowest upload that must get through whole.
const SLOWEST_UPLOAD: u64 = 512 << 10;

/// Which file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole file for a master process of our own (`--nodaemonize --fpm-config FILE`).
    Whole,
    /// The pool alone, to lie in the distribution's `pool.d`.
    Pool,
}

/// What the pool depends on.
pub struct PoolFacts<'a> {
    pub config: &'a Config,
    /// This node's name; scripts see it as `BITRIX_NODE`.
    pub node: &'a str,
    pub children: usize,
    pub form: Form,
}

/// How many PHP processes: as configured, else half of the memory's worth, within reason for the processors.
pub fn children(config: &Config, memory_bytes: u64, processors: usize) -> usize {
    if config.php.children > 0 {
        return config.php.children;
    }
    let fitting = usize::try_from(memory_bytes / 2 / MEMORY_PER_CHILD).unwrap_or(usize::MAX);
    let most = processors.saturating_mul(MOST_CHILDREN_PER_PROCESSOR);
    fitting.min(most).max(FEWEST_CHILDREN)
}

/// How many connections the front may keep open: always fewer than `children`, since each one occupies a child.
pub fn kept(config: &Config, children: usize) -> usize {
    let wanted = match config.php.kept_connections {
        0 => children / 2,
        configured => configured,
    };
    wanted.min(children.saturating_sub(1))
}

/// Longest life of one request in seconds: what the largest body takes on a slow line, and then its execution.
/// FPM counts an idle kept connection as a request too, so the front must close those earlier.
pub fn terminate_timeout(config: &Config) -> u64 {
    let upload = config.proxy.max_body_size.0 / SLOWEST_UPLOAD;
    config.php.max_execution_time.0.as_secs().max(1).saturating_add(upload)
}

/// The configuration file.
pub fn render(facts: &PoolFacts) -> Result<String, Error> {
    let config = facts.config;
    let children = facts.children.max(1);
    let spare = children.div_ceil(4);
    let socket = config.php_socket();
    let temporary = config.portal_temporary();
    let pool = fill(
        POOL,
        &[
            ("user", &config.portal.user),
            ("front_user", &config.node.user),
            ("socket", template::path(&socket)?),
            ("temporary", template::path(&temporary)?),
            ("node", template::path(Path::new(facts.node))?),
            ("children", &children.to_string()),
            ("spare", &spare.to_string()),
            ("spare_most", &(spare * 2).min(children).to_string()),
            ("terminate_timeout", &terminate_timeout(config).to_string()),
            ("body_size", &config.proxy.max_body_size.0.to_string()),
            ("memory_limit", &config.php.memory_limit.0.to_string()),
            (
                "execution_time",
                &config.php.max_execution_time.0.as_secs().max(1).to_string(),
            ),
            ("cache", &config.cache.listen.to_string()),
        ],
    )?;
    Ok(match facts.form {
        Form::Whole => format!("{GLOBAL}{pool}"),
        Form::Pool => pool,
    })
}

/// Settings that PHP reads before it makes its pools, for the distribution's `conf.d`.
pub fn ini(memory_bytes: u64) -> String {
    // A portal's scripts compile to about 150 MiB; a small machine gives a sixteenth.
    let opcache = (memory_bytes / (16 << 20)).clamp(64, 256);
    fill(INI, &[("opcache", &opcache.to_string())]).expect("one place, one number; a test renders it")
}

/// Arguments of a master process of our own: foreground, our file, and `ini` as definitions.
pub fn arguments(file: &Path, memory_bytes: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--nodaemonize".into(), "--fpm-config".into(), file.into()];
    let ini = ini(memory_bytes);
    for line in ini.lines().filter(|line| !line.starts_with(';')) {
        arguments.push("-d".into());
        arguments.push(line.replace(" = ", "=").into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const GIB: u64 = 1 << 30;

    fn config(text: &str) -> Config {
        parse(text, std::iter::empty()).expect("valid").config
    }

    #[test]
    fn children_follow_memory_and_processors() {
        let automatic = config("");
        for (memory, processors, expected) in [(GIB / 2, 1, 4), (2 * GIB, 2, 10), (8 * GIB, 4, 42), (64 * GIB, 4, 128)]
        {
            assert_eq!(
                children(&automatic, memory, processors),
                expected,
                "{memory} {processors}"
            );
        }
        assert_eq!(children(&config("[php]\nchildren = 7"), 64 * GIB, 64), 7);
    }

    #[test]
    fn kept_connections_leave_a_child_free() {
        for children in 1..50 {
            for wanted in [0, 1, 5, 49, 1000] {
                let mut config = config("");
                config.php.kept_connections = wanted;
                assert!(kept(&config, children) < children, "{wanted} of {children}");
            }
        }
        assert_eq!(kept(&config(""), 10), 5);
        assert_eq!(kept(&config(""), 0), 0);
    }

    #[test]
    fn largest_body_on_a_slow_line_is_in_time() {
        assert_eq!(terminate_timeout(&config("")), 300 + 2048);
        assert_eq!(terminate_timeout(&config("[proxy]\nmax_body_size = \"1MiB\"")), 302);
    }

    #[test]
    fn name_of_the_node_cannot_bring_settings() {
        let config = config("");
        for node in ["a\nlisten.mode = 0666", "a b", "$PATH", ""] {
            let facts = PoolFacts {
                config: &config,
                node,
                children: 4,
                form: Form::Pool,
            };
            assert!(render(&facts).is_err(), "{node}");
        }
    }

    #[test]
    fn pool_alone_has_no_global_part() {
        let config = config("");
        let of = |form| {
            let facts = PoolFacts {
                config: &config,
                node: "n1",
                children: 8,
                form,
            };
            render(&facts).expect("rendered")
        };
        assert!(!of(Form::Pool).contains("[global]"));
        assert!(of(Form::Whole).ends_with(&of(Form::Pool)));
    }

    /// The real PHP-FPM reads what we write, for the smallest and a large pool.
    #[tokio::test]
    async fn php_fpm_accepts_the_file() {
        use crate::host::command::Program;
        let folder = tempfile::tempdir().expect("temp dir");
        let text = format!(
            "[node]\nrun_dir = \"{0}\"\ndata_dir = \"{0}\"\nuser = \"root\"\n[portal]\nuser = \"www-data\"",
            folder.path().display()
        );
        let config = config(&text);
        let binary = super::super::find(&config).expect("PHP-FPM is installed");
        std::fs::create_dir(folder.path().join("php")).expect("made");
        for children in [1, 2, 3, 64] {
            let facts = PoolFacts {
                config: &config,
                node: "n1.example",
                children,
                form: Form::Whole,
            };
            let file = folder.path().join("fpm.conf");
            std::fs::write(&file, render(&facts).expect("rendered")).expect("written");
            let told = Program::new(&binary)
                .arg("--test")
                .args(arguments(&file, GIB))
                .check(std::time::Duration::from_secs(30))
                .await;
            told.expect("PHP-FPM takes its file");
        }
    }
}
