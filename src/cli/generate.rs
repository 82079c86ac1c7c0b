//! What is made from the command tree: version, completions, man pages.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::{Cli, Format};
use crate::base::error::EXIT_OK;

pub fn version(output: Format) -> anyhow::Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let text = match output {
        Format::Table => format!("bitrix-node {version}\n"),
        Format::Json => serde_json::json!({ "name": "bitrix-node", "version": version }).to_string() + "\n",
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(EXIT_OK)
}

pub fn completion(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bitrix-node", &mut script);
    io::stdout().write_all(&script)?;
    Ok(EXIT_OK)
}

pub fn man(folder: &Path) -> anyhow::Result<u8> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| folder.display().to_string())?;
    Ok(EXIT_OK)
}
