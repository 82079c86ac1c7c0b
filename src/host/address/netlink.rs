//! The kernel's addresses by rtnetlink(7): listed, put up with a lifetime, removed. A request is answered before `send` returns, unless
//! somebody else changes the network at that moment; then it waits for the kernel's lock, which is held for milliseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use tracing::debug;

use super::{Place, lifetime};

const PATIENCE: Duration = Duration::from_secs(2);
/// The kernel fills what a reader offers, up to 32 KiB.
const BUFFER: usize = 64 << 10;
const HEADER: usize = 16;

/// An address that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub index: u32,
    pub address: IpNet,
    /// It has no lifetime.
    pub is_permanent: bool,
    /// Seconds that are left of it.
    pub seconds: u32,
}

impl Found {
    /// By its lifetime.
    pub fn is_ours(&self) -> bool {
        !self.is_permanent && self.seconds <= lifetime::MOST
    }
}

/// A conversation with the kernel, in the calling thread's network namespace.
pub struct Route(OwnedFd);

impl Route {
    pub fn open() -> io::Result<Self> {
        // The default protocol of the family is NETLINK_ROUTE.
        let family = rustix::net::AddressFamily::NETLINK;
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Route(socket))
    }

    pub fn addresses(&self) -> io::Result<Vec<Found>> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut found = Vec::new();
        self.exchange(all, NLM_F_DUMP, |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                found.extend(read(&message));
            }
        })?;
        Ok(found)
    }

    /// Puts an address up, or sets its lifetime anew.
    pub fn set(&self, place: &Place, seconds: u32) -> io::Result<()> {
        let mut message = message(place.index, place.address);
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        let mut flags = AddressFlags::empty();
        if place.address.addr().is_ipv4() {
            lifetime.ifa_preferred = seconds;
        } else {
            // Deprecated from its first moment: nothing is sent from it that does not answer it (RFC 4862 §5.5.4). Whether
            // somebody has it was asked before; the kernel's own look would take a second.
            flags |= AddressFlags::Nodad;
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        if place.has_network {
            flags |= AddressFlags::Noprefixroute;
        }
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        message.attributes.push(AddressAttribute::Flags(flags));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.exchange(RouteNetlinkMessage::NewAddress(message), flags, |_| {})
    }

    /// False: it was not there.
    pub fn remove(&self, index: u32, address: IpNet) -> io::Result<bool> {
        let message = message(index, address);
        match self.exchange(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK, |_| {}) {
            Ok(()) => Ok(true),
            // The interface may have gone with it.
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EADDRNOTAVAIL | nix::libc::ENODEV)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn exchange(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | flags;
        // One request per socket at a time, and each is waited for to its end: nothing else can arrive.
        request.header.sequence_number = 1;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let (_, length) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((message, after)) = first(rest) {
                rest = after;
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
                    Ok(NetlinkPayload::InnerMessage(message)) => take(message),
                    Ok(NetlinkPayload::Done(_)) => return Ok(()),
                    Ok(NetlinkPayload::Error(error)) => return error.code.map_or(Ok(()), |_| Err(error.to_io())),
                    Ok(_) => {}
                    // Of a newer kernel than the codec knows.
                    Err(error) => debug!(%error, "the kernel said something unknown of its addresses"),
                }
            }
        }
    }
}

/// The first of several messages, each as long as its header says, at multiples of four bytes.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.first_chunk().copied()?);
    let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
    let message = bytes.get(..length)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    message
}

fn read(message: &AddressMessage) -> Option<Found> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // IPv6 has no local one beside it.
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let seconds = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::CacheInfo(lifetime) => Some(lifetime.ifa_valid),
        _ => None,
    });
    Some(Found {
        index: message.header.index,
        address: IpNet::new(address, message.header.prefix_len).ok()?,
        is_permanent: message.header.flags.contains(AddressHeaderFlags::Permanent),
        seconds: seconds.unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_as_permanent() {
        let found = Route::open().expect("opened").addresses().expect("listed");
        let own = found.iter().find(|found| found.address.addr().is_loopback());
        assert!(own.is_some_and(|own| own.is_permanent), "{found:?}");
    }

    #[test]
    fn messages_are_taken_apart_and_hostile_lengths_end_the_walk() {
        let mut two = vec![0; 20 + 4 + 16];
        two[..4].copy_from_slice(&21_u32.to_ne_bytes());
        two[24..28].copy_from_slice(&16_u32.to_ne_bytes());
        let (message, rest) = first(&two).expect("one");
        assert_eq!((message.len(), rest.len()), (21, 16));
        assert_eq!(first(rest).expect("another").1.len(), 0);
        for length in [0, 15, 17, u32::MAX] {
            let mut one = vec![0; 16];
            one[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(first(&one).is_none(), "{length}");
        }
    }
}
