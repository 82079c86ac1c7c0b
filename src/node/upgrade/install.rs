//! The file of this executable. A candidate is read once: what was checked is what is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::signature::Key;
use crate::base::file::{Access, replace};

/// Ten times what an executable of ours has.
const LARGEST: u64 = 256 << 20;
const SIGNATURE: u64 = 64;
/// What this very process was started from, also when another file has taken its name.
const RUNNING: &str = "/proc/self/exe";
const ACCESS: Access = Access::owned(0o755, 0, 0);

/// A whole file that may become the executable.
pub struct Candidate {
    content: Vec<u8>,
    /// BLAKE3, in hexadecimal digits.
    pub hash: String,
}

impl Candidate {
    /// Whoever may write there can neither lead us elsewhere nor let us wait.
    pub fn read(path: &Path) -> io::Result<Self> {
        let content = whole(path, LARGEST)?;
        let hash = blake3::hash(&content).to_hex().to_string();
        Ok(Candidate { content, hash })
    }

    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The signature beside it, in a file of the same name with `.sig`. Errors come with their remedy.
    pub fn verify(&self, path: &Path, key: &Key) -> Result<(), String> {
        let place = beside(path, ".sig");
        let signature = whole(&place, SIGNATURE).map_err(|error| format!("no signature: {error}"))?;
        match key.has_signed(&self.content, &signature) {
            true => Ok(()),
            false => Err(format!(
                "{} is no signature of {} by the key of this node; get both again from where they were released",
                place.display(),
                path.display()
            )),
        }
    }
}

/// Where the executable lies.
#[derive(Clone, Debug)]
pub struct Place {
    pub executable: PathBuf,
}

impl Place {
    pub fn new(executable: PathBuf) -> Self {
        Place { executable }
    }

    /// The one before.
    pub fn previous(&self) -> PathBuf {
        beside(&self.executable, ".previous")
    }

    /// Puts it in place of the executable, which is kept as the previous one.
    pub fn install(&self, candidate: &Candidate) -> io::Result<()> {
        let current = whole(&self.executable, LARGEST)?;
        replace(&self.previous(), &current, ACCESS)?;
        replace(&self.executable, &candidate.content, ACCESS)
    }

    /// Whether another file has taken the place of the one that this process was started from.
    pub fn is_changed(&self) -> io::Result<bool> {
        let (running, placed) = (fs::metadata(RUNNING)?, fs::metadata(&self.executable)?);
        Ok((running.dev(), running.ino()) != (placed.dev(), placed.ino()))
    }

    /// Keeps what this process was started from as the previous one, whoever replaced its file.
    pub fn keep_running(&self) -> io::Result<()> {
        let mut content = Vec::new();
        File::open(RUNNING)?.take(LARGEST).read_to_end(&mut content)?;
        replace(&self.previous(), &content, ACCESS)
    }

    /// The previous one becomes the executable again; the other one is removed, or kept as the previous where `swap`.
    pub fn restore(&self, swap: bool) -> io::Result<()> {
        let previous = whole(&self.previous(), LARGEST)?;
        let current = swap.then(|| whole(&self.executable, LARGEST)).transpose()?;
        replace(&self.executable, &previous, ACCESS)?;
        match current {
            Some(current) => replace(&self.previous(), &current, ACCESS),
            None => Ok(()),
        }
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(end);
    name.into()
}

/// A plain file of at most so many bytes; a link or a pipe is refused.
fn whole(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let read = || -> io::Result<Vec<u8>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("is not a plain file"));
        }
        let mut content = Vec::new();
        file.take(most + 1).read_to_end(&mut content)?;
        match content.len() as u64 > most {
            true => Err(io::Error::other(format!("has more than {most} bytes"))),
            false => Ok(content),
        }
    };
    read().map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::Ed25519KeyPair;
    use std::os::unix::fs::symlink;

    fn place() -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().expect("temp dir");
        let place = Place::new(folder.path().join("program"));
        fs::write(&place.executable, "one").expect("written");
        (folder, place)
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("readable")
    }

    #[test]
    fn what_is_installed_can_be_taken_back() {
        let (folder, place) = place();
        let new = folder.path().join("new");
        fs::write(&new, "two").expect("written");
        let candidate = Candidate::read(&new).expect("read");
        // What becomes of the file after it was read does not matter.
        fs::write(&new, "three").expect("written");
        place.install(&candidate).expect("installed");
        assert_eq!(
            (text(&place.executable).as_str(), text(&place.previous()).as_str()),
            ("two", "one")
        );
        assert_eq!(fs::metadata(&place.executable).expect("there").mode() & 0o7777, 0o755);
        place.restore(true).expect("swapped");
        assert_eq!(
            (text(&place.executable).as_str(), text(&place.previous()).as_str()),
            ("one", "two")
        );
        place.restore(false).expect("restored");
        assert_eq!(
            (text(&place.executable).as_str(), text(&place.previous()).as_str()),
            ("two", "two")
        );
    }

    #[test]
    fn links_pipes_and_what_is_too_large_are_refused() {
        let (folder, place) = place();
        let link = folder.path().join("link");
        symlink(&place.executable, &link).expect("linked");
        assert!(Candidate::read(&link).is_err());
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert!(Candidate::read(&pipe).is_err(), "and nobody waits for a writer");
        assert!(whole(&place.executable, 2).is_err());
        assert!(Candidate::read(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn a_signature_is_of_this_file_by_this_key() {
        let (folder, place) = place();
        let holder = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
        let key = key_of(&holder);
        let new = folder.path().join("new");
        fs::write(&new, "two").expect("written");
        let candidate = Candidate::read(&new).expect("read");
        let why = candidate.verify(&new, &key).expect_err("there is none");
        assert!(why.starts_with("no signature"), "{why}");
        fs::write(folder.path().join("new.sig"), holder.sign(b"two")).expect("written");
        assert_eq!(candidate.verify(&new, &key), Ok(()));
        let other = key_of(&Ed25519KeyPair::from_seed_unchecked(&[8; 32]).expect("a seed"));
        assert!(candidate.verify(&new, &other).is_err());
        assert!(
            Candidate::read(&place.executable)
                .expect("read")
                .verify(&new, &key)
                .is_err()
        );
    }

    fn key_of(holder: &Ed25519KeyPair) -> Key {
        use ring::signature::KeyPair;
        let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let der = [&head[..], holder.public_key().as_ref()].concat();
        Key::of_der(&der).expect("a key")
    }
}
