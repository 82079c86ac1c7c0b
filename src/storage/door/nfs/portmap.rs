//! Portmapper version 2 (RFC 1833 §3), on NFS's own port, for clients that ask it where NFS and MOUNT are.
//! Nothing can be registered, and calls are not passed on.

use nfs3_types::portmap::{IPPROTO_TCP, mapping, pmaplist};
use nfs3_types::xdr_codec::List;
use nfs3_types::{mount, nfs3, portmap};

use super::dispatch::{Peer, Results};
use super::xdr::{Garbage, Reader, pack};

pub(super) fn procedure(peer: &Peer, number: u32, mut arguments: Reader) -> Result<Option<Results>, Garbage> {
    let mut results = Results::default();
    match number {
        0 => arguments.end()?,
        3 => {
            let (program, version, protocol) = (arguments.u32()?, arguments.u32()?, arguments.u32()?);
            let _port = arguments.u32()?;
            arguments.end()?;
            let is_wanted = |found: &mapping| (found.prog, found.vers, found.prot) == (program, version, protocol);
            let port = mappings(peer)
                .0
                .into_iter()
                .find(is_wanted)
                .map_or(0, |found| found.port);
            pack(&port, &mut results.head);
        }
        4 => {
            arguments.end()?;
            pack(&mappings(peer), &mut results.head);
        }
        _ => return Ok(None),
    }
    Ok(Some(results))
}

fn mappings(peer: &Peer) -> pmaplist {
    let programs = [
        (portmap::PROGRAM, portmap::VERSION),
        (nfs3::PROGRAM, nfs3::VERSION),
        (mount::PROGRAM, mount::VERSION),
    ];
    let at = |(prog, vers)| mapping {
        prog,
        vers,
        prot: IPPROTO_TCP,
        port: u32::from(peer.port),
    };
    List(programs.map(at).into())
}
