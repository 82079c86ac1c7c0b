//! `backup restore`: onto a node that `init` has made and that does not run. What is there already is moved aside, not removed. And
//! `backup extract`, for whoever wants one part.
//!
//! Replicated files are put into the running storage, so they come in a second step (`--files`).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::bar::watched;
use super::database::{From, scratch};
use super::restored::Restored;
use super::{FILES, IDENTITY, Place, content, size, time};
use crate::backup::chain::{self, Chain, Gap};
use crate::backup::part::Meter;
use crate::backup::{Backup, store, tree};
use crate::base::clock;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::base::file::try_lock;
use crate::cli::settle::is_agreed;
use crate::cli::storage;
use crate::config::{Config, Engine};
use crate::db::backup::scratch::clear;
use crate::host::account;
use crate::host::verb::Secrets;
use crate::node::prepare;
use crate::node::verbs::secrets;

/// Of the identity, what another machine needs: what the portal's files and database were made with. Not the authority: new machines
/// have one of their own.
const SECRETS: [&str; 5] = [
    "secrets/database.password",
    "secrets/portal.crypto-key",
    "secrets/push.key",
    "tls/portal.key",
    "tls/portal.crt",
];

#[derive(Debug, Args)]
pub struct Restore {
    /// Folder of the backups, or s3://bucket/folder
    #[arg(value_name = "DIR|s3://…")]
    from: String,
    /// Key of the backups [default: data_dir/secrets/backup.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The database as it was then, to the second: 2026-11-27T03:15:00Z; needs a log backup that was made later. Files are those of the last
    /// full backup before that, as of its time: what was uploaded since is missing, though rows name it. Both moments are said before
    /// anything is done, and by `backup list` [default: as late as possible]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<u64>,
    /// Only the files, into the running storage: the second step where files are replicated, from the backup that the database here is of
    #[arg(long)]
    files: bool,
    /// Leave the portal's files as they are, where only rows were lost
    #[arg(long, conflicts_with = "files")]
    no_files: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What becomes of the portal's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    Stay,
    /// In a second step, into the running storage.
    Follow,
    /// With the database.
    Come,
}

#[derive(Debug, Args)]
pub struct Extract {
    #[command(flatten)]
    place: Place,
    backup: String,
    part: String,
}

/// Seconds since 1970.
fn moment(text: &str) -> Result<u64, String> {
    let time = humantime::parse_rfc3339_weak(text);
    let time = time.map_err(|_| "write it in UTC, like 2026-11-27T03:15:00Z".to_owned())?;
    let since = time.duration_since(std::time::UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|error| error.to_string())
}

