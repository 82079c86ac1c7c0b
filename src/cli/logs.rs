//! `logs`: from the journal where there is one, else from the node's own log file.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::base::error::EXIT_OK;
use crate::config::Config;
use crate::host::{command, facts};
use crate::node::prepare::{self, DATABASE};

/// How often a followed file is looked at.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct Logs {
    /// Go on with what is logged from now
    #[arg(short, long)]
    follow: bool,
    /// Only lines of one module or daemon, such as proxy or mariadb
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Begin with this many of the last lines
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: usize,
}

impl Logs {
    pub async fn perform(self, config: Config) -> anyhow::Result<u8> {
        let file = config.node_log();
        if !file.exists() && facts::has_systemd() {
            let own = self.module.as_deref() == Some("mariadb") && prepare::is_database_ordered(&config);
            return Err(self.journal(own.then_some(DATABASE)));
        }
        self.file(&file).await?;
        Ok(EXIT_OK)
    }

    /// Becomes journalctl; returns only when that fails.
    /// `own`: the unit that the module is.
    fn journal(&self, own: Option<&str>) -> anyhow::Error {
        let Some(program) = command::find("journalctl") else {
            return anyhow::anyhow!("journalctl is not installed, and there is no log file");
        };
        let mut arguments = vec![
            format!("--unit={}", own.unwrap_or("bitrix-node")),
            format!("--lines={}", self.lines),
        ];
        if self.follow {
            arguments.push("--follow".to_string());
        }
        if let Some(module) = self.module.as_ref().filter(|_| own.is_none()) {
            // The name opens each message.
            arguments.push(format!("--grep=^{module} "));
        }
        command::become_program(&program, &arguments).into()
    }

    async fn file(&self, path: &Path) -> anyhow::Result<()> {
        let mut reader = open(path).await?;
        let mut last = VecDeque::new();
        let mut line = String::new();
        while reader.read_line(&mut line).await? > 0 {
            if self.shows(&line) {
                last.push_back(std::mem::take(&mut line));
                if last.len() > self.lines {
                    last.pop_front();
                }
            }
            line.clear();
        }
        let mut out = std::io::stdout();
        for line in last {
            out.write_all(line.as_bytes())?;
        }
        if self.follow {
            self.go_on(path, reader).await
        } else {
            Ok(())
        }
    }

    async fn go_on(&self, path: &Path, mut reader: BufReader<File>) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        let mut line = String::new();
        loop {
            while reader.read_line(&mut line).await? > 0 {
                // A line that is not whole yet is read on.
                if line.ends_with('\n') {
                    if self.shows(&line) {
                        out.write_all(line.as_bytes())?;
                    }
                    line.clear();
                }
            }
            tokio::time::sleep(LOOK).await;
            // The file was set aside: its successor begins at its first line.
            let there = tokio::fs::metadata(path).await.map(|metadata| metadata.ino()).ok();
            if there.is_some() && there != inode(reader.get_ref()) {
                reader = open(path).await?;
            }
        }
    }

    /// A line is `time LEVEL name text`.
    fn shows(&self, line: &str) -> bool {
        let Some(module) = &self.module else { return true };
        line.split_whitespace().nth(2) == Some(module.as_str())
    }
}

async fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(
        File::open(path).await.with_context(|| path.display().to_string())?,
    ))
}

fn inode(file: &File) -> Option<u64> {
    use std::os::fd::AsFd;
    nix::sys::stat::fstat(file.as_fd()).ok().map(|stat| stat.st_ino)
}
