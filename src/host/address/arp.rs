//! ARP for IPv4 over Ethernet (RFC 826), as RFC 5227 uses it. A codec without I/O.

use std::net::Ipv4Addr;

use super::Mac;

pub const LENGTH: usize = 42;
const EVERYBODY: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
/// Ethernet, IPv4, their lengths.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const TYPE: [u8; 2] = [8, 6];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Request = 1,
    Reply = 2,
}

/// Asks who has an address, without naming one of our own (RFC 5227 §1.1).
pub fn probe(own: Mac, target: Ipv4Addr) -> [u8; LENGTH] {
    frame(own, Operation::Request, Ipv4Addr::UNSPECIFIED, NOBODY, target)
}

/// Tells everybody who has an address now. Requests are the form of RFC 5227 §3; some neighbours heed replies only.
pub fn announcement(own: Mac, address: Ipv4Addr, operation: Operation) -> [u8; LENGTH] {
    let target = match operation {
        Operation::Request => NOBODY,
        Operation::Reply => EVERYBODY,
    };
    frame(own, operation, address, target, address)
}

/// Who says by this frame that the address is his, other than ourselves.
pub fn holder(frame: &[u8], own: Mac, address: Ipv4Addr) -> Option<Mac> {
    let packet = frame.get(14..LENGTH)?;
    let is_arp = frame.get(12..14)? == TYPE && packet.get(..6)? == KIND;
    let sender = Mac(*packet.get(8..14)?.first_chunk()?);
    let claimed = Ipv4Addr::from(*packet.get(14..18)?.first_chunk::<4>()?);
    (is_arp && claimed == address && sender != own).then_some(sender)
}

fn frame(own: Mac, operation: Operation, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> [u8; LENGTH] {
    let parts: [&[u8]; 9] = [
        &EVERYBODY.0,
        &own.0,
        &TYPE,
        &KIND,
        &[0, operation as u8],
        &own.0,
        &sender.octets(),
        &target_mac.0,
        &target.octets(),
    ];
    parts.concat().try_into().expect("the parts of a frame have its length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

    #[test]
    fn a_probe_is_as_the_standard_shows_it() {
        let frame = probe(OWN, ADDRESS);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 10,
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_probe_claims_nothing_and_an_announcement_does() {
        assert_eq!(holder(&probe(OTHER, ADDRESS), OWN, ADDRESS), None);
        for operation in [Operation::Request, Operation::Reply] {
            let frame = announcement(OTHER, ADDRESS, operation);
            assert_eq!(holder(&frame, OWN, ADDRESS), Some(OTHER));
            assert_eq!(holder(&frame, OTHER, ADDRESS), None, "our own");
            assert_eq!(holder(&frame, OWN, Ipv4Addr::new(10, 0, 0, 11)), None);
            for cut in 0..LENGTH {
                assert_eq!(holder(&frame[..cut], OWN, ADDRESS), None, "{cut}");
            }
        }
    }
}
