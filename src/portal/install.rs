//! Puts an application into the document root: whole or not at all.
//!
//! The files are laid out in a folder beside the root and then renamed into place; an old tree is kept beside it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::source;
use super::tree::{Progress, Tree};

/// Where to, for whom.
pub struct Target<'a> {
    pub root: &'a Path,
    /// User and group ids that own every file.
    pub owner: (u32, u32),
    /// Take the place of a tree that is there; else only an absent or empty root is filled.
    pub replace: bool,
}

/// What was installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub files: u64,
    pub bytes: u64,
    pub links: u64,
    /// Where the tree lies now that was in the root before.
    pub replaced: Option<PathBuf>,
}

/// Installs from a folder, or a .tar, .tar.gz or .zip archive. A single folder around everything in it is left out.
/// Entries that would leave the root, and devices, fail the whole; nothing is left behind then. An old tree is never
/// removed.
///
/// `progress` is called now and then with files and bytes so far. Blocks for as long as the disk takes.
pub fn install(from: &Path, target: &Target, progress: Progress) -> anyhow::Result<Summary> {
    let named = || format!("install {}", from.display());
    let from = from.canonicalize().with_context(named)?;
    let around = folder_around(target.root);
    let around = around
        .canonicalize()
        .with_context(|| format!("find {}", around.display()))?;
    if around.starts_with(&from) {
        bail!("{} holds the document root itself", from.display());
    }
    fill(target, progress, |tree| source::read(&from, tree)).with_context(named)
}

/// Fills a new tree by `write` and moves it to the target.
pub(super) fn fill(
    target: &Target,
    progress: Progress,
    write: impl FnOnce(&mut Tree) -> anyhow::Result<()>,
) -> anyhow::Result<Summary> {
    let _lock = lock(folder_around(target.root))?;
    if !target.replace && !is_empty(target.root)? {
        bail!(
            "{} is not empty; with --replace its content is moved aside",
            target.root.display()
        );
    }
    let new = beside(target.root, "new");
    remove(&new)?;
    let moved = Tree::create(new.clone(), target.owner, progress)
        .context("make a folder for the files")
        .and_then(|mut tree| {
            write(&mut tree)?;
            tree.finish()
        })
        .and_then(|(portal, mut summary)| {
            if summary.files == 0 {
                bail!("there are no files in it");
            }
            summary.replaced = take_place(&portal, target.root)?;
            Ok(summary)
        });
    let removed = remove(&new);
    let summary = moved?;
    removed?;
    Ok(summary)
}

/// One installation at a time.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let folder = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => bail!("another installation is under way"),
        Err(TryLockError::Error(error)) => Err(error).context("lock the folder of the document root"),
    }
}

/// Moves `new` to `root` without a moment in which there is no root. Returns where the old tree went.
fn take_place(new: &Path, root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let moving = || format!("move the files to {}", root.display());
    if is_empty(root)? {
        // rename(2) replaces an empty folder.
        fs::rename(new, root).with_context(moving)?;
        sync(folder_around(root))?;
        return Ok(None);
    }
    let old = free_name(root)?;
    // Under this name first, where nobody removes it: the exchange then puts the old tree there in one step.
    fs::rename(new, &old).with_context(moving)?;
    let aside = exchange(&old, root)
        .with_context(moving)
        .with_context(|| format!("the new files are in {}", old.display()))?;
    sync(folder_around(root))?;
    Ok(Some(aside))
}

/// Puts `tree` in the place of `root`; returns where that lies now. In one step where the file system can do that, else with a
/// moment in which there is no root; whatever happens then, both trees keep a name that nobody removes.
fn exchange(tree: &Path, root: &Path) -> io::Result<PathBuf> {
    match renameat2(AT_FDCWD, tree, AT_FDCWD, root, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(tree.to_owned()),
        // FUSE and NFS have no such step.
        Err(Errno::EINVAL | Errno::ENOSYS) => in_turn(tree, root),
        Err(errno) => Err(errno.into()),
    }
}

fn in_turn(tree: &Path, root: &Path) -> io::Result<PathBuf> {
    let aside = free_name(root)?;
    fs::rename(root, &aside)?;
    match fs::rename(tree, root) {
        Ok(()) => Ok(aside),
        Err(error) => {
            fs::rename(&aside, root)?;
            Err(error)
        }
    }
}

/// For a tree that is kept.
fn free_name(root: &Path) -> io::Result<PathBuf> {
    (1..)
        .map(|number| beside(root, &format!("old-{number}")))
        .find(|path| path.symlink_metadata().is_err())
        .ok_or_else(|| io::Error::other("no free name for the old tree"))
}

fn is_empty(root: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(root) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("look into {}", root.display())),
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> anyhow::Result<()> {
    File::open(folder)?.sync_all().context("keep the new tree")
}

