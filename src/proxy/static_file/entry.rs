//! What is known of a file: its state, its validators, its content while it is small and in demand, and that compressed.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;

use super::packed::Forms;
use super::root::Root;
use crate::base::clock;
use crate::proxy::conditional::{self, Coding};
use crate::proxy::content_type::{content_type, is_active, is_compressible};

/// Files up to this size are kept in memory.
const SMALL: u64 = 256 * 1024;

/// The same for text, which would be compressed anew for each answer otherwise.
const SMALL_TEXT: u64 = 2 * 1024 * 1024;

/// A file that changed more recently may change again within the same tick of its file system's clock:
/// it is not kept in memory, and its entity tag is weak (RFC 9110 §8.8.1).
const SETTLED: Duration = Duration::from_secs(2);

/// A node is looked at again when it was not for so long, in milliseconds: changes on disk show after a second.
const RECHECK: u64 = 1000;

/// Bookkeeping of one node beside its content, for the cache's budget.
const OVERHEAD: usize = 512;

/// Tells two states of a file apart, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file in one coding.
#[derive(Clone, Debug)]
pub struct Version {
    stamp: Stamp,
    /// Bytes as they are sent.
    size: u64,
    /// Compressed by us, so that two nodes need not have the same bytes.
    is_made: bool,
    /// Its content is kept.
    pub is_lasting: bool,
    pub coding: Option<Coding>,
    pub modified: SystemTime,
    pub last_modified: HeaderValue,
    /// Entity tag without quotes: time of change in nanoseconds, size, coding. Not the inode, so that all nodes that hold
    /// a copy of a file give it the same tag.
    tag: String,
    pub content: Option<Bytes>,
}

impl Version {
    fn new(metadata: &Metadata, coding: Option<Coding>) -> Self {
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut tag = format!("{:x}-{:x}", since.as_nanos(), metadata.size());
        if let Some(coding) = coding {
            tag.push('-');
            tag.push_str(coding.name());
        }
        // A date before 1970 cannot be written as an HTTP date.
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since);
        Version {
            stamp: Stamp::of(metadata),
            size: metadata.size(),
            is_made: false,
            is_lasting: false,
            coding,
            modified,
            last_modified: HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static("")),
            tag,
            content: None,
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// A file that is to be compressed, as it will be then. `content`: `None` while it is not yet.
    pub fn packed(&self, coding: Coding, content: Option<Bytes>) -> Version {
        Version {
            size: content.as_ref().map_or(0, |content| content.len() as u64),
            is_made: true,
            coding: Some(coding),
            tag: format!("{}-{}", self.tag, coding.name()),
            content,
            ..self.clone()
        }
    }

    pub fn is_made(&self) -> bool {
        self.is_made
    }

    pub fn etag(&self, wall: SystemTime) -> String {
        if self.is_settled(wall) && !self.is_made {
            format!("\"{}\"", self.tag)
        } else {
            format!("W/\"{}\"", self.tag)
        }
    }

    fn is_settled(&self, wall: SystemTime) -> bool {
        wall.duration_since(self.modified).is_ok_and(|age| age >= SETTLED)
    }

    /// Opens the file as it is now, unless `open` is just that; reads it when it is no larger than `small`. Blocking.
    pub fn read(&self, root: &Root, path: &str, open: Option<Arc<File>>, small: u64) -> io::Result<Opened> {
        let wall = clock::wall();
        let is_same = |file: &Arc<File>| file.metadata().is_ok_and(|state| Stamp::of(&state) == self.stamp);
        let file = match open.filter(is_same) {
            Some(open) => open,
            None => Arc::new(root.file(&relative(path, self.coding))?),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut version = Version::new(&metadata, self.coding);
        let is_same = version.stamp == self.stamp;
        if version.size() <= small {
            let mut content = vec![0; usize::try_from(version.size()).unwrap_or_default()];
            file.read_exact_at(&mut content, 0)?;
            version.content = Some(content.into());
            let after = Version::new(&file.metadata()?, self.coding);
            version.is_lasting = after.stamp == version.stamp && version.is_settled(wall);
        }
        Ok(Opened { version, file, is_same })
    }
}

/// A version as it was found when it was opened.
pub struct Opened {
    /// With its content, when small.
    pub version: Version,
    pub file: Arc<File>,
    /// It is the version that was asked for.
    pub is_same: bool,
}

/// What lies at a path.
pub struct Node {
    /// `None`: a folder.
    pub file: Option<Arc<Versions>>,
    /// When it was last compared with the disk, in milliseconds since `Files` was opened.
    checked: AtomicU64,
    /// When it was put into the cache, which takes the same away with it: its forms grow meanwhile.
    weight: u64,
}

#[derive(Clone)]
pub struct Versions {
    /// As requests name it.
    pub path: Box<str>,
    pub plain: Version,
    /// Precompressed copies beside it, not older than it.
    pub copies: Vec<Version>,
    /// The content as it was compressed for those who have no copy to take.
    pub forms: Forms,
    pub content_type: HeaderValue,
    pub extension: Box<str>,
    /// Lies where users' files lie.
    pub is_users: bool,
}

impl Node {
    /// Looks at the disk. `None`: nothing there. Blocking.
    pub fn probe(root: &Root, path: &str, extension: &str, now: u64) -> io::Result<Option<Node>> {
        let metadata = match root.file(&relative(path, None)).and_then(|file| file.metadata()) {
            Ok(metadata) => metadata,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = if metadata.is_dir() {
            None
        } else if metadata.is_file() && !path.ends_with('/') {
            Some(Arc::new(Versions::probe(root, path, extension, &metadata)))
        } else if metadata.is_file() {
            return Ok(None);
        } else {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "neither a file nor a folder",
            ));
        };
        Ok(Some(Node::new(file, now)))
    }