impl Restore {
    pub async fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let place = Place {
            store: Some(self.from.clone()),
            key: self.key.clone(),
        };
        let from = From {
            store: place.store(config)?,
            key: place.key(config)?,
        };
        let (backups, damaged) = store::backups(from.store.as_ref())?;
        for (id, why) in damaged {
            eprintln!("bitrix-node: {id}: {why}; it is left out");
        }
        let is_replicated = config.storage.engine == Engine::Replicated;
        if self.files {
            ensure!(
                is_replicated,
                "the files are not replicated here; without --files they are restored with the rest"
            );
            let full = self.second_step(config, &backups, &from)?;
            store::trusted(from.store.as_ref(), &full.id, &from.key)?;
            require_owner(config, full)?;
            return files_into_storage(config, &from, full).await;
        }
        let chain = way(&backups, self.at, &from.store.place())?;
        for backup in std::iter::once(chain.full).chain(chain.logs.iter().copied()) {
            store::trusted(from.store.as_ref(), &backup.id, &from.key)?;
        }
        require_owner(config, chain.full)?;
        ensure!(
            config.db.run,
            "the database runs on another node (db.run = false); restore there"
        );
        ensure!(
            !prepare::by_units(config) || config.db.galera,
            "systemd runs MariaDB here: set node.daemons = \"child\", and disable mariadb.service"
        );
        ensure!(
            !prepare::is_database_running(config).await?,
            "MariaDB goes on here as a unit; end it first: systemctl stop {}",
            prepare::DATABASE
        );
        let lock = try_lock(&config.node.data_dir.join("lock"))
            .with_context(|| format!("{}: has `bitrix-node init` run?", config.node.data_dir.display()))?;
        let _lock = lock.context(
            "bitrix-node runs here, with data that would be replaced; stop it first: systemctl stop bitrix-node",
        )?;
        let mut out = io::stdout();
        let how = match (self.no_files, is_replicated) {
            (true, _) => Files::Stay,
            (false, true) => Files::Follow,
            (false, false) => Files::Come,
        };
        write!(out, "{}", plan(config, &chain, self.at, how))?;
        if !self.yes && !is_agreed()? {
            writeln!(out, "nothing was changed")?;
            return Ok(EXIT_DEGRADED);
        }
        let begun = std::time::Instant::now();
        database(config, &from, &chain, self.at).await.context("the database")?;
        writeln!(out, "database: {:.1} s", begun.elapsed().as_secs_f64())?;
        identity(config, &from, chain.full).await.context("the secrets")?;
        match how {
            Files::Stay => {}
            Files::Follow => {
                let (backup, from) = (chain.full.id.clone(), self.from.clone());
                Restored { backup, from }.write(config)?;
            }
            Files::Come => {
                let begun = std::time::Instant::now();
                files(config, &from, chain.full).await.context("the files")?;
                writeln!(out, "files: {:.1} s", begun.elapsed().as_secs_f64())?;
            }
        }
        write!(out, "{}", next(config, &self.from, how))?;
        Ok(EXIT_OK)
    }

    /// The backup whose files follow the database: the one that was put onto this node, whatever was made since.
    fn second_step<'a>(&self, config: &Config, backups: &'a [Backup], from: &From) -> anyhow::Result<&'a Backup> {
        let place = from.store.place();
        let Some(Restored { backup, from }) = Restored::read(config)? else {
            return Ok(way(backups, self.at, &place)?.full);
        };
        if self.at.is_some() {
            let found = way(backups, self.at, &place)?.full;
            ensure!(
                found.id == backup,
                "the database here is that of {backup}, and --at says {}; leave --at out",
                found.id
            );
        }
        let full = backups.iter().find(|one| one.id == backup);
        full.with_context(|| format!("{backup}, which the database here is of, is not in {place}; it was in {from}"))
    }
}

/// Says what there is where there is no way.
fn way<'a>(backups: &'a [Backup], at: Option<u64>, place: &str) -> anyhow::Result<Chain<'a>> {
    let at = at.map(|seconds| seconds.saturating_mul(1000));
    chain::chain(backups, at).map_err(|gap| match gap {
        Gap::Ends(reaches) => anyhow::anyhow!(
            "the backups in {place} lead to {}, not further; say --at with that or an earlier moment, or leave it out for the newest state",
            time(reaches)
        ),
        Gap::NoFull => match backups.first() {
            None => anyhow::anyhow!("there are no backups in {place}"),
            Some(first) => anyhow::anyhow!("the oldest backup in {place} is of {}", time(first.manifest.reaches())),
        },
        torn => anyhow::anyhow!("{place}: {torn}"),
    })
}

/// The archive has owners by number.
fn require_owner(config: &Config, full: &Backup) -> anyhow::Result<()> {
    let Some(told) = full.manifest.files else { return Ok(()) };
    let own = account::require(&config.portal.user)?;
    let name = &config.portal.user;
    ensure!(
        (own.uid, own.gid) == (told.uid, told.gid),
        "the files in the backup belong to user {} and group {}, and {name} has {} and {} here; give it those numbers first: \
         groupmod --gid {} {name}; usermod --uid {} --gid {} {name}; then `bitrix-node init` again",
        told.uid,
        told.gid,
        own.uid,
        own.gid,
        told.gid,
        told.uid,
        told.gid
    );
    Ok(())
}

fn plan(config: &Config, chain: &Chain, at: Option<u64>, how: Files) -> String {
    let until = at.map_or(time(chain.reaches), |at| time(at * 1000));
    let mut text = format!(
        "database:  as of {until}, from {} of {} and {} logs\n",
        chain.full.id,
        chain.full.manifest.node,
        chain.logs.len()
    );
    let mut places = vec![config.db_data()];
    let moment = files_as_of(chain.full, at.map_or(chain.reaches, |at| at * 1000));
    match how {
        Files::Stay => text += "files:     stay as they are\n",
        Files::Follow => text += &format!("{moment}           in a second step, when the node runs\n"),
        Files::Come => {
            text += &moment;
            places.push(config.portal_root());
        }
    }
    for place in places.iter().filter(|place| is_filled(place)) {
        text += &format!("what is in {} is moved aside\n", place.display());
    }
    text
}

