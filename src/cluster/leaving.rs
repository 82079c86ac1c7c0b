//! Which floating addresses this node is about to give to another one, by the operator's wish. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Directions, Member, Place, Role, Snapshot, Standing, TRANSFERS};

/// Empty where nobody else can take them.
pub fn leaving(snapshot: &Snapshot) -> Vec<IpAddr> {
    let Some(own) = snapshot.node(&snapshot.own) else {
        return Vec::new();
    };
    let needs = Role::Edge.needs();
    let can_take = |node: &Member| node.name != own.name && node.takes(needs);
    let drains = own.standing == Standing::Draining && snapshot.nodes.iter().any(can_take);
    let transfers = Directions::parse(snapshot.settings.get(TRANSFERS).map_or("", String::as_str));
    let goes = |seat: &str| {
        let wanted = transfers
            .node(&Place::new(Role::Edge, seat))
            .and_then(|node| snapshot.node(node));
        drains || wanted.is_some_and(can_take)
    };
    let seats = snapshot.seats.iter().filter(|seat| seat.role == Role::Edge);
    let held = seats.filter(|seat| seat.holder.as_ref() == Some(&own.name));
    held.filter(|seat| goes(&seat.seat))
        .filter_map(|seat| seat.seat.parse::<IpNet>().ok())
        .map(|network| network.addr())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Fit, Seat};

    fn snapshot() -> Snapshot {
        let node = |name: &str| Member {
            name: name.into(),
            address: None,
            standing: Standing::Member,
            is_live: true,
            fit: Fit::EDGE.with(Fit::FRONT),
        };
        let seat = |seat: &str, holder: &str| Seat {
            role: Role::Edge,
            seat: seat.into(),
            holder: Some(holder.into()),
            epoch: 1,
        };
        Snapshot {
            own: "n1".into(),
            nodes: vec![node("n1"), node("n2")],
            seats: vec![
                seat("10.0.0.10/24", "n1"),
                seat("fd00::10/64", "n1"),
                seat("10.0.0.11/24", "n2"),
            ],
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_node_that_drains_gives_all_of_its_own() {
        let mut snapshot = snapshot();
        assert!(leaving(&snapshot).is_empty());
        snapshot.nodes[0].standing = Standing::Draining;
        let all: [IpAddr; 2] = ["10.0.0.10".parse().unwrap(), "fd00::10".parse().unwrap()];
        assert_eq!(leaving(&snapshot), all);
        snapshot.nodes[1].is_live = false;
        assert!(leaving(&snapshot).is_empty(), "nobody else is there");
    }

    #[test]
    fn a_transfer_takes_one_along() {
        let mut snapshot = snapshot();
        for (wish, count) in [
            ("edge/fd00::10/64=n2", 1),
            ("edge=n1", 0),
            ("edge/10.0.0.11/24=n1", 0),
            ("edge=n3", 0),
        ] {
            snapshot.settings = [(TRANSFERS.to_string(), wish.to_string())].into();
            assert_eq!(leaving(&snapshot).len(), count, "{wish}");
        }
    }
}
