//! Calls and replies of ONC RPC version 2 (RFC 5531 §9), without I/O. Credentials: AUTH_NONE and AUTH_UNIX.

use bytes::Bytes;
use nfs3_types::rpc::{
    RPC_VERSION_2, accept_stat_data, accepted_reply, auth_stat, msg_body, msg_type, opaque_auth, rejected_reply,
    reply_body, rpc_msg,
};

use super::record;
use super::xdr::{Garbage, Reader, pack};
use crate::storage::call::Caller;

/// Who has no credential acts as: `nobody`.
const NOBODY: u32 = 65534;
/// RFC 5531 §8.2: the body of a credential or verifier; appendix A: machine name and groups of AUTH_UNIX.
const AUTH_MAX: usize = 400;
const MACHINE_MAX: usize = 255;
const GROUPS_MAX: u32 = 16;
const AUTH_NONE: u32 = 0;
const AUTH_UNIX: u32 = 1;

/// A call that can be tried.
#[derive(Debug)]
pub struct Call {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub caller: Caller,
    /// Name that the client's machine gives itself.
    pub machine: Bytes,
    pub arguments: Bytes,
}

/// Bytes of a reply as they go onto the stream: `head`, then `data`, then zeros up to a multiple of four.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Begins with the record mark.
    pub head: Bytes,
    /// File data, not copied.
    pub data: Bytes,
}

impl Record {
    pub fn len(&self) -> usize {
        self.head.len() + self.data.len().next_multiple_of(4)
    }
}

/// Why there is nothing to execute.
#[derive(Debug)]
pub enum Refusal {
    /// The client is told so.
    Denied(Record),
    /// Not a call of RPC: the stream cannot be trusted any more.
    Malformed,
}

impl From<Garbage> for Refusal {
    fn from(_: Garbage) -> Self {
        Refusal::Malformed
    }
}

/// Takes a call apart. What follows the verifier is the arguments.
pub fn parse(record: Bytes) -> Result<Call, Refusal> {
    let mut reader = Reader::new(record);
    let xid = reader.u32()?;
    if reader.u32()? != msg_type::CALL as u32 {
        return Err(Refusal::Malformed);
    }
    // RFC 5531 §9: the other fields may differ in other versions of RPC; this must come first.
    if reader.u32()? != RPC_VERSION_2 {
        let versions = rejected_reply::rpc_mismatch(RPC_VERSION_2, RPC_VERSION_2);
        return Err(denied(xid, versions));
    }
    let (program, version, procedure) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let flavor = reader.u32()?;
    let bad = |status| denied(xid, rejected_reply::auth_error(status));
    let credential = reader.opaque(AUTH_MAX).map_err(|_| bad(auth_stat::AUTH_BADCRED))?;
    let (caller, machine) = match flavor {
        AUTH_NONE => (nobody(), Bytes::new()),
        AUTH_UNIX => auth_unix(credential).map_err(|_| bad(auth_stat::AUTH_BADCRED))?,
        _ => return Err(bad(auth_stat::AUTH_REJECTEDCRED)),
    };
    // With these flavours the verifier proves nothing; its flavour and content are not looked at.
    let _flavor = reader.u32()?;
    reader.opaque(AUTH_MAX).map_err(|_| bad(auth_stat::AUTH_BADVERF))?;
    Ok(Call {
        xid,
        program,
        version,
        procedure,
        caller,
        machine,
        arguments: reader.rest(),
    })
}

fn nobody() -> Caller {
    Caller {
        uid: NOBODY,
        gid: NOBODY,
        groups: Vec::new(),
    }
}

fn auth_unix(body: Bytes) -> Result<(Caller, Bytes), Garbage> {
    let mut reader = Reader::new(body);
    let _stamp = reader.u32()?;
    let machine = reader.opaque(MACHINE_MAX)?;
    let (uid, gid, count) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if count > GROUPS_MAX {
        return Err(Garbage);
    }
    let groups = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok((Caller { uid, gid, groups }, machine))
}

fn denied(xid: u32, why: rejected_reply) -> Refusal {
    Refusal::Denied(record(xid, reply_body::MSG_DENIED(why), &[], Bytes::new()))
}

/// Whoever asks from there is not believed.
pub fn too_weak(xid: u32) -> Record {
    let why = rejected_reply::auth_error(auth_stat::AUTH_TOOWEAK);
    record(xid, reply_body::MSG_DENIED(why), &[], Bytes::new())
}

