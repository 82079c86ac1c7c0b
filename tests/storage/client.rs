//! An NFSv3 client that behaves as a kernel's on a hard mount: a call that brings no answer is sent again as it is, over the same door
//! or a new connection, until it is answered; one that is told to come later (JUKEBOX) is sent again under a new number (RFC 1813 §2.6).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nfs3_client::MountClient;
use nfs3_client::tokio::TokioIo;
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack, Void};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::history::{Call, History};

/// Without an answer for so long, the call is sent again. A kernel waits 60 s; a test has less time and more repetitions.
const REPEAT: Duration = Duration::from_secs(3);
/// For clients that shall hear what the door says when it has no answer.
const REPEAT_LATE: Duration = Duration::from_secs(60);
/// Before it comes again when told to come later; a kernel waits 5 s.
const LATER: Duration = Duration::from_millis(200);
/// Before a new connection.
const RECONNECT: Duration = Duration::from_millis(20);
/// Longer than any outage that a test makes.
const GIVE_UP: Duration = Duration::from_secs(180);

pub struct Client {
    pub name: String,
    pub door: usize,
    socket: PathBuf,
    stream: Option<UnixStream>,
    xid: u32,
    repeat: Duration,
    pub history: Arc<History>,
}

impl Client {
    /// The name makes it one client to the server, whatever its connections.
    pub fn new(name: String, door: usize, socket: PathBuf, history: Arc<History>) -> Self {
        Client {
            name,
            door,
            socket,
            stream: None,
            xid: 0,
            repeat: REPEAT,
            history,
        }
    }

    /// As long as a kernel waits before it sends a call again.
    pub fn patient(self) -> Self {
        Client {
            repeat: REPEAT_LATE,
            ..self
        }
    }

    /// The portal's root.
    pub async fn mount(&self) -> nfs_fh3 {
        let start = self.history.now();
        loop {
            let mounted = async {
                let stream = TokioIo::new(UnixStream::connect(&self.socket).await.ok()?);
                let mut client = MountClient::new(stream);
                let mounted = client.mnt(dirpath(Opaque::borrowed(b"/portal"))).await;
                Some(mounted.ok()?.fhandle.0)
            };
            if let Some(data) = mounted.await {
                return nfs_fh3 { data };
            }
            assert!(self.history.now() - start < GIVE_UP, "{}: nothing to mount", self.name);
            tokio::time::sleep(LATER).await;
        }
    }

