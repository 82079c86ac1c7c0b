//! `Publish`: the registry on shared files. Reads the newest version, makes the next one, publishes it by LINK.
//! What a publication came to is `verdict`'s to say; this file carries it out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::change::Change;
use super::files::{File, Files, Link};
use super::image::{self, IMAGE_MAX};
use super::names::{self, CURRENT, Listing};
use super::verdict::{Verdict, by_history, verdict};
use super::view::{RING, Stamp, View};
use super::{Error, Registry, Revision};
use crate::base::{BoxFuture, clock};

/// Versions that stay: what an operator can go back to, and the sleep from which an author still wakes in time to see itself.
pub const VERSIONS_KEPT: u64 = 50;
const _: () = assert!(VERSIONS_KEPT < RING as u64);

/// A commit that others overtake again and again gives up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses of those who lost, from one that spreads them to one that lets everybody through.
const PAUSE_MS: (u64, u64) = (2, 100);
/// Looks at a listing that contradicts what is known, and the pause between them.
const LOOKS: usize = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

pub struct Publish {
    files: Arc<dyn Files>,
    author: String,
    boot: u64,
    sequence: AtomicU64,
    /// One commit at a time: those of one process shall not race each other.
    turn: tokio::sync::Mutex<()>,
    seen: Mutex<Seen>,
    numbers: Numbers,
}

/// Where random numbers come from, none of them 0.
type Numbers = Arc<dyn Fn() -> Result<u64, Error> + Send + Sync>;

#[derive(Clone, Default)]
struct Seen {
    newest: Arc<View>,
    image: Bytes,
    /// The registry never goes back behind this.
    highest: Revision,
    /// 0: of no registry yet.
    lineage: u64,
}

/// A version as it lies on the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub revision: Revision,
    pub size: u64,
}

impl Publish {
    /// `author`: this node's name. `boot`: random, of this start of the program. `last_seen`: what this machine saw last;
    /// another registry, or an older version of it, is then refused.
    pub fn new(files: Arc<dyn Files>, author: &str, boot: u64, last_seen: Option<&View>) -> Self {
        Publish::with_numbers(files, author, boot, last_seen, Arc::new(random))
    }

    pub(super) fn with_numbers(
        files: Arc<dyn Files>,
        author: &str,
        boot: u64,
        last_seen: Option<&View>,
        numbers: Numbers,
    ) -> Self {
        let seen = Seen {
            highest: last_seen.map_or(0, |view| view.revision),
            lineage: last_seen.map_or(0, |view| view.lineage),
            ..Seen::default()
        };
        Publish {
            files,
            author: author.to_string(),
            boot,
            sequence: AtomicU64::new(0),
            turn: tokio::sync::Mutex::default(),
            seen: Mutex::new(seen),
            numbers,
        }
    }

    /// The newest version and its image.
    pub async fn newest(&self) -> Result<(Arc<View>, Bytes), Error> {
        for _ in 0..LOOKS {
            let seen = self.seen().clone();
            let newest = self.listing().await?.newest();
            if newest < seen.highest {
                // A listing may be older than what another call has seen meanwhile; not for long.
                sleep(LOOK_PAUSE).await;
                continue;
            }
            if newest == seen.newest.revision {
                return Ok((seen.newest, seen.image));
            }
            // `None`: it was collected, so there are newer ones.
            if let Some((view, image)) = self.load(newest).await? {
                return Ok((self.remember(view, image.clone()), image));
            }
        }
        Err(Error::Damaged(format!(
            "version {} was there and is no more; restore the files of the registry",
            self.seen().highest
        )))
    }

    /// A version that is still kept, and its image; `None`: it is not.
    pub async fn version(&self, revision: Revision) -> Result<Option<(View, Bytes)>, Error> {
        let (newest, _) = self.newest().await?;
        // Below the floor there may be what a sleeping author left.
        if revision < newest.floor || revision > newest.revision {
            return Ok(None);
        }
        self.load(revision).await
    }

    /// The versions that are kept, oldest first.
    pub async fn versions(&self) -> Result<Vec<Version>, Error> {
        let (newest, _) = self.newest().await?;
        let mut versions = Vec::new();
        for revision in self.listing().await?.versions {
            if revision < newest.floor {
                continue;
            }
            if let Some(found) = self.files.look(&names::version(revision)).await? {
                let size = found.size;
                versions.push(Version { revision, size });
            }
        }
        Ok(versions)
    }

    async fn load(&self, revision: Revision) -> Result<Option<(View, Bytes)>, Error> {
        let name = names::version(revision);
        // One byte more shows that it is too large.
        let Some(image) = self.files.read(&name, IMAGE_MAX + 1).await? else {
            return Ok(None);
        };
        let bytes = image.clone();
        let view = blocking(move || image::view(&bytes))
            .await
            .map_err(|error| match error {
                Error::Damaged(why) => Error::Damaged(format!(
                    "{name}: {why}; an earlier version can be exported with `bitrix-node registry export --revision N`"
                )),
                other => other,
            })?;
        if view.revision != revision {
            return Err(Error::Damaged(format!("{name} holds version {}", view.revision)));
        }
        let known = self.seen().lineage;
        if known != 0 && known != view.lineage {
            let why = "these files hold another registry than this machine has seen; point it to the right one, \
                       or remove the folder `view` in data_dir to begin anew";
            return Err(Error::Damaged(why.into()));
        }
        Ok(Some((view, image)))
    }