fn folder_around(root: &Path) -> &Path {
    root.parent().unwrap_or(Path::new("/"))
}

/// `root.suffix`.
fn beside(root: &Path, suffix: &str) -> PathBuf {
    let mut path = root.as_os_str().to_os_string();
    path.push(".");
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    /// Installs into `folder/root`.
    fn installed(folder: &TempDir, from: &Path, replace: bool) -> anyhow::Result<Summary> {
        let root = folder.path().join("root");
        let target = Target {
            root: &root,
            owner: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
            replace,
        };
        install(from, &target, &mut |_, _| {})
    }

    fn folder() -> TempDir {
        tempfile::tempdir().expect("temp dir")
    }

    /// Name, kind, link target, content.
    type Entry<'a> = (&'a str, ::tar::EntryType, &'a str, &'a str);
    use ::tar::EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};

    /// Writes names as they are, unlike a decent tar.
    fn tar(folder: &TempDir, entries: &[Entry]) -> PathBuf {
        let mut archive = ::tar::Builder::new(Vec::new());
        for (name, kind, target, content) in entries {
            let mut header = ::tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o6777);
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, content.as_bytes()).expect("packed");
        }
        let path = folder.path().join("archive");
        fs::write(&path, archive.into_inner().expect("packed")).expect("written");
        path
    }

    fn read(folder: &TempDir, name: &str) -> String {
        fs::read_to_string(folder.path().join("root").join(name)).expect(name)
    }

    #[test]
    fn archive_is_laid_out_with_plain_modes() {
        let folder = folder();
        let from = tar(
            &folder,
            &[
                ("index.php", Regular, "", "<?php"),
                ("bitrix/a.php", Regular, "", "old"),
                ("bitrix/a.php", Regular, "", "new"),
                ("bitrix/copy.php", Link, "bitrix/a.php", ""),
                ("link", Symlink, "bitrix/a.php", ""),
                ("upload/", Directory, "", ""),
            ],
        );
        let summary = installed(&folder, &from, false).expect("installed");
        assert_eq!((summary.files, summary.links, summary.replaced), (4, 1, None));
        assert_eq!(read(&folder, "link"), "new");
        assert_eq!(read(&folder, "bitrix/copy.php"), "new");
        for (name, mode) in [("index.php", 0o644), ("bitrix", 0o755), ("upload", 0o755), ("", 0o755)] {
            let metadata = fs::metadata(folder.path().join("root").join(name)).expect(name);
            assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
        }
    }

    #[test]
    fn archives_that_reach_outside_leave_nothing() {
        let attacks: &[&[Entry]] = &[
            &[("../evil", Regular, "", "x")],
            &[("/tmp/evil", Regular, "", "x")],
            &[("a/../../evil", Regular, "", "x")],
            &[("link", Symlink, "/etc", "")],
            &[("link", Symlink, "../..", "")],
            &[("link", Symlink, "..", ""), ("link/evil", Regular, "", "x")],
            &[("a/link", Symlink, "..", ""), ("b", Symlink, "a/link/..", "")],
            // The folder around is left out, so that this link would be one level higher.
            &[("p/index.php", Regular, "", "x"), ("p/link", Symlink, "../x", "")],
            &[("copy", Link, "../outside", "")],
            &[("copy", Link, "/etc/passwd", "")],
            &[("device", Char, "", "")],
            &[("pipe", Fifo, "", "")],
            &[],
        ];
        for attack in attacks {
            let folder = folder();
            fs::write(folder.path().join("outside"), "secret").expect("written");
            let from = tar(&folder, attack);
            installed(&folder, &from, false).expect_err(&format!("{attack:?}"));
            let mut left: Vec<_> = fs::read_dir(folder.path()).expect("listed").flatten().collect();
            left.sort_by_key(|entry| entry.file_name());
            let left: Vec<_> = left.iter().map(fs::DirEntry::file_name).collect();
            assert_eq!(left, ["archive", "outside"], "{attack:?}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = folder();
        let from = tar(
            &folder,
            &[
                ("real/file", Regular, "", "safe"),
                ("link", Symlink, "real", ""),
                ("link/file", Regular, "", "evil"),
            ],
        );
        installed(&folder, &from, false).expect_err("`link` cannot be both");
        assert!(!folder.path().join("root").exists());
    }

    #[test]
    fn gzip_and_zip_work_as_well() {
        for name in ["a.tgz", "a.zip"] {
            let folder = folder();
            let plain = fs::read(tar(&folder, &[("index.php", Regular, "", "hello")])).expect("packed");
            let from = folder.path().join(name);
            let file = File::create(&from).expect("made");
            if name.ends_with("tgz") {
                let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                packer.write_all(&plain).expect("packed");
                packer.finish().expect("packed");
            } else {
                let mut packer = ::zip::ZipWriter::new(file);
                let options = ::zip::write::SimpleFileOptions::default().unix_permissions(0o4755);
                packer.start_file("index.php", options).expect("packed");
                packer.write_all(b"hello").expect("packed");
                packer.add_symlink("link", "index.php", options).expect("packed");
                packer.finish().expect("packed");
            }
            installed(&folder, &from, false).expect(name);
            assert_eq!(read(&folder, "index.php"), "hello");
            let mode = fs::metadata(folder.path().join("root/index.php"))
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o7777, 0o644, "{name}");
        }
    }

    #[test]
    fn zip_cannot_reach_outside() {
        for (name, target) in [("../evil", None), ("/evil", None), ("link", Some("../.."))] {
            let folder = folder();
            let from = folder.path().join("a.zip");
            let mut packer = ::zip::ZipWriter::new(File::create(&from).expect("made"));
            let options = ::zip::write::SimpleFileOptions::default();
            match target {
                None => packer.start_file(name, options).expect("packed"),
                Some(target) => packer.add_symlink(name, target, options).expect("packed"),
            }
            packer.finish().expect("packed");
            installed(&folder, &from, false).expect_err(name);
            assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "{name}");
        }
    }

    #[test]
    fn folder_around_the_portal_is_left_out() {
        let folder = folder();
        let from = tar(
            &folder,
            &[
                ("portal/index.php", Regular, "", "x"),
                ("portal/a/link", Symlink, "../index.php", ""),
            ],
        );
        installed(&folder, &from, false).expect("installed");
        assert_eq!(read(&folder, "a/link"), "x");
        assert_eq!(
            fs::read_dir(folder.path()).expect("listed").count(),
            2,
            "archive and root"
        );
    }

    #[test]
    fn tree_in_place_is_kept_and_replaced_only_when_asked() {
        let folder = folder();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("sub")).expect("made");
        fs::write(source.join("sub/file"), "one").expect("written");
        symlink("sub/file", source.join("link")).expect("made");
        installed(&folder, &source, false).expect("installed");
        fs::write(source.join("sub/file"), "two").expect("written");

        let error = installed(&folder, &source, false).expect_err("not empty");
        assert!(format!("{error:#}").contains("--replace"), "{error:#}");
        assert_eq!(read(&folder, "link"), "one");

        for (number, content) in [(1, "one"), (2, "two")] {
            let summary = installed(&folder, &source, true).expect("replaced");
            let old = folder.path().join(format!("root.old-{number}"));
            assert_eq!(summary.replaced.as_deref(), Some(&*old));
            assert_eq!(fs::read_to_string(old.join("sub/file")).expect("kept"), content);
            assert_eq!(read(&folder, "sub/file"), "two");
        }
    }

    #[test]
    fn without_an_exchange_both_trees_are_moved_in_turn() {
        let folder = folder();
        let (root, tree) = (folder.path().join("root"), folder.path().join("root.old-1"));
        for (place, content) in [(&root, "old"), (&tree, "new")] {
            fs::create_dir(place).expect("made");
            fs::write(place.join("file"), content).expect("written");
        }
        let aside = in_turn(&tree, &root).expect("moved");
        assert_eq!(aside, folder.path().join("root.old-2"));
        assert_eq!(read(&folder, "file"), "new");
        assert_eq!(fs::read_to_string(aside.join("file")).expect("kept"), "old");
        // The new tree is gone: the old one is put back.
        in_turn(&folder.path().join("absent"), &root).expect_err("nothing to put there");
        assert_eq!(read(&folder, "file"), "new");
    }

    #[test]
    fn folder_that_holds_the_root_is_refused() {
        let folder = folder();
        fs::write(folder.path().join("file"), "x").expect("written");
        installed(&folder, folder.path(), false).expect_err("endless");
    }

    #[test]
    fn leftover_of_a_broken_installation_is_removed() {
        let folder = folder();
        fs::create_dir(folder.path().join("root.new")).expect("made");
        fs::write(folder.path().join("root.new/stale"), "x").expect("written");
        let from = tar(&folder, &[("index.php", Regular, "", "x")]);
        installed(&folder, &from, false).expect("installed");
        assert!(!folder.path().join("root/stale").exists());
        assert!(!folder.path().join("root.new").exists());
    }

    #[test]
    fn unknown_format_is_named() {
        let folder = folder();
        let from = folder.path().join("portal.rar");
        fs::write(&from, "Rar!").expect("written");
        let error = installed(&folder, &from, false).expect_err("unknown");
        assert!(format!("{error:#}").contains(".tar.gz"), "{error:#}");
    }
}
