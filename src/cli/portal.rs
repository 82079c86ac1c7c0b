//! `portal install` and `portal settings`: the application on disk, and what it must know of this node.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;

use super::{require_root, storage};
use crate::base::error::EXIT_OK;
use crate::base::file::Access;
use crate::base::secret::Secret;
use crate::config::Config;
use crate::db;
use crate::host::account;
use crate::portal::install::{self, Target};
use crate::portal::settings::{self, Facts, Push, Written};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Put an application into the document root, whole or not at all
    Install {
        /// Folder, or archive: .tar, .tar.gz, .zip
        #[arg(long, value_name = "DIR|ARCHIVE")]
        from: PathBuf,
        /// Move what is there aside
        #[arg(long)]
        replace: bool,
    },
    /// Write .settings.php and dbconn.php, and make the database and its user; the node must be running
    Settings,
}

pub async fn perform(verb: Verb, config: Config) -> anyhow::Result<u8> {
    require_root()?;
    storage::require_files(&config)?;
    let mut out = std::io::stdout();
    match verb {
        Verb::Install { from, replace } => {
            let owner = account::require(&config.portal.user)?;
            let root = config.portal_root();
            let target = Target {
                root: &root,
                owner: (owner.uid, owner.gid),
                replace,
            };
            let summary = install::install(&from, &target, &mut progress)?;
            writeln!(
                out,
                "{} files, {} MiB in {}",
                summary.files,
                summary.bytes >> 20,
                root.display()
            )?;
            if let Some(old) = summary.replaced {
                writeln!(out, "what was there lies in {}", old.display())?;
            }
        }
        Verb::Settings => {
            let written = apply_settings(&config).await?;
            match written.changed.as_slice() {
                [] => writeln!(out, "database and settings are as they should be")?,
                changed => writeln!(out, "written: {}", changed.join(", "))?,
            }
            for kept in written.kept {
                writeln!(out, "kept a file that was not ours: {}", kept.display())?;
            }
        }
    }
    Ok(EXIT_OK)
}

/// Makes sure of the database, its user, and the portal's settings.
pub async fn apply_settings(config: &Config) -> anyhow::Result<Written> {
    anyhow::ensure!(
        config.db.run,
        "the database runs on another node (db.run = false), and the settings lie on the shared files: run this there"
    );
    let root = config.portal_root();
    anyhow::ensure!(
        root.join("index.php").exists() || root.join("bitrix").is_dir(),
        "there is no portal in {}; `bitrix-node portal install` puts one there",
        root.display()
    );
    let owner = account::require(&config.portal.user)?;
    // Root alone reads these; PHP has them in its settings.
    let secret = |name: &str| Secret::ensure(&config.secrets().join(name), Access::owned(0o600, 0, 0));
    let (password, crypto_key) = (secret("database.password")?, secret("portal.crypto-key")?);
    // Which the modules read, too.
    let modules = account::require(&config.node.user)?;
    let push_key = Secret::ensure(&config.push_key(), Access::owned(0o640, 0, modules.gid))?;
    let portal = &config.portal;
    db::create::ensure_database(&config.db_socket(), &portal.database, &portal.database_user, &password)
        .await
        .context("is the node running? start it with: systemctl start bitrix-node")?;
    let temporary = config.portal_temporary();
    let facts = Facts {
        database_address: config.db.listen,
        database: &portal.database,
        database_user: &portal.database_user,
        password: &password,
        cache_address: config.cache.listen,
        crypto_key: &crypto_key,
        push: Some(Push {
            address: config.push.listen,
            key: &push_key,
        }),
        domain: &portal.domain,
        https: config.proxy.http.is_empty(),
        temporary: &temporary,
    };
    settings::write(&root, &facts, (owner.uid, owner.gid))
}

/// One line that rewrites itself, for people only.
fn progress(files: u64, bytes: u64) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        // A terminal that cannot be written is no reason to stop.
        let _ = write!(errors, "\r{files} files, {} MiB ", bytes >> 20);
        let _ = errors.flush();
    }
}
