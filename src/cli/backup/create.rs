//! `backup create`: a full backup. Database first, files after it: a file that a row names was there before the row.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::bar::watched;
use super::{DATABASE, FILES, IDENTITY, Place, REGISTRY, log, size, source, time};
use crate::backup::key::Recipients;
use crate::backup::manifest::{self, Database, Part, Position};
use crate::backup::part::{Meter, pack, sha256};
use crate::backup::{Backup, Key, Kind, Manifest, Store, store};
use crate::base::clock;
use crate::base::error::EXIT_OK;
use crate::base::file::try_lock;
use crate::config::Config;
use crate::db::backup::{aside, binlog, copy, tables};
use crate::host::{account, facts};
use crate::node::prepare;

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    place: Place,
    /// Only the database's changes since the last backup of this node: the way to any moment between (needs backup.log = true)
    #[arg(long)]
    log: bool,
}

/// A backup that is being made.
pub struct Making<'a> {
    pub config: &'a Config,
    pub store: Arc<dyn Store>,
    pub key: Key,
    recipients: Recipients,
    pub backup: Backup,
}

impl Create {
    pub fn scheduled(kind: Kind) -> Self {
        Create {
            place: Place::default(),
            log: kind == Kind::Log,
        }
    }

    /// `stop`: resolves with the reason why it shall not go on.
    pub async fn perform(self, config: &Config, path: &Path, stop: impl Future<Output = String>) -> anyhow::Result<u8> {
        ensure!(
            config.db.run,
            "the database runs on another node (db.run = false); make backups there"
        );
        let lock = try_lock(&config.backup_lock())?;
        let _lock = lock.context("another backup is being made on this node; wait for its end")?;
        let kind = if self.log { Kind::Log } else { Kind::Full };
        let mut making = Making::begin(config, &self.place, kind)?;
        let work = async {
            match kind {
                Kind::Full => making.full(path).await.map(|()| None),
                Kind::Log => log::make(&mut making).await.map(Some),
            }
        };
        let made = tokio::select! {
            made = work => made,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            why = stop => Err(anyhow::anyhow!(why)),
        };
        let done = match made {
            Ok(done) => done,
            Err(error) => {
                // Without a manifest it is none anyway.
                let _ = making.store.remove(&making.backup.id);
                if let Err(error) = aside::back(&config.db_socket(), &config.backup_aside()).await {
                    eprintln!("bitrix-node: the running node will try it again: {error:#}");
                }
                return Err(error.context("no backup was made"));
            }
        };
        making.conclude()?;
        if let Some(done) = done {
            binlog::purge(&config.db_socket(), &done).await?;
        }
        Ok(EXIT_OK)
    }
}

impl<'a> Making<'a> {
    fn begin(config: &'a Config, place: &Place, kind: Kind) -> anyhow::Result<Self> {
        let store = place.store(config)?;
        let file = place.key_file(config);
        let (key, is_new) = Key::ensure(&file)?;
        if is_new {
            eprintln!(
                "made the key of the backups, {}: without it no backup can be opened. Keep a copy where this portal's machines are \
                 not: `bitrix-node backup key export FILE`",
                file.display()
            );
            if !config.cluster.address.is_empty() {
                eprintln!("other nodes that are there already need it, too: `bitrix-node backup key import FILE`");
            }
        }
        let mut keys = vec![key.public()];
        keys.extend(config.backup.recipients.iter().cloned());
        let began = clock::unix_millis();
        let manifest = Manifest::new(kind, &source::cluster(config), &facts::node_name(config), began);
        let id = manifest::id(kind, began);
        ensure!(
            !store.names()?.contains(&id),
            "{id} is there already; try again in a second"
        );
        let recipients = Recipients::parse(keys.iter().map(String::as_str)).context("backup.recipients")?;
        store::claim(store.as_ref(), &id, &manifest.cluster)?;
        Ok(Making {
            config,
            store,
            recipients,
            key,
            backup: Backup { id, manifest },
        })
    }

