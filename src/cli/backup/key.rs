//! `backup key`: show, copy out, put in.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Subcommand;

use crate::backup::Key;
use crate::base::error::EXIT_OK;
use crate::config::Config;

const LOSS: &str = "Without the private key no backup can be opened, by nobody. Keep a copy where this portal's machines are not: on \
                    paper, in a safe, with a second person.";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The public half, and where the key is; makes it where there is none
    Show,
    /// Write the private key into a file, or to standard output
    Export {
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Use this key from now on: on a new machine, or to have all nodes seal for the same one
    Import {
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
        /// The backups of the key that is here now cannot be opened any more, unless there is a copy of it
        #[arg(long)]
        replace: bool,
    },
}

pub fn perform(verb: Verb, config: &Config) -> anyhow::Result<u8> {
    let place = config.backup_key();
    let mut out = std::io::stdout();
    match verb {
        Verb::Show => {
            let (key, _) = Key::ensure(&place)?;
            writeln!(
                out,
                "public key: {}\nprivate key: in {}\n{LOSS}",
                key.public(),
                place.display()
            )?;
        }
        Verb::Export { file } if file == Path::new("-") => {
            let (key, _) = Key::ensure(&place)?;
            out.write_all(key.text().as_bytes())?;
        }
        Verb::Export { file } => {
            let (key, _) = Key::ensure(&place)?;
            let file = std::path::absolute(file)?;
            ensure!(!file.exists(), "{} is there already", file.display());
            key.write(&file).with_context(|| file.display().to_string())?;
            writeln!(out, "the private key is in {}\n{LOSS}", file.display())?;
        }
        Verb::Import { file, replace } => {
            let key = match file == Path::new("-") {
                false => Key::read(&file)?,
                true => {
                    let mut text = String::new();
                    std::io::stdin().take(1 << 16).read_to_string(&mut text)?;
                    Key::parse(&text)?
                }
            };
            let is_same = Key::read(&place).is_ok_and(|known| known.public() == key.public());
            ensure!(
                is_same || replace || !place.exists(),
                "{} holds another key; export that one first, and then say --replace",
                place.display()
            );
            key.write(&place).with_context(|| place.display().to_string())?;
            writeln!(out, "backups are sealed for {} now", key.public())?;
        }
    }
    Ok(EXIT_OK)
}
