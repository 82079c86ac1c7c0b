//! From a record to its reply: which program and procedure, who asks, repeated requests, waiting for a leader.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nfs3_types::nfs3::{self, nfsstat3};
use nfs3_types::rpc::accept_stat_data;
use nfs3_types::xdr_codec::Pack;
use nfs3_types::{mount as mount_protocol, portmap as portmap_protocol};
use quick_cache::sync::Cache;
use siphasher::sip::SipHasher13;
use tokio::time::Instant;

use super::convert::{self, STRING_MAX};
use super::handle::{Handle, Handles, Tree};
use super::replay::{Outcome, Replays};
use super::rpc::{self, Call, Record};
use super::xdr::{Garbage, Reader, pack};
use super::{attribute, data, listing, mount, name, portmap};
use crate::base::backoff::Backoff;
use crate::base::service::BoxFuture;
use crate::storage::call::{Attributes, Caller, DATA_MAX, Error, Inode, Mutation, Query, Reply};
use crate::storage::door::{Calls, RequestKey};

/// How long a call that changes nothing waits for a leader. Longer than a fail-over takes (seconds), shorter than the 60 s after
/// which a kernel client repeats it; then it is told to try later (JUKEBOX). A change is never told so: the client would send
/// it under a new number (RFC 1813 §2.6), and what was proposed under the old one may still happen, or have happened.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between tries: a fail-over shall be noticed soon, an outage not make work.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_CAP: Duration = Duration::from_millis(250);
/// Part of the arguments that tells requests with the same number apart. All but large WRITEs are shorter.
const CHECKED: usize = 4096;
/// Inodes whose generation is known; 16 bytes each and overhead: about 4 MiB.
const GENERATIONS: usize = 1 << 16;
/// Reply of a procedure that carries no data: attributes, a handle, a path at most.
const SMALL_REPLY: usize = 8192;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `None`: the unix socket, which only the agent can open.
    pub address: Option<IpAddr>,
    /// The port that it reached.
    pub port: u16,
    /// It may be anyone: it gets NULL and the portmapper only.
    pub is_stranger: bool,
}

impl Peer {
    pub fn may_use(&self, tree: Tree) -> bool {
        tree == Tree::Portal || self.address.is_none()
    }
}

/// What all connections share.
pub struct Door {
    pub(super) calls: Arc<dyn Calls>,
    pub(super) handles: Handles,
    replays: Replays,
    /// Ids are never reused, so what was found once stays true while the state behind `calls` lives.
    generations: Cache<u64, u32>,
}

/// Results of a procedure in XDR: `head`, then file data.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub head: Vec<u8>,
    pub data: Bytes,
    /// The same request may succeed later.
    pub is_transient: bool,
}

/// What a procedure is given beside its arguments.
pub(super) struct Context<'a> {
    pub door: &'a Door,
    pub peer: &'a Peer,
    pub caller: &'a Caller,
    /// Of a change.
    pub key: Option<RequestKey>,
    /// `None`: it waits without end; the client asks again when its connection ends.
    pub patience: Option<Duration>,
}

impl Door {
    pub fn new(calls: Arc<dyn Calls>, handles: Handles) -> Self {
        Door {
            calls,
            handles,
            replays: Replays::default(),
            generations: Cache::new(GENERATIONS),
        }
    }

    /// Executes a call. Not to be dropped half-way: the client would not learn what became of its change.
    pub async fn answer(&self, peer: &Peer, call: Call) -> Record {
        if peer.is_stranger && call.procedure != 0 && call.program != portmap_protocol::PROGRAM {
            return rpc::too_weak(call.xid);
        }
        let key = is_change(&call).then(|| request_key(peer, &call));
        let cx = Context {
            door: self,
            peer,
            caller: &call.caller,
            key,
            patience: key.is_none().then_some(PATIENCE),
        };
        if let Some(key) = key {
            return self.replays.once(key, execute(&cx, &call)).await;
        }
        match execute(&cx, &call).await {
            Outcome::Final(record) | Outcome::Transient(record) => record,
        }
    }
}

/// Bytes that a call may keep in memory until its reply is written: its arguments and the largest reply.
pub(super) fn weight(call: &Call) -> usize {
    let is_bulk = call.program == nfs3::PROGRAM && matches!(call.procedure, 6 | 16 | 17);
    let reply = match call.arguments.last_chunk::<4>() {
        // READ, READDIR and READDIRPLUS end with the largest wanted size.
        Some(count) if is_bulk => (u32::from_be_bytes(*count) as usize).min(DATA_MAX),
        _ => 0,
    };
    call.arguments.len() + SMALL_REPLY + reply
}