    /// One call until it is answered.
    async fn call<T: Unpack, E: Unpack>(
        &mut self,
        (number, procedure): (u32, &'static str),
        target: &str,
        arguments: &impl Pack,
    ) -> Result<T, nfsstat3> {
        let start = self.history.now();
        let (mut sent, mut later) = (0, 0);
        loop {
            self.xid += 1;
            let record = record(self.xid, number, &self.name, arguments);
            let reply = loop {
                sent += 1;
                match tokio::time::timeout(self.repeat, self.exchange(&record)).await {
                    Ok(Ok(reply)) => break reply,
                    Ok(Err(_)) => tokio::time::sleep(RECONNECT).await,
                    Err(_) => {}
                }
                self.stream = None;
                let waited = self.history.now() - start;
                assert!(
                    waited < GIVE_UP,
                    "{}: {procedure} {target} was never answered",
                    self.name
                );
            };
            let (result, _) = Nfs3Result::<T, E>::unpack(&mut &reply[24..]).expect("a reply in XDR");
            let result = match result {
                Nfs3Result::Ok(done) => Ok(done),
                Nfs3Result::Err((nfsstat3::NFS3ERR_JUKEBOX, _)) => {
                    later += 1;
                    tokio::time::sleep(LATER).await;
                    continue;
                }
                Nfs3Result::Err((nfsstat3::NFS3ERR_NOSPC, _)) => {
                    self.history.full.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(LATER).await;
                    continue;
                }
                Nfs3Result::Err((status, _)) => Err(status),
            };
            self.history.add(Call {
                client: self.name.clone(),
                door: self.door,
                procedure,
                target: target.to_owned(),
                start,
                end: self.history.now(),
                sent,
                later,
                status: result.as_ref().err().map_or(0, |status| *status as u32),
            });
            return result;
        }
    }

    /// Sends a record and waits for the reply of its number.
    async fn exchange(&mut self, record: &[u8]) -> std::io::Result<Vec<u8>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(UnixStream::connect(&self.socket).await?),
        };
        stream.write_all(record).await?;
        loop {
            let length = stream.read_u32().await? & 0x7fff_ffff;
            let mut reply = vec![0; length as usize];
            stream.read_exact(&mut reply).await?;
            // An answer to what was sent before on this connection is nobody's any more.
            if reply[..4] == record[4..8] {
                assert_eq!(reply[4..24], words(&[1, 0, 0, 0, 0]), "accepted and executed");
                return Ok(reply);
            }
        }
    }

    pub async fn create(&mut self, folder: &nfs_fh3, name: &str) -> Result<nfs_fh3, nfsstat3> {
        let arguments = CREATE3args {
            where_: place(folder, name),
            how: createhow3::GUARDED(sattr3::default()),
        };
        let made = self
            .call::<CREATE3resok, CREATE3resfail>((8, "CREATE"), name, &arguments)
            .await?;
        Ok(made.obj.unwrap())
    }

    /// All of `data` from `offset` on; the file's time of change then.
    pub async fn write(&mut self, file: &nfs_fh3, what: &str, offset: u64, data: &[u8]) -> Result<nfstime3, nfsstat3> {
        let arguments = WRITE3args {
            file: file.clone(),
            offset,
            count: data.len() as u32,
            stable: stable_how::FILE_SYNC,
            data: Opaque::borrowed(data),
        };
        let written = self
            .call::<WRITE3resok, WRITE3resfail>((7, "WRITE"), what, &arguments)
            .await?;
        assert_eq!(
            (written.count as usize, written.committed),
            (data.len(), stable_how::FILE_SYNC)
        );
        Ok(written.file_wcc.after.unwrap().ctime)
    }

    /// Sets the mode if the file was not changed since `guard`.
    pub async fn set_mode(&mut self, file: &nfs_fh3, what: &str, mode: u32, guard: nfstime3) -> Result<(), nfsstat3> {
        let arguments = SETATTR3args {
            object: file.clone(),
            new_attributes: sattr3 {
                mode: set_mode3::Some(mode),
                ..sattr3::default()
            },
            guard: sattrguard3::Some(guard),
        };
        let set = self.call::<SETATTR3resok, SETATTR3resfail>((2, "SETATTR"), what, &arguments);
        set.await.map(drop)
    }

    pub async fn make_folder(&mut self, folder: &nfs_fh3, name: &str) -> Result<nfs_fh3, nfsstat3> {
        let arguments = MKDIR3args {
            where_: place(folder, name),
            attributes: sattr3::default(),
        };
        let made = self
            .call::<MKDIR3resok, MKDIR3resfail>((9, "MKDIR"), name, &arguments)
            .await?;
        Ok(made.obj.unwrap())
    }

    pub async fn remove(&mut self, folder: &nfs_fh3, name: &str) -> Result<(), nfsstat3> {
        let arguments = REMOVE3args {
            object: place(folder, name),
        };
        let removed = self.call::<REMOVE3resok, REMOVE3resfail>((12, "REMOVE"), name, &arguments);
        removed.await.map(drop)
    }

    pub async fn remove_folder(&mut self, folder: &nfs_fh3, name: &str) -> Result<(), nfsstat3> {
        let arguments = RMDIR3args {
            object: place(folder, name),
        };
        let removed = self.call::<RMDIR3resok, RMDIR3resfail>((13, "RMDIR"), name, &arguments);
        removed.await.map(drop)
    }

    pub async fn rename(&mut self, folder: &nfs_fh3, from: &str, to: &str) -> Result<(), nfsstat3> {
        let arguments = RENAME3args {
            from: place(folder, from),
            to: place(folder, to),
        };
        let renamed = self.call::<RENAME3resok, RENAME3resfail>((14, "RENAME"), from, &arguments);
        renamed.await.map(drop)
    }

    pub async fn link(&mut self, file: &nfs_fh3, folder: &nfs_fh3, name: &str) -> Result<(), nfsstat3> {
        let arguments = LINK3args {
            file: file.clone(),
            link: place(folder, name),
        };
        let linked = self.call::<LINK3resok, LINK3resfail>((15, "LINK"), name, &arguments);
        linked.await.map(drop)
    }

    pub async fn attributes(&mut self, file: &nfs_fh3, what: &str) -> Result<fattr3, nfsstat3> {
        let arguments = GETATTR3args { object: file.clone() };
        let found = self.call::<GETATTR3resok, Void>((1, "GETATTR"), what, &arguments);
        Ok(found.await?.obj_attributes)
    }

    pub async fn look_up(&mut self, folder: &nfs_fh3, name: &str) -> Result<(nfs_fh3, fattr3), nfsstat3> {
        let what = place(folder, name);
        let found = self
            .call::<LOOKUP3resok, LOOKUP3resfail>((3, "LOOKUP"), name, &LOOKUP3args { what })
            .await?;
        Ok((found.object, found.obj_attributes.unwrap()))
    }

    /// Up to 1 MiB from `offset` on, and whether that was the end.
    pub async fn read(&mut self, file: &nfs_fh3, what: &str, offset: u64) -> Result<(Vec<u8>, bool), nfsstat3> {
        let arguments = READ3args {
            file: file.clone(),
            offset,
            count: 1 << 20,
        };
        let read = self
            .call::<READ3resok<'static>, READ3resfail>((6, "READ"), what, &arguments)
            .await?;
        Ok((read.data.into_owned(), read.eof))
    }

    /// Names in a folder, without `.` and `..`.
    pub async fn list(&mut self, folder: &nfs_fh3, what: &str) -> Result<Vec<String>, nfsstat3> {
        let (mut cookie, mut cookieverf, mut names) = (0, cookieverf3::default(), Vec::new());
        loop {
            let arguments = READDIR3args {
                dir: folder.clone(),
                cookie,
                cookieverf,
                count: 1 << 16,
            };
            let page = self.call::<READDIR3resok<'static>, READDIR3resfail>((16, "READDIR"), what, &arguments);
            let page = page.await?;
            cookieverf = page.cookieverf;
            for entry in page.reply.entries.into_inner() {
                cookie = entry.cookie;
                let name = String::from_utf8(entry.name.0.to_vec()).unwrap();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            if page.reply.eof {
                return Ok(names);
            }
        }
    }
}

fn place<'a>(folder: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 {
        dir: folder.clone(),
        name: filename3(Opaque::borrowed(name.as_bytes())),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A whole record (RFC 5531 §11): a call of root on the machine `machine`.
fn record(xid: u32, procedure: u32, machine: &str, arguments: &impl Pack) -> Vec<u8> {
    let mut credential = words(&[0]);
    Opaque::borrowed(machine.as_bytes()).pack(&mut credential).unwrap();
    credential.extend(words(&[0, 0, 0]));
    let mut bytes = words(&[0, xid, 0, 2, PROGRAM, VERSION, procedure, 1]);
    Opaque::borrowed(&credential).pack(&mut bytes).unwrap();
    bytes.extend(words(&[0, 0]));
    arguments.pack(&mut bytes).unwrap();
    let mark = 0x8000_0000 | (bytes.len() as u32 - 4);
    bytes[..4].copy_from_slice(&mark.to_be_bytes());
    bytes
}
