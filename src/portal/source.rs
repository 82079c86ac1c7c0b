//! Reads a folder, a tar or a zip archive entry by entry into a `Tree`, which judges the names.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::tree::Tree;

/// A symbolic link in a zip archive has its target as content: PATH_MAX.
const LONGEST_TARGET: u64 = 4096;
/// File types in a Unix mode, inode(7).
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// What lies at a path, told by its first bytes, not by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    Tar,
    TarGz,
    Zip,
}

/// Copies everything at `from` into `tree`.
pub fn read(from: &Path, tree: &mut Tree) -> anyhow::Result<()> {
    match kind(from)? {
        Kind::Folder => folder(from, Path::new(""), tree),
        Kind::Tar => tar(BufReader::new(File::open(from)?), tree),
        Kind::TarGz => tar(
            flate2::read::MultiGzDecoder::new(BufReader::new(File::open(from)?)),
            tree,
        ),
        Kind::Zip => zip(File::open(from)?, tree),
    }
}

fn kind(from: &Path) -> anyhow::Result<Kind> {
    if from.is_dir() {
        return Ok(Kind::Folder);
    }
    let mut head = Vec::new();
    File::open(from)?.take(262).read_to_end(&mut head)?;
    // RFC 1952, section 2.3.1; APPNOTE.TXT 4.3.7; POSIX ustar: the magic ends at 262.
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(Kind::TarGz)
    } else if head.starts_with(b"PK\x03\x04") {
        Ok(Kind::Zip)
    } else if head.ends_with(b"ustar") {
        Ok(Kind::Tar)
    } else {
        bail!("is neither a folder nor a .tar, .tar.gz or .zip archive")
    }
}

fn folder(root: &Path, name: &Path, tree: &mut Tree) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(name)).with_context(|| format!("list {}", name.display()))? {
        let entry = entry?;
        let name = name.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            tree.folder(&name)?;
            folder(root, &name, tree)?;
        } else if kind.is_symlink() {
            tree.link(&name, &fs::read_link(entry.path())?)?;
        } else if kind.is_file() {
            tree.file(&name, &mut File::open(entry.path())?)?;
        } else {
            bail!("{} is no file, folder or link", name.display());
        }
    }
    Ok(())
}

fn tar(archive: impl Read, tree: &mut Tree) -> anyhow::Result<()> {
    let mut archive = ::tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry.context("read the archive")?;
        let name = entry.path()?.into_owned();
        let target = || {
            let target = entry.link_name()?;
            target
                .map(|target| target.into_owned())
                .context("a link without target")
        };
        use ::tar::EntryType;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => tree.file(&name, &mut entry)?,
            EntryType::Directory => tree.folder(&name)?,
            EntryType::Symlink => tree.link(&name, &target()?)?,
            EntryType::Link => tree.copy(&name, &target()?)?,
            // Comments for the whole archive, like git's commit.
            EntryType::XGlobalHeader => {}
            _ => bail!("{} is no file, folder or link", name.display()),
        }
    }
    Ok(())
}

fn zip(archive: File, tree: &mut Tree) -> anyhow::Result<()> {
    let mut archive = ::zip::ZipArchive::new(BufReader::new(archive)).context("read the archive")?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).context("read the archive")?;
        let name = PathBuf::from(entry.name().context("read a name")?.as_ref());
        if entry.is_dir() {
            tree.folder(&name)?;
            continue;
        }
        // Archives made elsewhere than on Unix have no mode.
        match entry.unix_mode().map_or(0, |mode| mode & S_IFMT) {
            0 | S_IFREG => tree.file(&name, &mut entry)?,
            S_IFLNK => {
                let mut target = Vec::new();
                entry.take(LONGEST_TARGET).read_to_end(&mut target)?;
                tree.link(&name, Path::new(OsStr::from_bytes(&target)))?;
            }
            _ => bail!("{} is no file, folder or link", name.display()),
        }
    }
    Ok(())
}