/// The procedure was executed; these are its results.
pub fn success(xid: u32, results: &[u8], data: Bytes) -> Record {
    accepted(xid, accept_stat_data::SUCCESS, results, data)
}

/// The procedure was not executed, for this reason.
pub fn failure(xid: u32, why: accept_stat_data) -> Record {
    accepted(xid, why, &[], Bytes::new())
}

fn accepted(xid: u32, status: accept_stat_data, results: &[u8], data: Bytes) -> Record {
    let reply = accepted_reply {
        verf: opaque_auth::default(),
        reply_data: status,
    };
    record(xid, reply_body::MSG_ACCEPTED(reply), results, data)
}

fn record(xid: u32, body: reply_body<'_>, results: &[u8], data: Bytes) -> Record {
    let mut head = Vec::with_capacity(32 + results.len());
    head.extend_from_slice(&record::header(0));
    let body = msg_body::REPLY(body);
    pack(&rpc_msg { xid, body }, &mut head);
    head.extend_from_slice(results);
    let length = head.len() - size_of::<u32>() + data.len().next_multiple_of(4);
    let mark = record::header(length);
    head[..mark.len()].copy_from_slice(&mark);
    let head = head.into();
    Record { head, data }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// Header of a NULL call with this version of RPC and credential, and an empty verifier.
    fn call(rpc: u32, flavor: u32, credential: &[u8]) -> Bytes {
        let mut bytes = words(&[7, 0, rpc, 100_003, 3, 0, flavor, credential.len() as u32]);
        bytes.extend_from_slice(credential);
        bytes.extend(words(&[0, 0]));
        bytes.into()
    }

    fn denial(bytes: Bytes) -> Vec<u8> {
        match parse(bytes) {
            Err(Refusal::Denied(record)) => record.head[4..].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn auth_unix_gives_the_caller_and_auth_none_is_nobody() {
        let credential = words(&[1, 4, u32::from_be_bytes(*b"host"), 33, 34, 2, 40, 41]);
        let parsed = parse(call(2, 1, &credential)).expect("well formed");
        let caller = Caller {
            uid: 33,
            gid: 34,
            groups: vec![40, 41],
        };
        assert_eq!((parsed.caller, &parsed.machine[..]), (caller, &b"host"[..]));
        assert_eq!(parse(call(2, 0, &[])).expect("well formed").caller, nobody());
    }

    #[test]
    fn other_versions_and_credentials_are_denied_by_name() {
        assert_eq!(denial(call(3, 0, &[])), words(&[7, 1, 1, 0, 2, 2]), "RPC_MISMATCH 2..2");
        assert_eq!(
            denial(call(2, 6, &[])),
            words(&[7, 1, 1, 1, 2]),
            "RPCSEC_GSS: AUTH_REJECTEDCRED"
        );
        let too_many = words(&[1, 0, 0, 0, 17]);
        assert_eq!(denial(call(2, 1, &too_many)), words(&[7, 1, 1, 1, 1]), "AUTH_BADCRED");
        let long = vec![0; AUTH_MAX + 4];
        assert_eq!(denial(call(2, 0, &long)), words(&[7, 1, 1, 1, 1]), "AUTH_BADCRED");
    }

    #[test]
    fn what_is_no_call_is_malformed() {
        let reply = words(&[7, 1, 2, 100_003, 3, 0, 0, 0, 0, 0]);
        assert!(matches!(parse(reply.into()), Err(Refusal::Malformed)));
        let whole = call(2, 0, &[]);
        for cut in 0..whole.len() {
            assert!(parse(whole.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn replies_are_one_record_with_padded_data() {
        let record = success(9, &words(&[5]), Bytes::from_static(b"abc"));
        assert_eq!(record.head[..], words(&[0x8000_0000 | 32, 9, 1, 0, 0, 0, 0, 5])[..]);
        assert_eq!(record.len(), 36);
        let mismatch = failure(9, accept_stat_data::PROG_MISMATCH { low: 3, high: 3 });
        assert_eq!(mismatch.head[4..], words(&[9, 1, 0, 0, 0, 2, 3, 3])[..]);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(bytes.into());
        }

        #[test]
        fn any_credential_never_panics(flavor in 0u32..3, body in prop::collection::vec(any::<u8>(), 0..120)) {
            let padded = body.len().next_multiple_of(4);
            let mut body = body;
            body.resize(padded, 0);
            let _ = parse(call(2, flavor, &body));
        }
    }
}