/// Procedures whose repetition would do harm or fail where the first one succeeded.
fn is_change(call: &Call) -> bool {
    call.program == nfs3::PROGRAM && call.version == nfs3::VERSION && matches!(call.procedure, 2 | 7..=15)
}

fn request_key(peer: &Peer, call: &Call) -> RequestKey {
    let mut client = SipHasher13::new();
    if let Some(address) = peer.address {
        client.write(address.to_canonical().to_string().as_bytes());
    }
    client.write_u8(0);
    client.write(&call.machine);
    let mut checksum = SipHasher13::new();
    let Caller { uid, gid, groups } = &call.caller;
    for word in [call.procedure, *uid, *gid].iter().chain(groups) {
        checksum.write(&word.to_be_bytes());
    }
    checksum.write(&(call.arguments.len() as u64).to_be_bytes());
    checksum.write(call.arguments.get(..CHECKED).unwrap_or(&call.arguments));
    RequestKey {
        client: client.finish(),
        xid: call.xid,
        checksum: checksum.finish(),
    }
}

async fn execute(cx: &Context<'_>, call: &Call) -> Outcome {
    let refused = |why| Outcome::Final(rpc::failure(call.xid, why));
    let version = match call.program {
        nfs3::PROGRAM => nfs3::VERSION,
        mount_protocol::PROGRAM => mount_protocol::VERSION,
        portmap_protocol::PROGRAM => portmap_protocol::VERSION,
        _ => return refused(accept_stat_data::PROG_UNAVAIL),
    };
    if call.version != version {
        let (low, high) = (version, version);
        return refused(accept_stat_data::PROG_MISMATCH { low, high });
    }
    let arguments = Reader::new(call.arguments.clone());
    let results = match call.program {
        nfs3::PROGRAM => procedure(cx, call.procedure, arguments).await,
        mount_protocol::PROGRAM => mount::procedure(cx, call.procedure, arguments).await,
        _ => portmap::procedure(cx.peer, call.procedure, arguments),
    };
    match results {
        Ok(Some(results)) => {
            let record = rpc::success(call.xid, &results.head, results.data);
            if results.is_transient {
                return Outcome::Transient(record);
            }
            Outcome::Final(record)
        }
        Ok(None) => refused(accept_stat_data::PROC_UNAVAIL),
        Err(Garbage) => refused(accept_stat_data::GARBAGE_ARGS),
    }
}

/// The procedures of NFSv3 by their numbers (RFC 1813 §3.3); `None`: there is no such procedure.
async fn procedure(cx: &Context<'_>, number: u32, arguments: Reader) -> Result<Option<Results>, Garbage> {
    let results = match number {
        0 => arguments.end().map(|()| Results::default()),
        1 => attribute::get(cx, arguments).await,
        2 => attribute::set(cx, arguments).await,
        3 => name::lookup(cx, arguments).await,
        4 => attribute::access(cx, arguments).await,
        5 => data::read_link(cx, arguments).await,
        6 => data::read(cx, arguments).await,
        7 => data::write(cx, arguments).await,
        8 => name::create(cx, arguments).await,
        9 => name::make_folder(cx, arguments).await,
        10 => name::make_link(cx, arguments).await,
        11 => name::make_node(cx, arguments).await,
        12 => name::remove(cx, arguments).await,
        13 => name::remove_folder(cx, arguments).await,
        14 => name::rename(cx, arguments).await,
        15 => name::link(cx, arguments).await,
        16 => listing::names(cx, arguments).await,
        17 => listing::plus(cx, arguments).await,
        18 => attribute::space(cx, arguments).await,
        19 => attribute::limits(cx, arguments).await,
        20 => attribute::path_limits(cx, arguments).await,
        21 => data::commit(cx, arguments).await,
        _ => return Ok(None),
    };
    results.map(Some)
}

impl Results {
    /// `failed`: how many optional attributes the body of a failure has (RFC 1813); none of them is filled.
    pub fn of<T: Pack>(result: Result<T, nfsstat3>, failed: usize) -> Self {
        let mut head = Vec::with_capacity(4 + result.as_ref().map_or(4 * failed, Pack::packed_size));
        match &result {
            Ok(value) => {
                pack(&nfsstat3::NFS3_OK, &mut head);
                pack(value, &mut head);
            }
            Err(status) => {
                pack(status, &mut head);
                (0..failed).for_each(|_| pack(&false, &mut head));
            }
        }
        Results {
            head,
            data: Bytes::new(),
            is_transient: matches!(result, Err(nfsstat3::NFS3ERR_JUKEBOX)),
        }
    }
}

