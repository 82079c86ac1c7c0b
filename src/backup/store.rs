//! Where backups lie: a folder of folders, one for each backup. Blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::manifest::{LONGEST, MAC, Manifest, NAME, is_name};
use super::{Backup, Key};

/// The name of the cluster, from the beginning on.
const OWNER: &str = "owner";

/// A part on its way into a store. Dropped before its end, nothing of its name is there.
pub trait Upload: Write + Send {
    /// All of it is kept, also after a power cut.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

pub trait Store: Send + Sync {
    /// For people.
    fn place(&self) -> String;

    /// Names of all that looks like a backup, oldest first, also of those that did not come to their end.
    fn names(&self) -> io::Result<Vec<String>>;

    fn put(&self, backup: &str, file: &str) -> io::Result<Box<dyn Upload>>;

    /// `NotFound`: there is no such part.
    fn get(&self, backup: &str, file: &str) -> io::Result<Box<dyn Read + Send>>;

    /// The manifest first: what is left then is no backup.
    fn remove(&self, backup: &str) -> io::Result<()>;
}

/// A manifest that cannot be read, by the name of its backup.
pub type Damage = (String, String);

/// All backups that came to their end, oldest first; and those whose manifest cannot be used.
pub fn backups(store: &dyn Store) -> io::Result<(Vec<Backup>, Vec<Damage>)> {
    let (mut backups, mut damaged) = (Vec::new(), Vec::new());
    for id in store.names()? {
        match read(store, &id) {
            Ok(manifest) => backups.push(Backup { id, manifest }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => damaged.push((id, error.to_string())),
        }
    }
    Ok((backups, damaged))
}

/// Those that did not come to their end, or come to it just now.
pub fn unfinished(store: &dyn Store) -> io::Result<Vec<String>> {
    let is_open = |id: &String| matches!(read(store, id), Err(error) if error.kind() == io::ErrorKind::NotFound);
    Ok(store.names()?.into_iter().filter(is_open).collect())
}

/// Says whose a backup is that is just begun: its manifest comes last.
pub fn claim(store: &dyn Store, id: &str, cluster: &str) -> io::Result<()> {
    let mut upload = store.put(id, OWNER)?;
    // A bucket takes nothing that is empty.
    upload.write_all(format!("{cluster}\n").as_bytes())?;
    upload.finish()
}

/// Whose one is that did not come to its end; `None`: it is not known.
pub fn owner(store: &dyn Store, id: &str) -> io::Result<Option<String>> {
    match bytes(store, id, OWNER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        owner => Ok(Some(String::from_utf8_lossy(&owner?).trim_end().to_owned())),
    }
}

/// `NotFound`: it is no backup.
fn read(store: &dyn Store, id: &str) -> io::Result<Manifest> {
    Manifest::parse(&bytes(store, id, NAME)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A manifest that the key made: its parts are then those that it names.
pub fn trusted(store: &dyn Store, id: &str, key: &Key) -> io::Result<Manifest> {
    let manifest = bytes(store, id, NAME)?;
    let mac = match bytes(store, id, MAC) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        mac => mac?,
    };
    match key.vouches(&manifest, &String::from_utf8_lossy(&mac)) {
        true => read(store, id),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{id} was made with another key, or was changed since: it is not used; name the right key with --key"
            ),
        )),
    }
}

fn bytes(store: &dyn Store, id: &str, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.get(id, name)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes a backup of its parts. Fails when somebody has removed one meanwhile.
pub fn conclude(store: &dyn Store, backup: &Backup, key: &Key) -> io::Result<()> {
    for part in &backup.manifest.parts {
        // A bucket is asked at the first read only.
        io::copy(&mut store.get(&backup.id, &part.name)?.take(1), &mut io::sink())?;
    }
    let manifest = backup.manifest.bytes();
    for (name, bytes) in [(MAC, key.mac(&manifest).as_bytes()), (NAME, &manifest)] {
        let mut upload = store.put(&backup.id, name)?;
        upload.write_all(bytes)?;
        upload.finish()?;
    }
    Ok(())
}

/// A folder of this machine, or a mount.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Folder { path }
    }

    fn file(&self, backup: &str, file: &str) -> io::Result<PathBuf> {
        let is_good = is_name(backup) && is_name(file);
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{backup}/{file} is no name of a part"),
            )
        };
        is_good.then(|| self.path.join(backup).join(file)).ok_or_else(wrong)
    }
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Store for Folder {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(named(&self.path))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let is_backup = name.ends_with("-full") || name.ends_with("-log");
            if is_backup && is_name(&name) && entry.file_type()?.is_dir() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn put(&self, backup: &str, file: &str) -> io::Result<Box<dyn Upload>> {
        let path = self.file(backup, file)?;
        let folder = self.path.join(backup);
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(named(&folder)(error)),
            _ => sync(&self.path)?,
        }
        let temporary = folder.join(format!(".{file}.part"));
        let _ = fs::remove_file(&temporary);
        let mut options = OpenOptions::new();
        let open = options.write(true).create_new(true).mode(0o600).open(&temporary);
        Ok(Box::new(FileUpload {
            file: BufWriter::new(open.map_err(named(&temporary))?),
            temporary,
            path,
            is_done: false,
        }))
    }

    fn get(&self, backup: &str, file: &str) -> io::Result<Box<dyn Read + Send>> {
        let path = self.file(backup, file)?;
        Ok(Box::new(File::open(&path).map_err(named(&path))?))
    }

    fn remove(&self, backup: &str) -> io::Result<()> {
        let manifest = self.file(backup, NAME)?;
        match fs::remove_file(&manifest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&manifest)(error)),
            _ => {}
        }
        let folder = self.path.join(backup);
        match sync(&folder).and_then(|()| fs::remove_dir_all(&folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(&folder)(error)),
            _ => Ok(()),
        }
    }
}

