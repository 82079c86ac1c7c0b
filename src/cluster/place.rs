//! `Place`: which seat of which role; and the settings that say which seats there are and who shall hold them. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Role;
use super::role::GALERA;

/// Setting: the floating addresses, `10.0.0.10/24,fd00::10/64`.
pub const ADDRESSES: &str = "edge.addresses";
/// Setting: roles or seats that shall be on one node, `cron=n1,edge/10.0.0.10/24=n2`.
pub const PINS: &str = "role.pins";
/// Setting: seats that shall go to a node now; whoever claims the seat takes it out.
pub const TRANSFERS: &str = "role.transfers";

/// Settings of certificates begin so, and hold this where they are issued and renewed: somebody must do that.
pub const CERTIFICATES: (&str, &str) = ("cert.of.", "\"from\":\"acme\"");

/// A seat of a role, held or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub role: Role,
    /// Tells the seats of a role apart; empty where there is one.
    pub seat: String,
}

impl Place {
    pub fn new(role: Role, seat: impl Into<String>) -> Self {
        Place {
            role,
            seat: seat.into(),
        }
    }

    /// As the settings and the command line spell it: `cron`, `edge/10.0.0.10/24`.
    pub fn key(&self) -> String {
        match self.seat.as_str() {
            "" => self.role.name().to_string(),
            seat => format!("{}/{seat}", self.role),
        }
    }
}

/// As the operator reads it: `edge 10.0.0.10/24`.
impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seat.as_str() {
            "" => write!(out, "{}", self.role),
            seat => write!(out, "{} {seat}", self.role),
        }
    }
}

/// The floating addresses of the setting; what is none is left out, and so is an address that was there before.
pub fn addresses(setting: &str) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = Vec::new();
    for address in setting.split(',').filter_map(|text| text.trim().parse::<IpNet>().ok()) {
        if found.iter().all(|known| known.addr() != address.addr()) {
            found.push(address);
        }
    }
    found
}

/// The seats that shall be held.
pub fn places(settings: &BTreeMap<String, String>) -> Vec<Place> {
    let addresses = addresses(settings.get(ADDRESSES).map_or("", String::as_str));
    let edges = addresses
        .iter()
        .map(|address| Place::new(Role::Edge, address.to_string()));
    let singles = [Role::Cron, Role::Db, Role::Cache].map(|role| Place::new(role, ""));
    // A database on one machine is copied there.
    let backup = settings.contains_key(GALERA).then(|| Place::new(Role::Backup, ""));
    let (prefix, issued) = CERTIFICATES;
    let mut settings = settings.iter();
    let is_wanted = settings.any(|(key, text)| key.starts_with(prefix) && text.contains(issued));
    let acme = is_wanted.then(|| Place::new(Role::Acme, ""));
    edges.chain(singles).chain(backup).chain(acme).collect()
}

/// Who shall hold what: a seat or a whole role → a node. `PINS` and `TRANSFERS` have this form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directions(BTreeMap<String, String>);

impl Directions {
    pub fn parse(setting: &str) -> Self {
        let pairs = setting.split(',').filter_map(|pair| pair.trim().split_once('='));
        Directions(pairs.map(|(key, node)| (key.to_string(), node.to_string())).collect())
    }

    /// The node for this seat: its own direction goes before its role's.
    pub fn node(&self, place: &Place) -> Option<&str> {
        let found = self.0.get(&place.key()).or_else(|| self.0.get(place.role.name()));
        found.map(String::as_str)
    }

    pub fn put(&mut self, key: String, node: &str) {
        self.0.insert(key, node.to_string());
    }

    /// Whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Directions {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (key, node)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{key}={node}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_a_seat_once() {
        let setting = "10.0.0.10/24, fd00::0010/64,nonsense,10.0.0.10/16";
        let mut settings: BTreeMap<String, String> = [(ADDRESSES.to_string(), setting.to_string())].into();
        let keys: Vec<String> = places(&settings).iter().map(Place::key).collect();
        assert_eq!(keys, ["edge/10.0.0.10/24", "edge/fd00::10/64", "cron", "db", "cache"]);
        let (prefix, issued) = CERTIFICATES;
        settings.insert(format!("{prefix}ab"), "{}".to_string());
        assert_eq!(places(&settings).len(), 5, "nobody need renew what the operator has");
        settings.insert(format!("{prefix}ab"), format!("{{{issued}}}"));
        assert_eq!(places(&settings).last(), Some(&Place::new(Role::Acme, "")));
        assert_eq!(places(&settings)[0].to_string(), "edge 10.0.0.10/24");
        settings.insert(GALERA.to_string(), "{}".to_string());
        assert!(places(&settings).contains(&Place::new(Role::Backup, "")));
    }

    #[test]
    fn a_direction_for_a_seat_goes_before_its_roles() {
        let text = "cron=n1,edge=n2,edge/fd00::10/64=n3";
        let mut pins = Directions::parse(text);
        assert_eq!(pins.to_string(), text);
        assert_eq!(pins.node(&Place::new(Role::Edge, "10.0.0.10/24")), Some("n2"));
        assert_eq!(pins.node(&Place::new(Role::Edge, "fd00::10/64")), Some("n3"));
        assert_eq!(pins.node(&Place::new(Role::Db, "")), None);
        assert!(pins.remove("cron") && !pins.remove("cron") && !pins.is_empty());
    }
}