/// A folder and a name as arguments give them; looked at by `Context::place`.
pub(super) struct Place {
    folder: Bytes,
    name: Bytes,
}

impl Place {
    /// Reads a `diropargs3`.
    pub fn parse(reader: &mut Reader) -> Result<Self, Garbage> {
        Ok(Place {
            folder: parse_handle(reader)?,
            name: reader.opaque(STRING_MAX)?,
        })
    }
}

/// Reads an `nfs_fh3`.
pub(super) fn parse_handle(reader: &mut Reader) -> Result<Bytes, Garbage> {
    reader.opaque(nfs3::NFS3_FHSIZE)
}

impl Context<'_> {
    /// The object that a handle means: of this cluster, of a tree that the peer may use, of this generation.
    pub async fn object(&self, bytes: &Bytes) -> Result<Handle, nfsstat3> {
        let handle = self.permitted(bytes)?;
        match self.door.generations.get(&handle.inode.0) {
            Some(generation) if generation == handle.generation => Ok(handle),
            Some(_) => Err(nfsstat3::NFS3ERR_STALE),
            None => Ok(self.current(bytes).await?.0),
        }
    }

    /// As `object`, with the attributes as they are now.
    pub async fn current(&self, bytes: &Bytes) -> Result<(Handle, Attributes), nfsstat3> {
        let handle = self.permitted(bytes)?;
        let attributes = self.attributes(handle.inode).await?;
        if attributes.generation != handle.generation {
            return Err(nfsstat3::NFS3ERR_STALE);
        }
        Ok((handle, attributes))
    }

    fn permitted(&self, bytes: &Bytes) -> Result<Handle, nfsstat3> {
        let handle = self.door.handles.decode(bytes)?;
        if !self.peer.may_use(handle.tree) {
            return Err(nfsstat3::NFS3ERR_ACCES);
        }
        Ok(handle)
    }

    pub async fn place(&self, place: &Place) -> Result<(Handle, Vec<u8>), nfsstat3> {
        Ok((self.object(&place.folder).await?, convert::name(&place.name)?))
    }

    /// Attributes of an object that a handle was given for: if it is not there, the handle is stale.
    pub async fn attributes(&self, inode: Inode) -> Result<Attributes, nfsstat3> {
        match self.query(Query::Attributes { inode }).await {
            Ok(Reply::Attributes(attributes)) => {
                self.door.generations.insert(inode.0, attributes.generation);
                Ok(attributes)
            }
            Ok(_) => Err(nfsstat3::NFS3ERR_SERVERFAULT),
            Err(nfsstat3::NFS3ERR_NOENT) => Err(nfsstat3::NFS3ERR_STALE),
            Err(status) => Err(status),
        }
    }

    pub async fn query(&self, query: Query) -> Result<Reply, nfsstat3> {
        if let Some(answer) = self.door.calls.recall(self.caller, &query) {
            return answer.map_err(convert::status);
        }
        patiently(self.patience, || self.door.calls.query(self.caller, query.clone())).await
    }

    pub async fn mutate(&self, mutation: Mutation) -> Result<Reply, nfsstat3> {
        let key = self.key.ok_or(nfsstat3::NFS3ERR_SERVERFAULT)?;
        patiently(self.patience, || {
            self.door.calls.mutate(self.caller, key, mutation.clone())
        })
        .await
    }

    pub async fn commit(&self, inode: Inode) -> Result<(), nfsstat3> {
        patiently(self.patience, || self.door.calls.commit(inode)).await
    }
}

/// Tries until there is a leader, or patience ends.
async fn patiently<'a, T>(
    patience: Option<Duration>,
    attempt: impl Fn() -> BoxFuture<'a, Result<T, Error>>,
) -> Result<T, nfsstat3> {
    let started = Instant::now();
    let is_over = || patience.is_some_and(|patience| started.elapsed() >= patience);
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        match attempt().await {
            Err(Error::Unavailable) if !is_over() => tokio::time::sleep(backoff.delay()).await,
            result => return result.map_err(convert::status),
        }
    }
}
