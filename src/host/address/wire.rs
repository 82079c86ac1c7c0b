//! A socket for whole Ethernet frames of one interface (packet(7)). Made by root; whoever has it may use it.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nix::libc::{self, ETH_P_ARP, ETH_P_IPV6};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::{Mac, Place, arp, ndp};

/// Instructions of bpf(4)'s classic machine: load a byte or half a word, compare, return.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const IS: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Sends only.
pub struct Wire(Socket);

impl Wire {
    pub fn open(place: &Place) -> io::Result<Self> {
        // Of no protocol: nothing arrives.
        let socket = open(place.index, 0)?;
        // Rather nothing is told than that a full queue stops the supervisor.
        socket.set_nonblocking(true)?;
        Ok(Wire(socket))
    }

    /// Tells the neighbours, once.
    pub fn announce(&self, own: Mac, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => {
                for operation in [arp::Operation::Request, arp::Operation::Reply] {
                    self.0.send(&arp::announcement(own, address, operation))?;
                }
            }
            IpAddr::V6(address) => {
                self.0.send(&ndp::announcement(own, address))?;
            }
        }
        Ok(())
    }
}

/// Hears what tells of an address of that family, and nothing else.
pub fn ear(place: &Place) -> io::Result<OwnedFd> {
    let (protocol, filter) = match place.address.addr() {
        IpAddr::V4(_) => (ETH_P_ARP, Vec::from(is_arp())),
        IpAddr::V6(_) => (ETH_P_IPV6, Vec::from(is_advertisement())),
    };
    let socket = open(place.index, u16::try_from(protocol).expect("16 bits"))?;
    socket.attach_filter(&filter)?;
    Ok(socket.into())
}

fn is_arp() -> [SockFilter; 4] {
    let arp = u32::try_from(ETH_P_ARP).expect("16 bits");
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(IS, 0, 1, arp),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// ICMPv6 of type 136 right behind the IPv6 header.
fn is_advertisement() -> [SockFilter; 6] {
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(IS, 0, 3, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(IS, 0, 1, 136),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn open(index: u32, protocol: u16) -> io::Result<Socket> {
    // Of no protocol until it is bound: nothing of other interfaces is queued.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.bind(&at(index, protocol)?)?;
    Ok(socket)
}

fn at(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: a sockaddr_ll fits in every storage of addresses, which comes zeroed; all that is not set here may be zero.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
            (*link).sll_protocol = protocol.to_be();
            (*link).sll_ifindex = index;
            *length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("some bytes");
            Ok(())
        })
    }?;
    Ok(address)
}