    async fn listing(&self) -> Result<Listing, Error> {
        Ok(Listing::parse(&self.files.list().await?))
    }

    fn remember(&self, view: View, image: Bytes) -> Arc<View> {
        let view = Arc::new(view);
        let mut seen = self.seen();
        if view.revision >= seen.highest {
            *seen = Seen {
                highest: view.revision,
                lineage: view.lineage,
                newest: view.clone(),
                image,
            };
        }
        view
    }

    async fn change(&self, change: Change) -> Result<Arc<View>, Error> {
        let _turn = self.turn.lock().await;
        let change = Arc::new(change);
        let end = Instant::now() + PATIENCE;
        let mut pause = PAUSE_MS.0;
        loop {
            if let Some(view) = self.attempt(&change, end).await? {
                return Ok(view);
            }
            if Instant::now() >= end {
                return Err(Error::Stale("others were quicker again and again".into()));
            }
            sleep(Duration::from_millis(1 + (self.numbers)()? % pause)).await;
            pause = (pause * 2).min(PAUSE_MS.1);
        }
    }

    /// Makes and publishes one image; `None`: another was quicker.
    async fn attempt(&self, change: &Arc<Change>, end: Instant) -> Result<Option<Arc<View>>, Error> {
        let (base, bytes) = self.newest().await?;
        let stamp = Stamp {
            author: self.author.clone(),
            time: clock::unix_millis(),
            attempt: (self.numbers)()?,
            kept: VERSIONS_KEPT,
        };
        let (change, attempt) = (change.clone(), stamp.attempt);
        let made = blocking(move || {
            let image = (base.revision > 0).then_some(&bytes[..]);
            image::next(image, &base, &change, &stamp)
        });
        let (image, next) = made.await?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let name = names::temporary(next.revision, &self.author, self.boot, sequence);
        let file = self.files.create(&name, image.clone()).await?;
        let (has_won, listing) = self.publish(&file, next.revision, attempt, end).await?;
        if !has_won {
            self.tidy(self.files.remove(&name).await);
            return Ok(None);
        }
        let floor = next.floor;
        let next = self.remember(next, image);
        // Everything from here on is for order only: the version is published.
        let is_newest = listing.newest() == next.revision;
        self.tidy(match is_newest {
            true => self.files.rename(&name, CURRENT).await,
            false => self.files.remove(&name).await,
        });
        for old in listing.garbage(floor) {
            self.tidy(self.files.remove(&old).await);
        }
        Ok(Some(next))
    }

    /// Links the file, then finds out whether it is the version. Ends with certainty or with `Unreachable`.
    async fn publish(
        &self,
        file: &File,
        wanted: Revision,
        attempt: u64,
        end: Instant,
    ) -> Result<(bool, Listing), Error> {
        let name = names::version(wanted);
        loop {
            let linked = self.files.link(file, &name).await;
            let is_mine = match &linked {
                Ok(Link::Made) => Some(true),
                // An earlier attempt to link may have succeeded although its reply was lost.
                Ok(Link::Exists | Link::Gone) | Err(_) => {
                    let found = self.files.look(&name).await?;
                    found.map(|found| found.id == file.id)
                }
            };
            let listing = self.listing().await?;
            let found = verdict(wanted, is_mine, listing.newest());
            match (found, linked) {
                (Verdict::Won, _) => return Ok((true, listing)),
                // A request without a reply may be carried out yet: only its repetition is certain.
                (Verdict::Lost, Err(failure)) if is_mine.is_none() && Instant::now() >= end => {
                    return Err(failure.into());
                }
                (Verdict::Lost, Err(_)) if is_mine.is_none() => sleep(LOOK_PAUSE).await,
                (Verdict::Lost, _) => return Ok((false, listing)),
                (Verdict::AskHistory, _) => {
                    if let Some(has_won) = self.ask_history(wanted, attempt).await? {
                        return Ok((has_won, listing));
                    }
                    let why = format!("what became of version {wanted} is no longer in the history");
                    return Err(Error::Unreachable(why));
                }
                (Verdict::LookAgain, _) if Instant::now() >= end => {
                    return Err(Error::Damaged(format!("{name} is there and is not listed")));
                }
                (Verdict::LookAgain, _) => sleep(LOOK_PAUSE).await,
            }
        }
    }

    /// Whether the attempt made the version, as the newest one tells it.
    async fn ask_history(&self, wanted: Revision, attempt: u64) -> Result<Option<bool>, Error> {
        let (newest, _) = self.newest().await?;
        Ok(by_history(attempt, newest.attempt_of(wanted)))
    }

    /// What could not be put in order is so after a later commit.
    fn tidy(&self, result: Result<(), super::Failure>) {
        if let Err(failure) = result {
            debug!(%failure, "left in the registry's folder");
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for Publish {
    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(async move { Ok(self.newest().await?.0.revision) })
    }

    fn read(&self) -> BoxFuture<'_, Result<Arc<View>, Error>> {
        Box::pin(async move { Ok(self.newest().await?.0) })
    }

    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Arc<View>, Error>> {
        Box::pin(self.change(change))
    }
}

/// Work on SQLite takes milliseconds; a thread that serves shall not wait for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Damaged(format!("the work on the image ended: {error}")))?
}

/// A random number that is not 0.
pub fn random() -> Result<u64, Error> {
    let number = getrandom::u64().map_err(|error| Error::Unreachable(format!("no random numbers: {error}")))?;
    Ok(number.max(1))
}
