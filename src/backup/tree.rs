//! A folder of this machine as a tar archive, and back: with owners by number, modes, times, links and hard links. Blocks.
//! For portals whose files lie on a file system; the replicated ones have `storage::archive`.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Writes everything below `root` into `archive`. Not a snapshot: what vanishes meanwhile is left out, what grows is cut.
pub fn pack(root: &Path, archive: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(archive);
    let mut links = HashMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let Some(entries) = there(fs::read_dir(root.join(&folder)))? else {
            continue;
        };
        for entry in entries {
            let path = folder.join(entry?.file_name());
            let Some(metadata) = there(fs::symlink_metadata(root.join(&path)))? else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            put(&mut archive, root, &path, &metadata, &mut links)?;
        }
    }
    archive.into_inner()?.flush()
}

fn put(
    archive: &mut tar::Builder<impl Write>,
    root: &Path,
    path: &Path,
    metadata: &Metadata,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    if metadata.is_dir() {
        return archive.append_data(&mut header, path, io::empty());
    }
    if metadata.is_symlink() {
        let Some(target) = there(fs::read_link(root.join(path)))? else {
            return Ok(());
        };
        return archive.append_link(&mut header, path, target);
    }
    // Pipes, sockets and devices are no files of a portal.
    if !metadata.is_file() {
        return Ok(());
    }
    let inode = (metadata.dev(), metadata.ino());
    if let Some(first) = links.get(&inode) {
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        return archive.append_link(&mut header, path, first);
    }
    let Some(file) = there(File::open(root.join(path)))? else {
        return Ok(());
    };
    if metadata.nlink() > 1 {
        links.insert(inode, path.to_path_buf());
    }
    // One that was cut meanwhile ends in zeros: the archive has said how long it is.
    let content = file.chain(io::repeat(0)).take(metadata.len());
    archive.append_data(&mut header, path, content)
}

fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Makes the folder `root`, which must not be there, with what the archive holds. Nothing is written outside of it.
pub fn unpack(archive: impl Read, root: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_overwrite(false);
    archive.unpack(root)
}

/// How many objects an archive holds; reads it to its end.
pub fn count(archive: impl Read) -> io::Result<u64> {
    let mut archive = tar::Archive::new(archive);
    let mut count = 0;
    for entry in archive.entries()? {
        io::copy(&mut entry?, &mut io::sink())?;
        count += 1;
    }
    // What follows the last entry belongs to the stream.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let long = "x".repeat(150);
        fs::create_dir_all(from.join("upload").join(&long)).unwrap();
        fs::write(from.join("upload").join(&long).join("a.txt"), "content").unwrap();
        fs::set_permissions(from.join("upload"), fs::Permissions::from_mode(0o2750)).unwrap();
        fs::write(from.join("empty"), "").unwrap();
        symlink("../elsewhere", from.join("link")).unwrap();
        fs::hard_link(from.join("empty"), from.join("same")).unwrap();
        fs::create_dir(from.join("bare")).unwrap();
        let mut archive = Vec::new();
        pack(&from, &mut archive).unwrap();
        assert_eq!(count(archive.as_slice()).unwrap(), 7);
        unpack(archive.as_slice(), &to).unwrap();
        assert_eq!(
            fs::read(to.join("upload").join(&long).join("a.txt")).unwrap(),
            b"content"
        );
        let mode = |root: &Path| fs::metadata(root.join("upload")).unwrap().permissions().mode();
        assert_eq!(mode(&to), mode(&from));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("../elsewhere"));
        let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("empty"), inode("same"));
        assert!(to.join("bare").is_dir());
        unpack(archive.as_slice(), &to).expect_err("it is there already");
    }
}