struct FileUpload {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    is_done: bool,
}

impl Write for FileUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Upload for FileUpload {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_done = true;
        sync(self.path.parent().unwrap_or(Path::new("/")))
    }
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Kind;
    use crate::backup::manifest::Part;

    fn put(store: &Folder, id: &str, text: &str) {
        let mut upload = store.put(id, "part").unwrap();
        upload.write_all(text.as_bytes()).unwrap();
        upload.finish().unwrap();
    }

    #[test]
    fn without_a_manifest_it_is_no_backup() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::new(folder.path().to_path_buf());
        let backup = Backup {
            id: "20251127T031500Z-full".into(),
            manifest: Manifest::new(Kind::Full, "", "n1", 1),
        };
        put(&store, &backup.id, "content");
        assert_eq!(owner(&store, &backup.id).unwrap(), None);
        for cluster in ["portal-1", ""] {
            claim(&store, &backup.id, cluster).unwrap();
            assert_eq!(owner(&store, &backup.id).unwrap().as_deref(), Some(cluster));
        }
        assert_eq!(backups(&store).unwrap(), (vec![], vec![]));
        assert_eq!(unfinished(&store).unwrap(), [backup.id.as_str()]);
        let key = Key::generate();
        let mut robbed = backup.clone();
        robbed.manifest.parts.push(Part {
            name: "other".into(),
            size: 1,
            sha256: String::new(),
            content: 1,
        });
        conclude(&store, &robbed, &key).unwrap_err();
        assert_eq!(backups(&store).unwrap(), (vec![], vec![]));
        conclude(&store, &backup, &key).unwrap();
        assert_eq!(trusted(&store, &backup.id, &key).unwrap(), backup.manifest);
        trusted(&store, &backup.id, &Key::generate()).unwrap_err();
        assert_eq!(backups(&store).unwrap(), (vec![backup.clone()], vec![]));
        fs::remove_file(folder.path().join(&backup.id).join(MAC)).unwrap();
        trusted(&store, &backup.id, &key).unwrap_err();
        assert!(unfinished(&store).unwrap().is_empty());
        store.remove(&backup.id).unwrap();
        store.remove(&backup.id).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Says only at the first read that there is nothing.
    struct Late(Folder);

    impl Store for Late {
        fn place(&self) -> String {
            self.0.place()
        }

        fn names(&self) -> io::Result<Vec<String>> {
            self.0.names()
        }

        fn put(&self, backup: &str, file: &str) -> io::Result<Box<dyn Upload>> {
            self.0.put(backup, file)
        }

        fn get(&self, backup: &str, file: &str) -> io::Result<Box<dyn Read + Send>> {
            struct Missing(Option<io::Error>);
            impl Read for Missing {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    self.0.take().map_or(Ok(0), Err)
                }
            }
            let found = self.0.get(backup, file);
            Ok(found.unwrap_or_else(|error| Box::new(Missing(Some(error)))))
        }

        fn remove(&self, backup: &str) -> io::Result<()> {
            self.0.remove(backup)
        }
    }

    #[test]
    fn a_part_that_is_gone_is_noticed_where_only_reading_tells() {
        let folder = tempfile::tempdir().unwrap();
        let store = Late(Folder::new(folder.path().to_path_buf()));
        let mut backup = Backup {
            id: "20251127T031500Z-full".into(),
            manifest: Manifest::new(Kind::Full, "", "n1", 1),
        };
        backup.manifest.parts.push(Part {
            name: "part".into(),
            size: 7,
            sha256: String::new(),
            content: 7,
        });
        put(&store.0, &backup.id, "content");
        fs::remove_file(folder.path().join(&backup.id).join("part")).unwrap();
        let error = conclude(&store, &backup, &Key::generate()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(unfinished(&store).unwrap(), [backup.id.as_str()]);
        put(&store.0, &backup.id, "content");
        conclude(&store, &backup, &Key::generate()).unwrap();
    }

    #[test]
    fn a_damaged_manifest_is_named_and_strange_folders_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::new(folder.path().to_path_buf());
        fs::create_dir_all(folder.path().join("holiday-photos")).unwrap();
        fs::create_dir_all(folder.path().join("1-full")).unwrap();
        fs::write(folder.path().join("1-full").join(NAME), "{").unwrap();
        let (good, bad) = backups(&store).unwrap();
        assert_eq!((good.len(), bad.len(), bad[0].0.as_str()), (0, 1, "1-full"));
        assert!(unfinished(&store).unwrap().is_empty());
        for bad in ["../1-full", "", "a/b"] {
            store.put(bad, "x").err().expect(bad);
            store.remove(bad).expect_err(bad);
        }
    }

    #[test]
    fn an_upload_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::new(folder.path().to_path_buf());
        let mut upload = store.put("1-full", "part").unwrap();
        upload.write_all(b"half").unwrap();
        drop(upload);
        assert_eq!(fs::read_dir(folder.path().join("1-full")).unwrap().count(), 0);
    }
}