/// `until`: the database's moment, in milliseconds since 1970. Pure.
fn files_as_of(full: &Backup, until: u64) -> String {
    let Some((from, to)) = full.manifest.files_read() else {
        return "files:     none are in the backup\n".to_owned();
    };
    let behind = until.saturating_sub(to) / 1000;
    let more = match behind {
        0 => String::new(),
        seconds => format!(
            "           NOT of {}: what was uploaded, changed or removed in the {} between is not as the database has it\n",
            time(until),
            humantime::format_duration(std::time::Duration::from_secs(seconds))
        ),
    };
    format!(
        "files:     as of {} to {}, when that backup read them\n{more}",
        time(from),
        time(to)
    )
}

fn next(config: &Config, from: &str, how: Files) -> String {
    let start = "start the node:      systemctl start bitrix-node\n";
    let files = match how {
        Files::Follow => format!("put the files in:    bitrix-node backup restore {from} --files\n"),
        Files::Stay | Files::Come => String::new(),
    };
    let galera = match config.db.galera {
        true => {
            "this database begins a new history: other nodes come to it with empty database folders and are given these data.\n\
             Where they had the old one, move their database folders away before any of them starts again, start all, and then:\n\
             bitrix-node db bootstrap --force THIS-NODE\n"
        }
        false => "",
    };
    format!("next:\n{start}{files}see to the settings: bitrix-node portal settings\n{galera}")
}

fn is_filled(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Puts `new` in the place of what is there, which is kept beside it.
fn put_in_place(new: &Path, place: &Path) -> anyhow::Result<()> {
    let mut aside = None;
    if place.exists() {
        match is_filled(place) {
            true => {
                let stamp = time(clock::unix_millis()).replace([':', '-'], "");
                let kept = beside(place, &format!(".before-{stamp}"));
                fs::rename(place, &kept).with_context(|| kept.display().to_string())?;
                aside = Some(kept);
            }
            false => fs::remove_dir(place).with_context(|| place.display().to_string())?,
        }
    }
    fs::rename(new, place).with_context(|| place.display().to_string())?;
    let parent = place.parent().context("a folder needs a parent")?;
    fs::File::open(parent)?.sync_all()?;
    if let Some(kept) = aside {
        writeln!(io::stdout(), "what was in {} is in {}", place.display(), kept.display())?;
    }
    Ok(())
}

async fn database(config: &Config, from: &From, chain: &Chain<'_>, at: Option<u64>) -> anyhow::Result<()> {
    let place = config.db_data();
    let scratch = scratch(config, beside(&place, ".restore"))?;
    let made = async {
        from.fill(&scratch, chain.full).await?;
        // Also without logs: it must start before it takes anything's place.
        let server = scratch.start().await.context("start a server on the restored data")?;
        from.forward(&scratch, &server, chain, at).await?;
        server.stop().await?;
        clear(&scratch.data())?;
        // They are of no election.
        forget(&config.db_epoch())?;
        nix::unistd::syncfs(fs::File::open(scratch.data())?).context("write the data to disk")?;
        put_in_place(&scratch.data(), &place)
    };
    let made = made.await;
    let _ = fs::remove_dir_all(&scratch.folder);
    made
}

fn forget(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

async fn identity(config: &Config, from: &From, full: &Backup) -> anyhow::Result<()> {
    let part = from.part(full, IDENTITY)?;
    let (stream, end) = io::pipe()?;
    let meter = Meter::default();
    let reading = content(&from.store, &full.id, part, &from.key, end, &meter);
    let taking = tokio::task::spawn_blocking(move || take(stream));
    let (read, taken) = tokio::join!(reading, taking);
    let files = taken?;
    read?;
    let group = account::require(&config.node.user)?.gid;
    secrets::place(&config.node.data_dir, &Secrets { files: files? }, group)
}

/// What is wanted of the archive.
fn take(stream: impl io::Read) -> anyhow::Result<Vec<(String, String)>> {
    let mut archive = tar::Archive::new(stream);
    let mut files = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if SECRETS.contains(&name.as_str()) {
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text)?;
            files.push((name, text));
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(files)
}

/// Onto a file system of this machine.
async fn files(config: &Config, from: &From, full: &Backup) -> anyhow::Result<()> {
    let root = config.portal_root();
    let new = beside(&root, ".restore");
    ensure!(
        !new.exists(),
        "{} is left of an earlier run: look at it, and remove it",
        new.display()
    );
    let owner = account::require(&config.portal.user)?;
    let part = from.part(full, FILES)?;
    let (stream, end) = io::pipe()?;
    let meter = Meter::default();
    let reading = content(&from.store, &full.id, part, &from.key, end, &meter);
    let folder = new.clone();
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut stream = stream;
        tree::unpack(&mut stream, &folder)?;
        io::copy(&mut stream, &mut io::sink())
    });
    let both = async { tokio::join!(reading, unpacking) };
    let (read, unpacked) = watched("files", part.content, &meter, both).await;
    let done = async {
        unpacked??;
        read?;
        std::os::unix::fs::chown(&new, Some(owner.uid), Some(owner.gid))?;
        nix::unistd::syncfs(fs::File::open(&new)?)?;
        put_in_place(&new, &root)
    };
    let done = done.await;
    if done.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    done
}

