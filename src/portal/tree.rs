//! A new tree of files, written from names that nobody vouches for.
//!
//! Nothing is written through a symbolic link: links are kept back until all files are there, and a link's target
//! climbs only over real folders of the tree, so that it cannot leave it. Files lose every mode bit of their source.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use super::install::Summary;

/// Of the 4096 bytes of PATH_MAX, the rest is for the document root.
const LONGEST_PATH: usize = 3000;
/// Between two calls of the progress function.
const FILES_PER_REPORT: u64 = 200;

/// Files and bytes so far.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

pub struct Tree<'a> {
    root: PathBuf,
    owner: (u32, u32),
    links: BTreeMap<PathBuf, PathBuf>,
    summary: Summary,
    progress: Progress<'a>,
}

impl<'a> Tree<'a> {
    /// Starts with a new folder `root`, which only root can enter until `finish`.
    pub fn create(root: PathBuf, owner: (u32, u32), progress: Progress<'a>) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(&root)?;
        Ok(Tree {
            root,
            owner,
            links: BTreeMap::new(),
            summary: Summary::default(),
            progress,
        })
    }

    /// Makes a folder and those above it.
    pub fn folder(&mut self, name: &Path) -> anyhow::Result<()> {
        let mut path = self.root.clone();
        for part in clean(name)?.components() {
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => {
                    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
                    chown(&path, Some(self.owner.0), Some(self.owner.1))?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(error) => return Err(error).with_context(|| format!("make the folder {}", name.display())),
            }
        }
        Ok(())
    }

    /// Writes a file; a file or link of the same name is replaced, as later entries of an archive do.
    pub fn file(&mut self, name: &Path, content: &mut dyn Read) -> anyhow::Result<()> {
        let name = clean(name)?;
        let Some(parent) = name.parent() else {
            bail!("a file has no name");
        };
        self.links.remove(&name);
        self.folder(parent)?;
        let written = self.write(&name, content);
        let bytes = written.with_context(|| format!("write {}", name.display()))?;
        self.summary.files += 1;
        self.summary.bytes += bytes;
        if self.summary.files.is_multiple_of(FILES_PER_REPORT) {
            (self.progress)(self.summary.files, self.summary.bytes);
        }
        Ok(())
    }

    fn write(&self, name: &Path, content: &mut dyn Read) -> io::Result<u64> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.root.join(name))?;
        let bytes = io::copy(content, &mut file)?;
        fchown(&file, Some(self.owner.0), Some(self.owner.1))?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        Ok(bytes)
    }

    /// A hard link of an archive: a copy of a file that is already here.
    pub fn copy(&mut self, name: &Path, of: &Path) -> anyhow::Result<()> {
        let of = clean(of)?;
        let source = self.root.join(&of);
        let opened = File::open(&source).with_context(|| format!("{} links to {}", name.display(), of.display()));
        if clean(name)? == of {
            return Ok(());
        }
        self.file(name, &mut opened?)
    }

    /// Remembers a symbolic link for `finish`.
    pub fn link(&mut self, name: &Path, target: &Path) -> anyhow::Result<()> {
        self.links.insert(clean(name)?, target.to_path_buf());
        Ok(())
    }

    /// Makes the links, and has all safely on the disk. Returns the portal's folder: the tree's root, or the only
    /// folder in it when an archive was packed with one around.
    pub fn finish(mut self) -> anyhow::Result<(PathBuf, Summary)> {
        let portal = self.portal()?;
        for (name, target) in std::mem::take(&mut self.links) {
            let inner = name.strip_prefix(&portal).context("a link lies beside the portal")?;
            if !stays_inside(inner, &target) {
                bail!(
                    "the symbolic link {} leaves the portal (to {}); put a copy there instead",
                    name.display(),
                    target.display()
                );
            }
            self.make_link(&name, &target)
                .with_context(|| format!("make the symbolic link {}", name.display()))?;
            self.summary.links += 1;
        }
        (self.progress)(self.summary.files, self.summary.bytes);
        let portal = self.root.join(portal);
        fs::set_permissions(&portal, Permissions::from_mode(0o755))?;
        chown(&portal, Some(self.owner.0), Some(self.owner.1))?;
        nix::unistd::syncfs(File::open(&portal)?).context("write the files to disk")?;
        Ok((portal, self.summary))
    }

    /// The portal's folder relative to the tree's root.
    fn portal(&self) -> io::Result<PathBuf> {
        let mut entries = fs::read_dir(&self.root)?;
        if let (Some(only), None) = (entries.next(), entries.next()) {
            let only = only?;
            let holds = |name| only.path().join(name).exists();
            let name = PathBuf::from(only.file_name());
            let alone = self.links.keys().all(|link| link.starts_with(&name));
            if alone && (holds("index.php") || holds("bitrix")) {
                return Ok(name);
            }
        }
        Ok(PathBuf::new())
    }

    fn make_link(&mut self, name: &Path, target: &Path) -> anyhow::Result<()> {
        let parent = name.parent().unwrap_or(Path::new(""));
        self.folder(parent)?;
        // A parent that is a link made just now would make `..` in the target climb from elsewhere.
        if self.root.join(parent).canonicalize()? != self.root.canonicalize()?.join(parent) {
            bail!("its folder is a symbolic link itself");
        }
        let path = self.root.join(name);
        if path.is_file() {
            fs::remove_file(&path)?;
        }
        symlink(target, &path)?;
        Ok(lchown(&path, Some(self.owner.0), Some(self.owner.1))?)
    }
}

/// The name as a relative path of plain parts. Pure.
fn clean(name: &Path) -> anyhow::Result<PathBuf> {
    let refuse = |why| bail!("the name {name:?} {why}");
    if name.as_os_str().len() > LONGEST_PATH {
        return refuse("is too long");
    }
    if name.as_os_str().as_bytes().iter().any(|b| b.is_ascii_control()) {
        return refuse("holds control characters");
    }
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return refuse("leaves the portal"),
        }
    }
    Ok(path)
}

/// Whether a link's target climbs at the start only, and not above the tree. Its further parts may be links,
/// which obey the same rule. Pure.
fn stays_inside(name: &Path, target: &Path) -> bool {
    let mut depth = name.components().count().saturating_sub(1);
    let mut descends = false;
    for part in target.components() {
        match part {
            Component::ParentDir if !descends && depth > 0 => depth -= 1,
            Component::Normal(_) => descends = true,
            Component::CurDir => {}
            _ => return false,
        }
    }
    target.as_os_str() != OsStr::new("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_dots_or_are_refused() {
        assert_eq!(clean(Path::new("./a//b/./c/")).expect("clean"), Path::new("a/b/c"));
        for bad in ["/etc/passwd", "../x", "a/../../x", "a/..", "a\nb", "a\0b"] {
            assert!(clean(Path::new(bad)).is_err(), "{bad:?}");
        }
        assert!(clean(Path::new(&"a/".repeat(2000))).is_err());
    }

    #[test]
    fn links_climb_at_the_start_and_within_the_tree() {
        for (name, target, inside) in [
            ("a/b/link", "../c", true),
            ("a/b/link", "../../c", true),
            ("link", "a/b", true),
            ("link", "./a", true),
            ("a/b/link", "../../../c", false),
            ("link", "..", false),
            ("link", "/etc/passwd", false),
            // `a` may be a link itself, so that its `..` is anywhere.
            ("link", "a/../b", false),
            ("link", "", false),
        ] {
            assert_eq!(
                stays_inside(Path::new(name), Path::new(target)),
                inside,
                "{name} -> {target}"
            );
        }
    }
}
