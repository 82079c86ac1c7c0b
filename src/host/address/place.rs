//! Which interface a floating address belongs to: the one that has its network, or the one that the operator names.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use super::Mac;

/// Where an address is put up, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub index: u32,
    pub interface: String,
    /// `None`: no Ethernet, so nobody can be asked or told.
    pub mac: Option<Mac>,
    /// With the length of prefix that it gets.
    pub address: IpNet,
    /// The interface has the network by another address.
    pub has_network: bool,
}

/// An interface as the machine has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub is_up: bool,
    pub is_loopback: bool,
    pub addresses: Vec<IpNet>,
}

/// Pure.
pub fn choose(address: IpNet, named: &str, interfaces: &[Interface]) -> Result<Place, String> {
    check(address)?;
    let covers = |interface: &&Interface| reach(interface, address).is_some();
    let chosen = if named.is_empty() {
        let all = interfaces
            .iter()
            .filter(|interface| interface.is_up && !interface.is_loopback);
        // The narrowest network; of several the first card.
        all.filter(covers)
            .max_by_key(|interface| (reach(interface, address), std::cmp::Reverse(interface.index)))
            .ok_or_else(|| {
                let network = address.trunc();
                format!("no interface of this machine has the network {network}; name one in edge.interface")
            })?
    } else {
        interfaces
            .iter()
            .find(|interface| interface.name == named)
            .ok_or_else(|| format!("edge.interface = \"{named}\": this machine has no such interface"))?
    };
    if !chosen.is_up {
        return Err(format!("the interface {} is down", chosen.name));
    }
    let has_network = covers(&chosen);
    Ok(Place {
        index: chosen.index,
        interface: chosen.name.clone(),
        mac: chosen.mac,
        address: if has_network {
            IpNet::from(address.addr())
        } else {
            address
        },
        has_network,
    })
}

/// The longest prefix by which an interface reaches an address, other than by that address itself.
fn reach(interface: &Interface, address: IpNet) -> Option<u8> {
    let others = interface
        .addresses
        .iter()
        .filter(|own| own.addr() != address.addr() && own.prefix_len() < own.max_prefix_len());
    others
        .filter(|own| own.contains(&address.addr()))
        .map(IpNet::prefix_len)
        .max()
}

/// What a machine may have beside its own addresses.
fn check(address: IpNet) -> Result<(), String> {
    let ip = address.addr();
    let is_odd = ip.is_unspecified() || ip.is_multicast() || ip.is_loopback();
    let is_odd = is_odd
        || match (ip, address) {
            (IpAddr::V4(ip), IpNet::V4(network)) => {
                let is_edge = network.prefix_len() < 31 && (ip == network.network() || ip == network.broadcast());
                is_edge || ip.is_broadcast() || ip.is_link_local()
            }
            (IpAddr::V6(ip), _) => ip.is_unicast_link_local(),
            _ => false,
        };
    match is_odd {
        true => Err(format!(
            "{address} is no address that a machine can share; see edge.addresses"
        )),
        false => Ok(()),
    }
}

/// Those of the calling thread's network namespace.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut all: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs()? {
        let interface = all.entry(entry.interface_name.clone()).or_default();
        interface.name = entry.interface_name;
        interface.is_up = entry.flags.contains(InterfaceFlags::IFF_UP);
        interface.is_loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            interface.index = u32::try_from(link.ifindex()).unwrap_or_default();
            let is_ethernet = link.hatype() == nix::libc::ARPHRD_ETHER;
            interface.mac = link.addr().filter(|_| is_ethernet).map(Mac);
        }
        interface.addresses.extend(network(&address, entry.netmask.as_ref()));
    }
    let with_index = all.into_values().filter(|interface| interface.index != 0);
    Ok(with_index.collect())
}

fn network(address: &SockaddrStorage, mask: Option<&SockaddrStorage>) -> Option<IpNet> {
    let ip = ip(address)?;
    let mask = mask.and_then(self::ip)?;
    IpNet::with_netmask(ip, mask).ok()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        .filter(|_| address.family().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        Interface {
            index,
            name: name.into(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            is_up: true,
            is_loopback: false,
            addresses: addresses.iter().map(|text| net(text)).collect(),
        }
    }

    #[test]
    fn the_interface_that_has_the_network_gets_a_hosts_address() {
        let all = [
            interface(2, "wide", &["10.0.0.1/8", "fd00::1/64"]),
            interface(3, "narrow", &["10.0.0.1/24"]),
            interface(4, "same", &["10.0.0.2/24"]),
        ];
        let place = choose(net("10.0.0.10/24"), "", &all).expect("found");
        assert_eq!(
            (place.interface.as_str(), place.address),
            ("narrow", net("10.0.0.10/32"))
        );
        let place = choose(net("10.7.0.10/16"), "", &all).expect("found");
        assert_eq!(place.interface, "wide");
        let place = choose(net("fd00::10/64"), "", &all).expect("found");
        assert_eq!((place.interface.as_str(), place.address), ("wide", net("fd00::10/128")));
        let why = choose(net("192.0.2.10/24"), "", &all).expect_err("nobody has it");
        assert!(why.contains("192.0.2.0/24") && why.contains("edge.interface"), "{why}");
    }

    #[test]
    fn a_named_interface_gets_the_network_too_if_it_has_it_not() {
        let mut all = [interface(2, "eth0", &["10.0.0.1/24"]), interface(3, "eth1", &[])];
        let place = choose(net("192.0.2.10/24"), "eth1", &all).expect("found");
        assert_eq!((place.address, place.has_network), (net("192.0.2.10/24"), false));
        assert!(choose(net("192.0.2.10/24"), "eth2", &all).is_err());
        all[1].is_up = false;
        assert!(choose(net("192.0.2.10/24"), "eth1", &all).is_err());
    }

    #[test]
    fn an_address_that_is_up_is_not_taken_for_the_network() {
        let all = [
            interface(2, "eth0", &["10.0.0.10/24"]),
            interface(3, "eth1", &["10.0.0.10/32", "10.0.0.1/24"]),
        ];
        assert_eq!(choose(net("10.0.0.10/24"), "", &all).expect("found").interface, "eth1");
    }

    #[test]
    fn odd_addresses_are_refused() {
        let all = [interface(2, "eth0", &["10.0.0.1/24", "fe80::1/64"])];
        for odd in [
            "10.0.0.0/24",
            "10.0.0.255/24",
            "0.0.0.0/0",
            "224.0.0.1/8",
            "127.0.0.5/8",
            "169.254.0.9/16",
            "fe80::9/64",
            "ff02::1/16",
            "::1/64",
        ] {
            assert!(choose(net(odd), "eth0", &all).is_err(), "{odd}");
        }
    }

    #[test]
    fn loopback_is_among_the_machines_interfaces() {
        let all = interfaces().expect("listed");
        let own = all.iter().find(|interface| interface.is_loopback).expect("there");
        assert!(own.index > 0 && own.mac.is_none() && own.addresses.contains(&net("127.0.0.1/8")));
    }
}
