//! Neighbour discovery for IPv6 (RFC 4861), as far as it asks for an address and tells of one. A codec without I/O.

use std::net::Ipv6Addr;

use super::Mac;

const TYPE: [u8; 2] = [0x86, 0xdd];
const ICMP: u8 = 58;
/// Whoever is farther than a neighbour cannot send it (§6.1).
const HOPS: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The neighbour shall replace what it knew (§4.4).
const OVERRIDE: u8 = 0x20;
const TARGET_LINK: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Asks who has an address, without naming one of our own (RFC 4862 §5.4.2).
pub fn probe(own: Mac, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    // The target's solicited-node address (RFC 4291 §2.7.1).
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    frame(own, Ipv6Addr::UNSPECIFIED, to, message)
}

/// Tells everybody who has an address now (§7.2.6).
pub fn announcement(own: Mac, address: Ipv6Addr) -> Vec<u8> {
    let head = [ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    let message = [&head[..], &address.octets(), &[TARGET_LINK, 1], &own.0].concat();
    frame(own, address, ALL_NODES, message)
}

/// Who says by this frame that the address is his, other than ourselves.
pub fn holder(frame: &[u8], own: Mac, address: Ipv6Addr) -> Option<Mac> {
    let (packet, message) = (frame.get(14..54)?, frame.get(54..)?);
    let is_icmp = frame.get(12..14)? == TYPE && *packet.get(6)? == ICMP && *packet.get(7)? == HOPS;
    let is_told = *message.first()? == ADVERTISEMENT && message.get(8..24)? == address.octets();
    if !is_icmp || !is_told {
        return None;
    }
    let sender = Mac(*frame.get(6..12)?.first_chunk()?);
    let named = message
        .get(24..32)
        .filter(|option| option.starts_with(&[TARGET_LINK, 1]))
        .and_then(|option| option.get(2..8)?.first_chunk().copied())
        .map(Mac);
    Some(named.unwrap_or(sender)).filter(|holder| *holder != own)
}

fn frame(own: Mac, from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("some thirty bytes");
    let sum = checksum(from, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [.., a, b, c, d] = to.octets();
    let parts: [&[u8]; 9] = [
        // Multicast over Ethernet (RFC 2464 §7).
        &[0x33, 0x33, a, b, c, d],
        &own.0,
        &TYPE,
        &[0x60, 0, 0, 0],
        &length.to_be_bytes(),
        &[ICMP, HOPS],
        &from.octets(),
        &to.octets(),
        &message,
    ];
    parts.concat()
}

/// RFC 4443 §2.3, with the pseudo-header of RFC 8200 §8.1.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).expect("some thirty bytes");
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &length.to_be_bytes(),
        &u32::from(ICMP).to_be_bytes(),
        message,
    ]
    .concat();
    let words = pseudo.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded above")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn address() -> Ipv6Addr {
        "fd00::1234:5678".parse().expect("an address")
    }

    #[test]
    fn a_probe_goes_to_those_who_may_have_the_address() {
        let frame = probe(OWN, address());
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x34, 0x56, 0x78]);
        let to: Ipv6Addr = "ff02::1:ff34:5678".parse().expect("an address");
        assert_eq!(frame[38..54], to.octets());
        assert_eq!(holder(&frame, OWN, address()), None, "a question claims nothing");
    }

    #[test]
    fn a_sum_over_a_whole_message_is_nought() {
        for frame in [probe(OWN, address()), announcement(OWN, address())] {
            let from = Ipv6Addr::from(*frame[22..38].first_chunk::<16>().expect("long"));
            let to = Ipv6Addr::from(*frame[38..54].first_chunk::<16>().expect("long"));
            assert_eq!(checksum(from, to, &frame[54..]), 0);
        }
    }

    #[test]
    fn an_announcement_names_the_holder_at_any_cut() {
        let frame = announcement(OTHER, address());
        assert_eq!(holder(&frame, OWN, address()), Some(OTHER));
        assert_eq!(holder(&frame, OTHER, address()), None, "our own");
        assert_eq!(holder(&frame, OWN, "fd00::1".parse().expect("an address")), None);
        for cut in 0..frame.len() {
            let found = holder(&frame[..cut], OWN, address());
            assert_eq!(found, (cut >= 78).then_some(OTHER), "{cut}");
        }
        let mut far = frame;
        far[21] = 254;
        assert_eq!(holder(&far, OWN, address()), None, "no neighbour");
    }
}
