//! The side that needs the state.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Progress;
use super::choice::{Choice, choose};
use super::codec::{Message, VERSION, WANTS_MAX, Want};
use super::converse::{Ends, converse, cut, unexpected};
use super::sender::{failed, other_version};
use super::staging::Staging;
use crate::base::Scope;
use crate::base::file::{self, Access};
use crate::storage::call::Inode;
use crate::storage::replica::blocking;
use crate::storage::state::disk::{Disk, SystemDisk};
use crate::storage::state::{FileFact, Incoming, Machine, Shared, Snapshot, content_in};
use crate::storage::types::Checkpoint;

/// Facts read at once.
const PAGE: usize = 1000;
/// Requests on their way: while one is answered, the next is there. The sender's queue takes more.
const ASKED: usize = 2;

/// What this replica has.
pub struct Local {
    pub machine: Shared,
    pub disk: Arc<dyn Disk>,
    /// Contents (a folder `data`) of a state of another history, on the same file system.
    pub leftover: Option<PathBuf>,
}

/// Receives a state into `place`, which `Replica::incoming` gave, has `install` take it, and says its answer to the sender. An
/// error or a drop leaves what has arrived for the next attempt. One at a time: another fails at once. Once begun, the
/// installation comes to its end in `scope`, for Raft may have taken it already; until then no other transfer begins.
pub async fn receive<S, F>(
    stream: S,
    place: Checkpoint,
    local: Local,
    scope: &Scope,
    progress: Arc<Progress>,
    install: impl FnOnce(Bytes, Checkpoint) -> F,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = Bytes> + Send + 'static,
{
    let alone = file::try_lock(&place.folder.with_extension("lock"))?
        .ok_or_else(|| io::Error::new(ErrorKind::ResourceBusy, "another transfer is under way"))?;
    let (incoming, disk) = (Incoming::at(place.folder.clone()), local.disk.clone());
    converse(stream, async |ends| {
        let staged = incoming.clone();
        let (ends, header, alone) = blocking(move || {
            let (ends, header) = Receiver::new(ends, staged, local, progress)?.run()?;
            Ok((ends, header, alone))
        })
        .await?;
        let installing = install(header, place);
        let installed = scope.spawn(async move {
            let answer = installing.await;
            // Raft may have said no, or that it has all of this.
            blocking(move || incoming.withdraw(disk.as_ref()).map_err(failed)).await?;
            drop(alone);
            Ok::<_, io::Error>(answer)
        });
        let answer = installed.await.map_err(io::Error::other)?.ok_or_else(cut)??;
        ends.say_later(Message::Answer(answer)).await
    })
    .await
}

/// As `receive` for a replica without files: what the note says is all it needs, and lies in `place` before `install` is called.
pub async fn receive_note<S, F>(
    stream: S,
    place: Checkpoint,
    install: impl FnOnce(Bytes, Checkpoint) -> F,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = Bytes>,
{
    converse(stream, async |mut ends| {
        let folder = place.folder.clone();
        let (ends, header) = blocking(move || {
            let (header, note) = hello(&mut ends, false, &Progress::default())?;
            file::replace(&folder.join(NOTE), &note, Access::mode(0o600))?;
            ends.say(Message::Done)?;
            Ok((ends, header))
        })
        .await?;
        let answer = install(header, place).await;
        ends.say_later(Message::Answer(answer)).await
    })
    .await
}

/// The file that `receive_note` leaves.
pub const NOTE: &str = "incoming";

/// Removes what has arrived in `place`, unless a transfer is under way: a replica that follows the log again needs it no more.
pub fn discard(place: &Checkpoint) -> io::Result<()> {
    let folder = &place.folder;
    if !folder.exists() {
        return Ok(());
    }
    match file::try_lock(&folder.with_extension("lock"))? {
        Some(_alone) => Incoming::at(folder.clone()).discard(&SystemDisk).map_err(failed),
        None => Ok(()),
    }
}

/// Header and note.
fn hello(ends: &mut Ends, with_state: bool, progress: &Progress) -> io::Result<(Bytes, Bytes)> {
    match ends.next()? {
        Message::Hello { version: 0, .. } => Err(other_version(0)),
        Message::Hello {
            header,
            note,
            files,
            bytes,
            ..
        } => {
            progress.begin(files, bytes);
            ends.say(Message::Begin {
                version: VERSION,
                with_state,
            })?;
            Ok((header, note))
        }
        other => Err(unexpected(&other)),
    }
}

struct Receiver {
    ends: Ends,
    staging: Staging,
    local: Local,
    machine: Arc<Machine>,
    progress: Arc<Progress>,
}

impl Receiver {
    fn new(ends: Ends, incoming: Incoming, local: Local, progress: Arc<Progress>) -> io::Result<Self> {
        let machine = local.machine.get();
        Ok(Receiver {
            ends,
            staging: Staging::open(incoming, local.disk.clone(), machine.clone()).map_err(failed)?,
            machine,
            local,
            progress,
        })
    }

    fn run(mut self) -> io::Result<(Ends, Bytes)> {
        match self.take_all() {
            Ok(header) => Ok((self.ends, header)),
            Err(error) => {
                // A cut costs nothing of what arrived whole. What this says matters less than why it was cut.
                let _ = self.staging.settle();
                Err(error)
            }
        }
    }

    fn take_all(&mut self) -> io::Result<Bytes> {
        let (header, _) = hello(&mut self.ends, true, &self.progress)?;
        self.take_meta()?;
        let snapshot = self.staging.adopt().map_err(failed)?;
        let mut rest = Rest::new(snapshot);
        let mut asked = VecDeque::new();
        loop {
            while asked.len() < ASKED {
                let wants = self.wants(&mut rest)?;
                if wants.is_empty() {
                    break;
                }
                self.ends.say(Message::Wants(wants.clone()))?;
                asked.push_back(wants);
            }
            let Some(wants) = asked.pop_front() else { break };
            wants.iter().try_for_each(|want| self.take(want))?;
        }
        drop(rest);
        self.staging.complete().map_err(failed)?;
        self.ends.say(Message::Done)?;
        Ok(header)
    }

    fn take_meta(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file: File = options.open(self.staging.new_meta())?;
        self.pieces(u64::MAX, |_, _, data| file.write_all(data))?;
        file.sync_all()
    }

    /// Takes the pieces of one thing up to its end, and compares the checksum. `put` gets offset and bytes.
    fn pieces(
        &mut self,
        most: u64,
        mut put: impl FnMut(&mut Staging, u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0_u64);
        loop {
            match self.ends.next()? {
                Message::Data(data) if data.len() as u64 <= most - at => {
                    put(&mut self.staging, at, &data)?;
                    hasher.update(&data);
                    at += data.len() as u64;
                    self.progress.sent(data.len());
                }
                Message::End(checksum) if checksum == *hasher.finalize().as_bytes() => return Ok(at),
                Message::End(_) => {
                    let why = "what arrived has another checksum than what was sent";
                    return Err(io::Error::new(ErrorKind::InvalidData, why));
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// The next contents to ask for. Links what it can on the way; none left: the end.
    fn wants(&mut self, rest: &mut Rest) -> io::Result<Vec<Want>> {
        let mut wants = Vec::new();
        while wants.len() < WANTS_MAX {
            let Some((fact, own)) = rest.next(&self.machine)? else {
                break;
            };
            if !self.settled_here(&fact, own.as_ref())? {
                wants.push(Want {
                    inode: fact.inode,
                    size: fact.size,
                    leftover: self.leftover(&fact)?,
                });
            }
        }
        Ok(wants)
    }

    fn settled_here(&mut self, fact: &FileFact, own: Option<&FileFact>) -> io::Result<bool> {
        let has_arrived = self.staging.has(fact.inode).map_err(failed)?;
        let is_here = match choose(fact, own, has_arrived) {
            Choice::Arrived => true,
            Choice::Empty => {
                self.staging.create(fact.inode)?;
                self.staging.arrived(fact.inode, 0).map_err(failed)?;
                true
            }
            Choice::Link => {
                let content = self.machine.content_path(fact.inode);
                self.staging.link(&content, fact).map_err(failed)?
            }
            Choice::Ask => false,
        };
        if is_here {
            self.progress.file(fact.size);
        }
        Ok(is_here)
    }

    fn leftover_path(&self, inode: Inode) -> Option<PathBuf> {
        let data = self.local.leftover.as_ref()?;
        Some(content_in(data, inode))
    }

    /// BLAKE3 of a leftover that could be the content.
    fn leftover(&self, fact: &FileFact) -> io::Result<Option<[u8; 32]>> {
        let Some(path) = self.leftover_path(fact.inode) else {
            return Ok(None);
        };
        let (mut hasher, mut at, mut buffer) = (blake3::Hasher::new(), 0, vec![0; super::CHUNK]);
        while at < fact.size {
            let count = usize::try_from(fact.size - at).unwrap_or(usize::MAX).min(buffer.len());
            match self.local.disk.read_at(&path, at, &mut buffer[..count]) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
                Ok(0) => return Ok(None),
                Ok(found) => {
                    hasher.update(&buffer[..found]);
                    at += found as u64;
                }
            }
        }
        Ok(Some(*hasher.finalize().as_bytes()))
    }

    /// The answer to one request.
    fn take(&mut self, want: &Want) -> io::Result<()> {
        let inode = want.inode;
        match self.ends.next()? {
            Message::Content(given) if given == inode => {
                self.staging.create(inode)?;
                let bytes = self.pieces(want.size, |staging, at, data| staging.write(inode, at, data))?;
                self.staging.arrived(inode, bytes).map_err(failed)?;
            }
            Message::Same(given) if given == inode => self.take_leftover(want)?,
            Message::Gone(given) if given == inode => {}
            other => return Err(unexpected(&other)),
        }
        self.progress.file(want.size);
        Ok(())
    }

    fn take_leftover(&mut self, want: &Want) -> io::Result<()> {
        let path = self.leftover_path(want.inode).filter(|_| want.leftover.is_some());
        let path = path.ok_or_else(|| unexpected(&Message::Same(want.inode)))?;
        let fact = FileFact {
            inode: want.inode,
            generation: 0,
            size: want.size,
            content_index: 0,
        };
        match self.staging.link(&path, &fact).map_err(failed)? {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::NotFound, "a leftover content went away")),
        }
    }
}

/// The facts of the snapshot that were not looked at yet, page by page, with what the own state says of the same numbers.
struct Rest {
    snapshot: Snapshot,
    page: VecDeque<(FileFact, Option<FileFact>)>,
    after: Inode,
}

impl Rest {
    fn new(snapshot: Snapshot) -> Self {
        Rest {
            snapshot,
            page: VecDeque::new(),
            after: Inode(0),
        }
    }

    fn next(&mut self, machine: &Machine) -> io::Result<Option<(FileFact, Option<FileFact>)>> {
        if self.page.is_empty() {
            let facts = self.snapshot.page(self.after, PAGE).map_err(failed)?;
            let own = machine.facts(facts.iter().map(|fact| fact.inode)).map_err(failed)?;
            self.after = facts.last().map_or(self.after, |fact| fact.inode);
            self.page = facts.into_iter().zip(own).collect();
        }
        Ok(self.page.pop_front())
    }
}