    /// A file of which one version was read or made just now; the next look compares the others too.
    pub fn of(file: Arc<Versions>) -> Node {
        Node::new(Some(file), 0)
    }

    fn new(file: Option<Arc<Versions>>, checked: u64) -> Node {
        Node {
            weight: weight(file.as_deref()),
            file,
            checked: AtomicU64::new(checked),
        }
    }

    /// Whether the caller shall compare it with the disk; told to one caller per period, others go on with what is known.
    pub fn is_due(&self, now: u64) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        now.saturating_sub(checked) >= RECHECK
            && self
                .checked
                .compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether the disk holds the same as when this was made.
    pub fn is_same(&self, other: &Node) -> bool {
        match (&self.file, &other.file) {
            (Some(one), Some(other)) => {
                let stamps = other.all().map(|version| &version.stamp);
                one.all().map(|version| &version.stamp).eq(stamps)
            }
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

fn weight(file: Option<&Versions>) -> u64 {
    let versions = file.iter().flat_map(|file| file.all());
    let content: usize = versions
        .filter_map(|version| version.content.as_ref())
        .map(Bytes::len)
        .sum();
    let made: usize = file.map_or(0, |file| file.forms.size());
    (OVERHEAD + content + made) as u64
}

impl Versions {
    /// The same file with one version's content put in.
    pub fn with(&self, version: Version) -> Versions {
        let mut file = self.clone();
        match file.copies.iter_mut().find(|copy| copy.coding == version.coding) {
            Some(copy) => *copy = version,
            None => {
                if file.plain.stamp != version.stamp {
                    file.forms = Forms::default();
                }
                file.plain = version;
            }
        }
        file
    }

    /// Up to this size it is kept in memory.
    pub fn small(&self) -> u64 {
        match is_compressible(&self.extension) {
            true => SMALL_TEXT,
            false => SMALL,
        }
    }

    /// Where one of its versions lies, as a name for it.
    pub fn place(&self, version: &Version) -> String {
        relative(&self.path, version.coding)
    }

    fn all(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.plain).chain(&self.copies)
    }

    fn probe(root: &Root, path: &str, extension: &str, metadata: &Metadata) -> Versions {
        let plain = Version::new(metadata, None);
        let mut copies = Vec::new();
        for coding in conditional::COPIES {
            if !is_compressible(extension) {
                break;
            }
            // A copy that cannot be read is no copy.
            let copy = root
                .file(&relative(path, Some(coding)))
                .and_then(|file| file.metadata());
            copies.extend(
                copy.ok()
                    .filter(Metadata::is_file)
                    .map(|metadata| Version::new(&metadata, Some(coding)))
                    .filter(|copy| copy.modified >= plain.modified),
            );
        }
        let is_users = ["/upload/", "/bitrix/images/", "/bitrix/tmp/"]
            .iter()
            .any(|tree| path.starts_with(tree));
        let kind = if is_users && is_active(extension) {
            "text/plain".to_string()
        } else {
            content_type(extension)
        };
        Versions {
            path: path.into(),
            plain,
            copies,
            forms: Forms::default(),
            content_type: HeaderValue::try_from(kind).unwrap_or(HeaderValue::from_static("application/octet-stream")),
            extension: extension.into(),
            is_users,
        }
    }
}

/// The path as `Root` wants it, with the ending of a precompressed copy.
fn relative(path: &str, coding: Option<Coding>) -> String {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    format!("{path}{}", coding.map_or("", conditional::suffix))
}

/// What a small file of settings holds.
pub enum Text {
    Missing,
    /// As it was when it had this stamp.
    Same,
    Changed(Stamp, String),
}

impl Text {
    /// Reads at most `most` bytes; a larger file is an error. `known`: its stamp when it was read last. Blocking.
    pub fn read(root: &Root, path: &str, known: Option<&Stamp>, most: u64) -> io::Result<Text> {
        let file = match root.file(path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(Text::Missing),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let stamp = Stamp::of(&metadata);
        if known == Some(&stamp) {
            return Ok(Text::Same);
        }
        if !metadata.is_file() || stamp.size > most {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no small file"));
        }
        let mut content = vec![0; usize::try_from(stamp.size).unwrap_or_default()];
        file.read_exact_at(&mut content, 0)?;
        String::from_utf8(content)
            .map(|text| Text::Changed(stamp, text))
            .map_err(|_| io::Error::new(io::ErrorKind::PermissionDenied, "not in UTF-8"))
    }
}

pub fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}
