//! Listening sockets: bound once by the supervisor, handed down to the modules as open descriptors.
//!
//! The hand-over is systemd's convention (sd_listen_fds(3)): descriptors from 3 upward, their number in `LISTEN_FDS`,
//! their names joined by `:` in `LISTEN_FDNAMES`. `LISTEN_PID` is left out, because the child's pid is not known
//! before the fork; only our own supervisor starts modules.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::sockopt::{AcceptConn, RcvBufForce, SockType};
use nix::sys::socket::{self, AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt, setsockopt};
use socket2::{Domain, Protocol, Type};

use crate::base::service::{NamedSocket, Socket};

/// Connections that the kernel queues while a module is being replaced.
const BACKLOG: i32 = 4096;

/// What a UDP socket holds while its module is busy or being replaced: a tenth of a second at 320 Mbit/s.
const DATAGRAM_BYTES: usize = 4 << 20;

/// First descriptor that is handed down; 0, 1, 2 are the standard streams.
pub const FIRST_DESCRIPTOR: RawFd = 3;

/// Binds a TCP address. IPv6 sockets take IPv6 only, so that both families can be bound side by side.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: answers leave at once.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Binds a UDP address; families as with `tcp`.
pub fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Beyond the system's bound for root alone; others have what that allows.
    if setsockopt(&socket, RcvBufForce, &DATAGRAM_BYTES).is_err() {
        socket.set_recv_buffer_size(DATAGRAM_BYTES)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether somebody listens there, without a visit. Who is just about to is not disturbed: the address is shared until one of its
/// sockets listens, and this one never does.
pub fn is_taken(address: SocketAddr) -> io::Result<bool> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    match socket.bind(&address.into()) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(error),
    }
}

/// Binds a unix socket, replacing a file that a former process left behind.
/// The caller holds the lock of the data folder, so nobody else is listening there.
pub fn unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Takes what the supervisor handed down. Call once, before anything else opens descriptors.
pub fn inherited(count: Option<&str>, names: Option<&str>) -> io::Result<Vec<NamedSocket>> {
    let Some(count) = count else { return Ok(Vec::new()) };
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_string());
    let count: usize = count.parse().map_err(|_| invalid("LISTEN_FDS is not a number"))?;
    let names: Vec<&str> = names.unwrap_or_default().split(':').collect();
    if names.len() != count {
        return Err(invalid("LISTEN_FDNAMES does not name each of LISTEN_FDS"));
    }
    let mut sockets = Vec::with_capacity(count);
    for (descriptor, name) in (FIRST_DESCRIPTOR..).zip(names) {
        let family = getsockname::<SockaddrStorage>(descriptor)?.family();
        nix::fcntl::fcntl(
            // SAFETY: the descriptor was just proven open by getsockname; it is borrowed for this call only.
            unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) },
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
        )?;
        // SAFETY: the supervisor handed this descriptor to us alone, and it is taken exactly once.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let socket = match family {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => match getsockopt(&owned, SockType)? {
                socket::SockType::Datagram => Socket::Udp(owned.into()),
                _ => Socket::Tcp(owned.into()),
            },
            Some(AddressFamily::Unix) if getsockopt(&owned, AcceptConn)? => Socket::Unix(owned.into()),
            Some(AddressFamily::Unix) => Socket::Pair(owned),
            _ => return Err(invalid("a handed-down descriptor is neither TCP, UDP nor unix")),
        };
        sockets.push(NamedSocket {
            name: name.to_string(),
            socket,
        });
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_while_somebody_listens() {
        let listener = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_taken(address).unwrap());
        drop(listener);
        assert!(!is_taken(address).unwrap());
        // It leaves nothing behind.
        tcp(address).unwrap();
    }
}
