//! The side that has the state.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::codec::{BLOB_MAX, Message, VERSION, Want};
use super::converse::{Ends, converse, unexpected};
use super::{CHUNK, Holds, Progress};
use crate::storage::replica::blocking;
use crate::storage::state::disk::is_unreadable;
use crate::storage::state::{Failure, Machine, Outgoing, Shared};

/// Contents that the disk may fail to give in one transfer. A bad sector is of one or two; of a disk that fails altogether a copy
/// would be worth nothing, and yet count as one.
const UNREADABLE: usize = 16;

/// Sends the state of `source` over a stream whose other end is at `receive`, with Raft's `header`; returns Raft's answer. While it
/// runs, `holds` keeps the log. Dropped, it leaves nothing behind.
pub async fn send<S>(
    stream: S,
    header: Bytes,
    source: &Shared,
    holds: &Holds,
    progress: &Arc<Progress>,
) -> io::Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let machine = source.get();
    // What the last checkpoint covers may be gone already.
    let _hold = holds.hold(machine.durable().unwrap_or(0));
    let progress = progress.clone();
    converse(stream, async |ends| {
        let mut sender = Sender {
            ends,
            machine,
            progress,
            unreadable: 0,
        };
        blocking(move || sender.run(header)).await
    })
    .await
}

struct Sender {
    ends: Ends,
    machine: Arc<Machine>,
    progress: Arc<Progress>,
    /// Contents that could not be read.
    unreadable: usize,
}

impl Sender {
    fn run(&mut self, header: Bytes) -> io::Result<Bytes> {
        let outgoing = self.machine.outgoing().map_err(failed)?;
        self.hello(header, &outgoing)?;
        match self.ends.next()? {
            Message::Begin { version: 0, .. } => return Err(other_version(0)),
            Message::Begin { with_state: true, .. } => self.state(outgoing)?,
            Message::Begin { with_state: false, .. } => {}
            other => return Err(unexpected(&other)),
        }
        loop {
            match self.ends.next()? {
                Message::Wants(wants) => wants.iter().try_for_each(|want| self.content(want))?,
                Message::Done => {}
                Message::Answer(answer) => return Ok(answer),
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn hello(&self, header: Bytes, outgoing: &Outgoing) -> io::Result<()> {
        let (files, bytes) = outgoing.snapshot.total().map_err(failed)?;
        let note = Bytes::from(outgoing.snapshot.note().map_err(failed)?);
        if header.len() > BLOB_MAX || note.len() > BLOB_MAX {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the header or the note is too long",
            ));
        }
        self.progress.begin(files, bytes);
        self.ends.say(Message::Hello {
            version: VERSION,
            header,
            note,
            files,
            bytes,
        })
    }

    /// The metadata; their copy is removed then.
    fn state(&self, outgoing: Outgoing) -> io::Result<()> {
        let mut file = File::open(&outgoing.path)?;
        let mut hasher = blake3::Hasher::new();
        loop {
            let mut piece = vec![0; CHUNK];
            let count = file.read(&mut piece)?;
            if count == 0 {
                break;
            }
            piece.truncate(count);
            self.data(&mut hasher, piece)?;
        }
        self.ends.say(Message::End(*hasher.finalize().as_bytes()))
    }

    fn data(&self, hasher: &mut blake3::Hasher, piece: Vec<u8>) -> io::Result<()> {
        hasher.update(&piece);
        self.progress.sent(piece.len());
        self.ends.say(Message::Data(piece.into()))
    }

    fn content(&mut self, want: &Want) -> io::Result<()> {
        self.progress.file(want.size);
        if let Some(leftover) = want.leftover
            && self.checksum(want)? == Some(leftover)
        {
            return self.ends.say(Message::Same(want.inode));
        }
        let Some(first) = self.piece(want, 0)? else {
            self.report_damage(want)?;
            return self.ends.say(Message::Gone(want.inode));
        };
        self.ends.say(Message::Content(want.inode))?;
        let (mut hasher, mut at, mut piece) = (blake3::Hasher::new(), 0, Some(first));
        // Removed meanwhile is as good as cut short: the log has both.
        while let Some(data) = piece.filter(|data| !data.is_empty()) {
            at += data.len() as u64;
            self.data(&mut hasher, data)?;
            piece = self.piece(want, at)?;
        }
        if at < want.size {
            self.report_damage(want)?;
        }
        self.ends.say(Message::End(*hasher.finalize().as_bytes()))
    }

    /// Only the bytes that count at X: what lies behind them was written later and is written again.
    /// `None`: it is gone, or cannot be read.
    fn piece(&mut self, want: &Want, at: u64) -> io::Result<Option<Vec<u8>>> {
        let count = (want.size - at.min(want.size)).min(CHUNK as u64);
        let count = usize::try_from(count).expect("at most a chunk");
        match self.machine.peek(want.inode, at, count) {
            Err(Failure::Io(error)) if is_unreadable(&error) && self.unreadable < UNREADABLE => {
                tracing::error!(inode = want.inode.0, at, %error, "a content cannot be read from the disk");
                self.unreadable += 1;
                Ok(None)
            }
            other => other.map_err(failed),
        }
    }

    /// `None`: it is shorter now, or gone, or cannot be read.
    fn checksum(&mut self, want: &Want) -> io::Result<Option<[u8; 32]>> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        while let Some(data) = self.piece(want, at)?.filter(|data| !data.is_empty()) {
            hasher.update(&data);
            at += data.len() as u64;
        }
        Ok((at == want.size).then(|| *hasher.finalize().as_bytes()))
    }

    /// Bytes that are missing or cannot be read although nothing has changed: the receiver gets the same damage, and the scrub must
    /// mend both.
    fn report_damage(&self, want: &Want) -> io::Result<()> {
        let now = self.machine.facts([want.inode].into_iter()).map_err(failed)?;
        let is_damaged = now.into_iter().flatten().any(|fact| fact.size == want.size);
        if is_damaged && want.size > 0 {
            tracing::error!(inode = want.inode.0, "a content is sent shorter than its metadata say");
        }
        Ok(())
    }
}

pub fn other_version(version: u16) -> io::Error {
    let why = format!("transfers of version {version} are not known here");
    io::Error::new(ErrorKind::Unsupported, why)
}

pub fn failed(failure: Failure) -> io::Error {
    match failure {
        Failure::NoSpace => io::Error::new(ErrorKind::StorageFull, failure),
        other => io::Error::other(other),
    }
}
