//! Whether the other end of a unix socket has read all that was sent to it.

use std::os::fd::AsFd;

use nix::sys::socket::GetSockOpt;
use nix::sys::socket::sockopt::GetStruct;
use nix::{getsockopt_impl, libc};

/// Memory of a socket, as far as it is looked at; the kernel fills what there is room for.
type Memory = [u32; SENT + 1];

/// What was sent and not read holds so much of it (`SK_MEMINFO_WMEM_ALLOC`, linux/sock_diag.h).
const SENT: usize = 2;

#[derive(Clone, Copy)]
struct Question;

getsockopt_impl!(Question, libc::SOL_SOCKET, libc::SO_MEMINFO, Memory, GetStruct<Memory>);

/// Also where the kernel does not tell.
pub fn has_unread(socket: &impl AsFd) -> bool {
    Question.get(socket).map_or(true, |memory| memory[SENT] > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_sent_is_unread_up_to_its_last_byte() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        assert!(!has_unread(&ours));
        ours.write_all(b"ab").expect("sent");
        ours.write_all(b"c").expect("sent");
        theirs.write_all(b"what comes back is something else").expect("sent");
        for _ in 0..3 {
            assert!(has_unread(&ours));
            theirs.read_exact(&mut [0]).expect("a byte");
        }
        assert!(!has_unread(&ours));
    }
}
