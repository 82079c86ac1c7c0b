//! A floating address of this machine: found a place, looked for on the network, put up, told to the neighbours, taken away.
//!
//! It is put up with a lifetime of the kernel's own (IFA_CACHEINFO) of at most three seconds, which its holder renews: when the
//! supervisor is killed, hangs or is frozen, the kernel takes the address away by itself. The lifetime is also a mark: an address
//! that stays for ever, or for longer than ours do, is somebody else's, and is neither put up over nor removed.
//!
//! Where the interface has the network already, the address goes there as a host's own (/32, /128): so it never becomes the primary
//! address of that network, whose removal would take the machine's own address along, and nothing is sent from it that does not
//! answer it.
//!
//! ```text
//! place      which interface, by the networks that the machine has (pure)
//! lifetime   how long the kernel keeps the address (pure)
//! netlink    the kernel's addresses
//! arp, ndp   the frames that ask for an address and tell of it (pure)
//! wire       a socket for such frames
//! probe      whether somebody else has the address: a process without rights reads what the network says
//! farewell   the end of its connections, before another machine gets it
//! ```

pub mod arp;
pub mod farewell;
pub mod lifetime;
pub mod ndp;
pub mod netlink;
pub mod place;
pub mod probe;
pub mod wire;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

pub use place::Place;

/// Address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Puts the address up, or renews it, for what is left of its hold; false: too little is left to begin, or to renew.
pub fn keep(place: &Place, left: Duration) -> io::Result<bool> {
    let Some(seconds) = lifetime::seconds(left) else {
        return Ok(false);
    };
    netlink::Route::open()?.set(place, seconds)?;
    Ok(true)
}

/// Takes it away; false: it was not there.
pub fn remove(place: &Place) -> io::Result<bool> {
    netlink::Route::open()?.remove(place.index, place.address)
}

/// Takes away what a former supervisor put up and noted, wherever it is.
pub fn sweep(address: IpAddr) -> io::Result<bool> {
    let route = netlink::Route::open()?;
    let mut was_there = false;
    for found in route.addresses()? {
        if found.address.addr() == address && found.is_ours() {
            was_there |= route.remove(found.index, found.address)?;
        }
    }
    Ok(was_there)
}

/// Where to put an address of this network. `named`: the interface that the operator wants; empty: the one that has the network.
/// It may be there already, by us.
pub fn find(address: IpNet, named: &str) -> Result<Place, String> {
    let there = netlink::Route::open().and_then(|route| route.addresses());
    let there = there.map_err(|error| format!("the kernel's addresses: {error}"))?;
    let interfaces = place::interfaces().map_err(|error| format!("the machine's interfaces: {error}"))?;
    let foreign = there
        .iter()
        .find(|found| found.address.addr() == address.addr() && !found.is_ours());
    if let Some(found) = foreign {
        let at = interfaces.iter().find(|interface| interface.index == found.index);
        let at = at.map_or("an interface", |interface| &interface.name);
        return Err(format!(
            "{} is an address of {at} already, and bitrix-node did not put it there; remove it from the machine's configuration",
            address.addr()
        ));
    }
    place::choose(address, named, &interfaces)
}
