//! `config check` and `config show`.

use std::io::Write;
use std::path::Path;

use clap::Subcommand;

use super::load;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::{self as settings, DEFAULT_PATH, DEFAULTS, Origin};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Report every mistake with its line and remedy
    Check,
    /// Print the values in force and where each one comes from
    Show {
        /// Print the commented defaults instead
        #[arg(long)]
        default: bool,
    },
}

pub fn perform(verb: &Verb, path: &Path) -> anyhow::Result<u8> {
    match verb {
        Verb::Check => check(path),
        Verb::Show { default: true } => {
            std::io::stdout().write_all(DEFAULTS.as_bytes())?;
            Ok(EXIT_OK)
        }
        Verb::Show { default: false } => show(path),
    }
}

fn check(path: &Path) -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    match settings::load(path, path != Path::new(DEFAULT_PATH)) {
        Ok(_) => {
            writeln!(out, "{}: valid", path.display())?;
            Ok(EXIT_OK)
        }
        Err(problems) => {
            for problem in &problems {
                writeln!(out, "{}: {problem}", path.display())?;
            }
            Ok(EXIT_DEGRADED)
        }
    }
}

fn show(path: &Path) -> anyhow::Result<u8> {
    let loaded = load(path)?;
    let mut out = std::io::stdout().lock();
    let mut section = "";
    for (key, (value, origin)) in &loaded.keys {
        let (in_section, name) = key.split_once('.').unwrap_or(("", key));
        if in_section != section {
            section = in_section;
            writeln!(out, "[{section}]")?;
        }
        match origin {
            Origin::Default => writeln!(out, "{name} = {value}")?,
            origin => writeln!(out, "{name} = {value}  # {origin}")?,
        }
    }
    Ok(EXIT_OK)
}