/// Through the running storage.
async fn files_into_storage(config: &Config, from: &From, full: &Backup) -> anyhow::Result<u8> {
    write!(io::stdout(), "{}", files_as_of(full, 0))?;
    let part = from.part(full, FILES)?;
    let session = storage::Session::open(config).await?;
    let (stream, end) = io::pipe()?;
    let meter = Meter::default();
    let reading = content(&from.store, &full.id, part, &from.key, end, &meter);
    let (read, imported) = tokio::join!(reading, session.import(stream));
    session.close().await;
    imported.context("put the files into the storage")?;
    read?;
    Restored::forget(config)?;
    writeln!(io::stdout(), "files: {} put into the storage", size(part.content))?;
    Ok(EXIT_OK)
}

impl Extract {
    pub async fn perform(self, config: &Config) -> anyhow::Result<u8> {
        let from = From {
            store: self.place.store(config)?,
            key: self.place.key(config)?,
        };
        let manifest = store::trusted(from.store.as_ref(), &self.backup, &from.key)?;
        let Some(part) = manifest.part(&self.part) else {
            let names: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
            bail!("{} has {}", self.backup, names.join(", "));
        };
        content(
            &from.store,
            &self.backup,
            part,
            &from.key,
            io::stdout(),
            &Meter::default(),
        )
        .await?;
        Ok(EXIT_OK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Kind, Manifest, manifest};

    #[test]
    fn a_moment_is_utc_and_to_the_second() {
        assert_eq!(moment("2026-11-27T03:15:00Z"), moment("2026-11-27 03:15:00"));
        assert_eq!(moment("1970-01-01T00:01:00.9Z"), Ok(60));
        for bad in ["03:15", "yesterday", "1969-12-31T23:59:59Z"] {
            moment(bad).expect_err(bad);
        }
    }

    #[test]
    fn it_is_said_how_far_the_files_are_behind_the_database() {
        let mut manifest = Manifest::new(Kind::Full, "", "n1", 0);
        let of = |manifest: &Manifest| Backup {
            id: "1-full".into(),
            manifest: manifest.clone(),
        };
        assert!(files_as_of(&of(&manifest), 9000).contains("none"));
        manifest.files = Some(manifest::Files {
            uid: 33,
            gid: 33,
            read: Some((1000, 2000)),
        });
        let text = files_as_of(&of(&manifest), 62_000);
        assert!(text.contains("as of 1970-01-01T00:00:01Z to 1970-01-01T00:00:02Z"));
        assert!(
            text.contains("NOT of 1970-01-01T00:01:02Z") && text.contains("in the 1m between"),
            "{text}"
        );
        assert!(!files_as_of(&of(&manifest), 2000).contains("NOT"));
    }

    #[test]
    fn what_is_there_is_kept_beside() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("new", "restored"), ("place", "old")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), text).unwrap();
        }
        put_in_place(&at("new"), &at("place")).unwrap();
        assert_eq!(fs::read_to_string(at("place").join("file")).unwrap(), "restored");
        let kept = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<PathBuf> = kept.filter(|path| *path != at("place")).collect();
        assert_eq!(fs::read_to_string(kept[0].join("file")).unwrap(), "old");
        fs::create_dir(at("newer")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        put_in_place(&at("newer"), &at("empty")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
