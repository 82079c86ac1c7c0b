//! Calls to an NFS server that always end: with a time-out, over a fresh connection after any doubt, and again until the
//! whole patience is used up. So a call may be executed twice; those who use it are safe against that.
//!
//! A connection has one call under way. After an error, a time-out or a reply to something else it is dropped.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nfs3_client::rpc::RpcClient;
use nfs3_client::{MountClient, MountError};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::{NFS_PROGRAM, Nfs3Result, PROGRAM, VERSION, nfs_fh3, nfsstat3};
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::files::Failure;
use super::nfs_server::{Io, Program, Transport};
use crate::base::backoff::Backoff;

/// For one reply. Longer than a fail-over of the storage takes, during which its door holds calls back.
const CALL: Duration = Duration::from_secs(4);
/// For a call with all its repetitions.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between repetitions.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// Connections at once: heartbeats shall not wait for a commit. Further calls wait.
const CONNECTIONS: usize = 4;

type Connection = RpcClient<Io>;

pub struct Client {
    transport: Transport,
    /// Name of this machine and boot, by which the server tells our calls from those of others.
    machine: String,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Client {
    pub fn new(transport: Transport, machine: String) -> Self {
        Client {
            transport,
            machine,
            idle: Mutex::default(),
            places: Semaphore::new(CONNECTIONS),
        }
    }

    /// Calls until the server answers with a result or a refusal that will stay.
    pub async fn call<C, T, E>(&self, procedure: NFS_PROGRAM, arguments: &C) -> Result<Result<T, nfsstat3>, Failure>
    where
        C: Pack + Send + Sync,
        Nfs3Result<T, E>: Unpack,
    {
        let mut tries = Tries::start();
        loop {
            let tried = timeout_at(tries.until(), self.call_once(procedure, arguments)).await;
            match tried.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(Nfs3Result::Ok(result)) => return Ok(Ok(result)),
                // The server is busy with itself: to be asked again.
                Ok(Nfs3Result::Err((nfsstat3::NFS3ERR_JUKEBOX, _))) => {
                    tries.again(io::Error::other("it has no leader, or is busy")).await?;
                }
                Ok(Nfs3Result::Err((status, _))) => return Ok(Err(status)),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// The root of an export.
    pub async fn mount(&self, export: &str) -> Result<nfs_fh3, Failure> {
        let mut tries = Tries::start();
        loop {
            let tried = timeout_at(tries.until(), self.mount_once(export)).await;
            match tried.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(mounted) => return mounted,
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Dropped half-way, it drops the connection too.
    async fn call_once<C: Pack + Send + Sync, R: Unpack>(
        &self,
        procedure: NFS_PROGRAM,
        arguments: &C,
    ) -> io::Result<R> {
        let _place = self.places.acquire().await.map_err(io::Error::other)?;
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let reply = connection
            .call::<C, R>(PROGRAM, VERSION, procedure as u32, arguments)
            .await;
        let reply = reply.map_err(|error| io::Error::other(format!("{procedure:?}: {error}")))?;
        self.lock().push(connection);
        Ok(reply)
    }

    async fn mount_once(&self, export: &str) -> io::Result<Result<nfs_fh3, Failure>> {
        let stream = Io(self.transport.dial(Program::Mount).await?);
        let mut client = MountClient::new_with_auth(stream, self.credential(), opaque_auth::default());
        match client.mnt(dirpath(Opaque::borrowed(export.as_bytes()))).await {
            Ok(mounted) => Ok(Ok(nfs_fh3 {
                data: mounted.fhandle.0,
            })),
            Err(MountError::Denied(why)) => Ok(Err(Failure(format!("mount {export}: {why:?}")))),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let stream = Io(self.transport.dial(Program::Nfs).await?);
        Ok(RpcClient::new_with_auth(
            stream,
            self.credential(),
            opaque_auth::default(),
        ))
    }

    fn credential(&self) -> opaque_auth<'static> {
        opaque_auth::auth_unix(&auth_unix {
            machinename: Opaque::owned(self.machine.clone().into_bytes()),
            ..auth_unix::default()
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repetitions of one call.
struct Tries {
    end: Instant,
    retry: Backoff,
}

impl Tries {
    fn start() -> Self {
        Tries {
            end: Instant::now() + PATIENCE,
            retry: Backoff::new(RETRY.0, RETRY.1),
        }
    }

    /// When the attempt that begins now must have ended.
    fn until(&self) -> Instant {
        self.end.min(Instant::now() + CALL)
    }

    /// Pauses before the next attempt, or fails with the last one's error when there is no time for one.
    async fn again(&mut self, error: io::Error) -> Result<(), Failure> {
        debug!(%error, "NFS call to be repeated");
        let delay = self.retry.delay();
        if Instant::now() + delay >= self.end {
            return Err(Failure(error.to_string()));
        }
        sleep(delay).await;
        Ok(())
    }
}
