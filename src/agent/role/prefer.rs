//! Who should have a seat, best first: every node comes to the same order from the same snapshot. Pure.

use std::collections::BTreeMap;

use crate::cluster::{Directions, Fit, Member, PINS, Place, Role, Snapshot, Standing, TRANSFERS};

/// How many seats each node has of those that move.
pub type Load = BTreeMap<String, usize>;

pub fn load(snapshot: &Snapshot) -> Load {
    let mut load = Load::new();
    for seat in snapshot.seats.iter().filter(|seat| seat.role.moves(&snapshot.settings)) {
        if let Some(holder) = &seat.holder {
            *load.entry(holder.clone()).or_default() += 1;
        }
    }
    load
}

/// Nodes that can take the seat. Those that drain only where nobody else can.
pub fn candidates<'a>(snapshot: &'a Snapshot, place: &Place, load: &Load) -> Vec<&'a Member> {
    let needs = place.role.needs();
    let mut found: Vec<&Member> = snapshot.nodes.iter().filter(|node| node.takes(needs)).collect();
    if found.is_empty() {
        let drains = |node: &&Member| node.standing == Standing::Draining && node.is_live && node.fit.has(needs);
        found = snapshot.nodes.iter().filter(drains).collect();
    }
    let directed = directed(snapshot, place);
    // One whose disk is full only where all are.
    found.sort_by_cached_key(|node| {
        let seats = load.get(&node.name).copied().unwrap_or_default();
        // A node that is lost with both makes the others wait twice: the registry is away until the storage has another leader.
        let leads = node.fit.has(Fit::LEADER);
        let is_other = Some(&node.name) != directed.as_ref();
        (
            !node.has_room(place.role),
            is_other,
            writes(snapshot, place, &node.name),
            leads,
            seats,
            weight(place, &node.name),
        )
    });
    found
}

/// The node that the operator wants there, if it can take the seat.
pub fn directed(snapshot: &Snapshot, place: &Place) -> Option<String> {
    let wanted = [TRANSFERS, PINS]
        .into_iter()
        .filter_map(|key| direction(snapshot, key, place));
    let mut able = wanted.filter(|node| {
        let node = snapshot.node(node);
        node.is_some_and(|node| node.takes(place.role.needs()) && node.has_room(place.role))
    });
    able.next()
}

/// The seat is that of the backups, and the node is the one whose database is written to: another one should copy its own.
pub fn writes(snapshot: &Snapshot, place: &Place, node: &str) -> bool {
    place.role == Role::Backup && snapshot.holder(Role::Db).is_some_and(|writer| writer.name == node)
}

/// What the setting says of the seat.
pub fn direction(snapshot: &Snapshot, key: &str, place: &Place) -> Option<String> {
    let setting = snapshot.settings.get(key)?;
    Directions::parse(setting).node(place).map(str::to_string)
}

/// Rendezvous hash: spreads the seats over the nodes, and moves none but a lost node's.
fn weight(place: &Place, node: &str) -> [u8; 32] {
    *blake3::hash(format!("{place}\0{node}").as_bytes()).as_bytes()
}
