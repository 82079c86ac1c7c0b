//! Rules about the exclusive roles. Pure.

use super::{Facts, Findings};
use crate::agent::overview::Cluster;
use crate::cluster::{ADDRESSES, Role, addresses, places};

fn holder<'a>(cluster: &'a Cluster, role: Role, seat: &str) -> Option<&'a str> {
    let mut seats = cluster.seats.iter();
    let seat = seats.find(|found| found.role == role && found.seat == seat)?;
    seat.holder.as_deref()
}

pub fn edge(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let cluster = facts.cluster;
    let addresses = addresses(cluster.settings.get(ADDRESSES).map_or("", String::as_str));
    if addresses.is_empty() && cluster.nodes.len() > 1 {
        findings.warn(
            "the portal is not reached when the node that clients use is lost",
            "no floating address is configured",
            "on the first node: bitrix-node init --address ITS-OWN --vip FREE/PREFIX, an address of the nodes' network",
        );
    }
    for address in addresses.iter().map(ToString::to_string) {
        let is_held = holder(cluster, Role::Edge, &address).is_some_and(|holder| {
            cluster
                .nodes
                .iter()
                .any(|node| node.name == holder && node.overview.is_some())
        });
        if !is_held {
            findings.fail(
                format!("nobody holds the floating address {address}"),
                match holder(cluster, Role::Edge, &address) {
                    Some(holder) => format!("its holder {holder} does not answer"),
                    None => "its seat is free, and no node takes it".to_string(),
                },
                "on a node with that network: bitrix-node events; is an interface in it, and does the front serve?",
            );
        }
    }
}

/// The database has a rule of its own.
pub fn role(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (role, what) in [
        (Role::Cron, "the portal's jobs do not run"),
        (Role::Cache, "no node has the cache"),
        (Role::Acme, "nobody renews the certificates"),
    ] {
        let mut seats = facts.cluster.seats.iter();
        let is_wanted = places(&facts.cluster.settings).iter().any(|place| place.role == role);
        if is_wanted && seats.any(|seat| seat.role == role && seat.holder.is_none()) {
            findings.fail(
                what,
                format!("the seat of the role {role} is free, and no node takes it"),
                "bitrix-node role list; bitrix-node events",
            );
        }
    }
}
