//! The kernel's table of mounts, and what it says of a folder. Reading it asks no file system anything, so it never blocks.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::fuse;
use super::order::Space;
use crate::config::Files;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub target: PathBuf,
    /// Type of the file system.
    pub kind: String,
    pub source: String,
    /// Of the file system, not of this mount of it.
    pub options: String,
    /// Of the file system's device number: what FUSE counts its connections by.
    pub minor: u32,
}

/// All mounts of a namespace, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Vec<Entry>);

/// What is mounted at a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    Nothing,
    /// What is wanted there.
    Ours,
    /// Something else, for people.
    Foreign(String),
}

impl Table {
    pub fn read(space: Space) -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read(space.process().join("mountinfo"))?))
    }

    /// proc_pid_mountinfo(5). A line that cannot be read is left out.
    pub fn parse(text: &[u8]) -> Self {
        Table(text.split(|byte| *byte == b'\n').filter_map(entry).collect())
    }

    /// What a path that ends at this folder meets: the mount on top.
    pub fn at(&self, folder: &Path) -> Option<&Entry> {
        self.0.iter().rev().find(|entry| entry.target == folder)
    }

    /// The mount that a path lies on.
    pub fn under(&self, path: &Path) -> Option<&Entry> {
        let holding = self.0.iter().filter(|entry| path.starts_with(&entry.target));
        // Of mounts on one folder the last one is seen; max_by_key takes the last of equals.
        holding.max_by_key(|entry| entry.target.components().count())
    }

    /// What is mounted on a folder or below it.
    pub fn below<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().filter(move |entry| entry.target.starts_with(folder))
    }

    /// Whether a folder lies on another file system than the root's and that of `own`: what is kept there is not on the disks of
    /// this machine's own.
    pub fn is_apart(&self, folder: &Path, own: &Path) -> bool {
        self.under(folder)
            .is_some_and(|entry| entry.target != Path::new("/") && Some(entry) != self.under(own))
    }

    /// `is_ours`: whether a mount is the wanted one.
    pub fn placed(&self, folder: &Path, is_ours: impl Fn(&Entry) -> bool) -> Placed {
        match self.at(folder) {
            None => Placed::Nothing,
            Some(entry) if is_ours(entry) => Placed::Ours,
            Some(entry) => Placed::Foreign(format!("{} ({})", entry.source, entry.kind)),
        }
    }
}

impl Files {
    /// As the table of mounts shows it; empty where somebody else mounts.
    pub fn source(&self) -> String {
        match self {
            Files::Mounted { export, .. } => export.source(),
            Files::Door { .. } => fuse::SOURCE.to_owned(),
            Files::Watched(_) => String::new(),
        }
    }

    /// What is mounted in their folder; `None` where somebody else mounts.
    pub fn placed(&self, table: &Table) -> Option<Placed> {
        match self {
            Files::Mounted { export, at } => Some(table.placed(at, |entry| export.is(entry))),
            Files::Door { at } => Some(table.placed(at, fuse::is)),
            Files::Watched(_) => None,
        }
    }
}

/// `id parent major:minor root target options [field…] - kind source options`
fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let target = fields.nth(1)?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (rest.next()?, rest.next()?);
    let options = rest.next().unwrap_or_default();
    let text = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
    Some(Entry {
        target: OsString::from_vec(unescaped(target)).into(),
        kind: text(kind),
        source: text(source),
        options: text(options),
        minor: text(device).split_once(':')?.1.parse().ok()?,
    })
}

/// Space, tab, line feed, backslash and `#` are written as three octal digits behind a backslash.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match tail.first_chunk::<3>().and_then(octal).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    const TABLE: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:21 / /proc rw - proc proc rw
30 21 0:30 / /srv/my\\040files rw,nosuid,nodev shared:7 master:2 - nfs 127.0.0.1:/portal rw,vers=3,port=2049,addr=127.0.0.1
31 21 0:31 / /mnt rw - tmpfs none rw
32 31 0:32 / /mnt rw - fuse.glusterfs nas:vol rw,user_id=0
short line
";

    fn table() -> Table {
        Table::parse(TABLE.as_bytes())
    }

    #[test]
    fn fields_are_found_behind_any_number_of_tags() {
        let table = table();
        let entry = table.at(Path::new("/srv/my files")).expect("mounted");
        assert_eq!(
            (entry.kind.as_str(), entry.source.as_str()),
            ("nfs", "127.0.0.1:/portal")
        );
        assert!(entry.options.ends_with("addr=127.0.0.1"));
        assert_eq!(entry.minor, 30);
        assert_eq!(table.0.len(), 5, "the broken line is left out");
        assert_eq!(table.at(Path::new("/")).expect("mounted").source, "/dev/sda1");
    }

    #[test]
    fn the_mount_on_top_counts() {
        let table = table();
        assert_eq!(table.at(Path::new("/mnt")).expect("mounted").source, "nas:vol");
        assert_eq!(table.under(Path::new("/mnt/a/b")).expect("mounted").source, "nas:vol");
        assert_eq!(table.under(Path::new("/mntx")).expect("mounted").source, "/dev/sda1");
        assert_eq!(table.at(Path::new("/mnt/a")), None);
    }

    #[test]
    fn a_folder_on_a_disk_of_the_machine_is_not_apart() {
        let table = table();
        let own = Path::new("/var/lib/bitrix-node");
        assert!(table.is_apart(Path::new("/mnt/files"), own));
        assert!(!table.is_apart(Path::new("/mnt/files"), Path::new("/mnt/data")));
        assert!(!table.is_apart(Path::new("/srv/files"), own));
    }

    #[test]
    fn escapes_are_undone_and_other_backslashes_stay() {
        for (field, expected) in [
            (&b"/a\\040b"[..], &b"/a b"[..]),
            (b"\\134\\011\\012\\043", b"\\\t\n#"),
            (b"/\\303\\244", "/ä".as_bytes()),
            (b"a\\", b"a\\"),
            (b"a\\04", b"a\\04"),
            (b"\\999\\+12", b"\\999\\+12"),
            (b"\\777", b"\\777"),
            (b"", b""),
        ] {
            assert_eq!(unescaped(field), expected);
        }
    }

    #[test]
    fn any_cut_of_a_line_is_read_without_panic() {
        for end in 0..TABLE.len() {
            let parsed = Table::parse(&TABLE.as_bytes()[..end]);
            assert!(
                parsed
                    .0
                    .iter()
                    .all(|entry| entry.target.as_os_str().as_bytes().first() == Some(&b'/'))
            );
        }
    }

    #[test]
    fn own_table_is_there() {
        let own = Table::read(Space::Own).expect("read");
        assert!(
            own.under(Path::new("/proc/self"))
                .is_some_and(|entry| entry.kind == "proc")
        );
    }
}
