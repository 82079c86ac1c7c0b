//! Where backups are, and what opens them, as the command line and the configuration say it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use crate::backup::s3::{self, S3};
use crate::backup::{Folder, Key, Store};
use crate::config::{BackupStore, Config};
use crate::host::account;

/// Where backups are, and what opens them.
#[derive(Debug, Default, Args)]
pub struct Place {
    /// Folder of the backups, or s3://bucket/folder [default: backup.store]
    #[arg(long, value_name = "DIR|s3://…")]
    pub store: Option<String>,
    /// Key of the backups [default: data_dir/secrets/backup.key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

impl Place {
    pub fn store(&self, config: &Config) -> anyhow::Result<Arc<dyn Store>> {
        let text = self.store.as_ref().unwrap_or(&config.backup.store);
        anyhow::ensure!(
            !text.is_empty(),
            "where are the backups? name their folder with --store, or set backup.store"
        );
        match BackupStore::parse(text).with_context(|| format!("{text} is neither a folder nor s3://bucket/folder"))? {
            BackupStore::Folder(path) => {
                let path = std::path::absolute(path)?;
                let remedy = || format!("{} is no folder; mount the store, or make the folder", path.display());
                anyhow::ensure!(path.is_dir(), remedy());
                Ok(Arc::new(Folder::new(path)))
            }
            BackupStore::Bucket(bucket, folder) => Ok(Arc::new(s3(config, bucket, folder)?)),
        }
    }

    pub fn key_file(&self, config: &Config) -> PathBuf {
        self.key.clone().unwrap_or_else(|| config.backup_key())
    }

    pub fn key(&self, config: &Config) -> anyhow::Result<Key> {
        let file = self.key_file(config);
        Key::read(&file)
            .context("the key of the backups; on a new machine: `bitrix-node backup key import FILE`, or --key FILE")
    }
}

fn s3(config: &Config, bucket: String, folder: String) -> anyhow::Result<S3> {
    let told = &config.backup;
    let file = &told.s3_secret_key_file;
    anyhow::ensure!(
        !told.s3_access_key.is_empty() && !file.as_os_str().is_empty(),
        "a bucket needs backup.s3_access_key and backup.s3_secret_key_file"
    );
    let secret = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(S3 {
        place: s3::Place {
            bucket,
            folder,
            endpoint: told.s3_endpoint.clone(),
            region: told.s3_region.clone(),
            access_key: told.s3_access_key.clone(),
            secret_key: secret.trim().to_owned(),
            authority: Some(told.s3_authority.clone()).filter(|path| !path.as_os_str().is_empty()),
        },
        account: account::require(&config.node.user)?,
        executable: std::env::current_exe().context("path of this executable")?,
    })
}