    /// Packs a stream into the store, on a thread of its own.
    pub fn pack<R: Read + Send + 'static>(
        &self,
        name: &str,
        mut content: R,
        meter: &Meter,
    ) -> impl Future<Output = anyhow::Result<Part>> + use<R> {
        let (store, recipients, meter) = (self.store.clone(), self.recipients.clone(), meter.clone());
        let (id, name) = (self.backup.id.clone(), name.to_owned());
        let work = move || {
            let upload = store.put(&id, &name)?;
            pack(&name, &mut content, upload, &recipients, &meter)
        };
        async move { Ok(tokio::task::spawn_blocking(work).await??) }
    }

    pub fn add(&mut self, part: Part) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        writeln!(out, "{}  {} in {}", part.name, size(part.content), size(part.size))?;
        self.backup.manifest.parts.push(part);
        Ok(())
    }

    async fn full(&mut self, path: &Path) -> anyhow::Result<()> {
        self.database().await.context("the database")?;
        self.files().await.context("the files")?;
        if let Some(image) = source::registry(self.config).await? {
            let part = self
                .pack(REGISTRY, std::io::Cursor::new(image), &Meter::default())
                .await?;
            self.add(part)?;
        }
        let identity = source::identity(self.config, path).context("configuration and secrets")?;
        let part = self
            .pack(IDENTITY, std::io::Cursor::new(identity), &Meter::default())
            .await?;
        self.add(part)
    }

    async fn database(&mut self) -> anyhow::Result<()> {
        let (config, socket) = (self.config, self.config.db_socket());
        let schema = config.portal.database.clone();
        let before = tables::count(&socket, &schema)
            .await
            .context("is the node running? start it with: systemctl start bitrix-node")?;
        let source = copy::Source {
            socket: socket.clone(),
            account: account::require(prepare::DB_USER).context("MariaDB's user")?,
            scratch: config.node.data_dir.join("backup-tmp"),
            is_galera: config.db.galera,
        };
        if config.db.galera && !aside::step(&socket, &config.backup_aside()).await? {
            eprintln!("bitrix-node: the database that is copied is the one that is written to, or the only one");
        }
        let meter = Meter::default();
        let (copying, stream) = source.start().await?;
        let packing = self.pack(DATABASE, stream, &meter);
        let both = async { tokio::join!(packing, copying.finish()) };
        let (part, info) = watched("database", 0, &meter, both).await;
        // A store that is full ends the copy, too: that is the cause.
        let (part, info) = (part?, info?);
        aside::back(&socket, &config.backup_aside()).await?;
        let at = clock::unix_millis();
        let after = tables::count(&socket, &schema).await?;
        let both = |table: &String, before: Option<u64>| match (before, after.get(table)) {
            (Some(before), Some(Some(after))) => Some((before, *after)),
            _ => None,
        };
        // One that was made or removed meanwhile may be in the copy or not.
        let lasting = before.iter().filter(|(table, _)| after.contains_key(*table));
        let position = match info.position {
            None => None,
            Some((file, offset, gtid)) => {
                let folder = binlog::folder(&socket)
                    .await?
                    .context("the server's binary log is gone")?;
                let head = sha256(&binlog::head(&folder, &file)?);
                Some(Position {
                    file,
                    offset,
                    gtid,
                    head,
                })
            }
        };
        self.backup.manifest.database = Some(Database {
            server: info.server,
            tables: lasting
                .map(|(table, rows)| (table.clone(), both(table, *rows)))
                .collect(),
            schema,
            at,
            position,
        });
        self.add(part)
    }

    async fn files(&mut self) -> anyhow::Result<()> {
        let owner = account::require(&self.config.portal.user)?;
        let (meter, began) = (Meter::default(), clock::unix_millis());
        let (stream, reading) = source::files(self.config)?;
        let packing = self.pack(FILES, stream, &meter);
        let both = async { tokio::join!(packing, reading) };
        let (part, read) = watched("files", 0, &meter, both).await;
        let part = part?;
        read?;
        self.backup.manifest.files = Some(manifest::Files {
            uid: owner.uid,
            gid: owner.gid,
            read: Some((began, clock::unix_millis())),
        });
        self.add(part)
    }

    fn conclude(mut self) -> anyhow::Result<()> {
        self.backup.manifest.ended = clock::unix_millis();
        if self.backup.manifest.parts.is_empty() {
            bail!("there is nothing to keep");
        }
        store::conclude(self.store.as_ref(), &self.backup, &self.key)?;
        let manifest = &self.backup.manifest;
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{} in {}: {}, {:.1} s, leads to {}",
            self.backup.id,
            self.store.place(),
            size(manifest.size()),
            (manifest.ended.saturating_sub(manifest.began)) as f64 / 1000.0,
            time(manifest.reaches()),
        )?;
        Ok(())
    }
}
