//! From an act to the change of the registry that writes it down, with its guards and a line for the operator. Pure.

use super::decide::{Cause, Grounds};
use crate::cluster::{Directions, Place, Seat, Snapshot, TRANSFERS};
use crate::registry::{Change, Guard, Key, Record, Role, Setting, Write};

/// This node takes the seat. A transfer of the seat has come to its end with that.
pub fn claim(snapshot: &Snapshot, place: &Place, old: Option<&Seat>, why: &Grounds) -> Change {
    let own = snapshot.own.as_str();
    let epoch = next_epoch(old);
    let holder = old.and_then(|old| old.holder.as_deref());
    let event = match (why, holder) {
        (Grounds::Silent, Some(holder)) => format!("{place}: {holder} → {own}, {holder} is silent"),
        (Grounds::Again, _) => format!("{place}: {own} takes it again, after a pause"),
        _ => format!("{place}: {own} takes it"),
    };
    let guard = match old {
        Some(old) => Guard::Is(Record::Role(record(place, old.holder.as_deref(), old.epoch))),
        None => Guard::Absent(Key::Role(place.role.name().to_string(), place.seat.clone())),
    };
    let change = Change::put(Record::Role(record(place, Some(own), epoch)))
        .and(Write::Event(event))
        .when(guard);
    with_transfers(snapshot, change, |transfers| _ = transfers.remove(&place.key()))
}

/// Nobody holds the seats any more. The task has ended before.
pub fn give_up(own: &str, seats: &[(Place, Seat)], why: &Cause) -> Change {
    let why = match why {
        Cause::Unwanted => "nobody wants it any more".to_string(),
        Cause::Left => format!("{own} has left the cluster"),
        Cause::Transfer(node) => format!("{node} shall have it"),
        Cause::Drain => format!("{own} drains"),
        Cause::Unfit => format!("{own} is not fit for it"),
        Cause::Full => format!("the disk of {own} is full"),
        Cause::Writes => format!("{own} is the one that is written to now"),
        Cause::Cooling => format!("{own} could not hold it"),
        Cause::Ending => format!("{own} stops"),
    };
    seats.iter().fold(Change::default(), |change, (place, old)| {
        change
            .and(Write::Put(Record::Role(record(place, None, old.epoch))))
            .and(Write::Event(format!("{place}: {own} gives it up, {why}")))
            .when(Guard::Is(Record::Role(record(place, old.holder.as_deref(), old.epoch))))
    })
}

/// The holder shall give the seat to the node.
pub fn transfer(snapshot: &Snapshot, place: &Place, node: &str, event: String) -> Change {
    let change = Change::default().and(Write::Event(event));
    with_transfers(snapshot, change, |transfers| transfers.put(place.key(), node))
}

pub fn next_epoch(old: Option<&Seat>) -> u64 {
    old.map_or(0, |old| old.epoch).saturating_add(1)
}

fn record(place: &Place, holder: Option<&str>, epoch: u64) -> Role {
    Role {
        role: place.role.name().to_string(),
        seat: place.seat.clone(),
        holder: holder.map(str::to_string),
        epoch,
    }
}

/// Takes the seat's change and one of the transfers together.
fn with_transfers(snapshot: &Snapshot, change: Change, edit: impl FnOnce(&mut Directions)) -> Change {
    let old = snapshot.settings.get(TRANSFERS).map(String::as_str);
    match direct(TRANSFERS, old, edit) {
        Some((write, guard)) => change.and(write).when(guard),
        None => change,
    }
}

/// What changes a setting that directs seats (`PINS`, `TRANSFERS`), from how it was; `None`: nothing is to be changed.
pub fn direct(key: &str, old: Option<&str>, edit: impl FnOnce(&mut Directions)) -> Option<(Write, Guard)> {
    let mut directions = Directions::parse(old.unwrap_or_default());
    let before = directions.clone();
    edit(&mut directions);
    if directions == before {
        return None;
    }
    let setting = |value: &str| {
        Record::Setting(Setting {
            key: key.to_string(),
            value: value.to_string(),
        })
    };
    let write = match directions.is_empty() {
        true => Write::Remove(Key::Setting(key.to_string())),
        false => Write::Put(setting(&directions.to_string())),
    };
    let guard = match old {
        Some(old) => Guard::Is(setting(old)),
        None => Guard::Absent(Key::Setting(key.to_string())),
    };
    Some((write, guard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::outlook;
    use crate::cluster::{Fit, Role as Kind};
    use crate::registry::{Error, MemoryRegistry, Registry, View};

    fn seen(view: &View, own: &str) -> Snapshot {
        outlook::snapshot(view, own, Fit::NONE, &Default::default())
    }

    fn seat(view: &View) -> (Option<String>, u64) {
        let role = view.roles().next().unwrap();
        (role.holder.clone(), role.epoch)
    }

    #[tokio::test]
    async fn a_seat_goes_from_node_to_node_and_each_step_is_an_event() {
        let registry = MemoryRegistry::new("n1");
        let place = Place::new(Kind::Edge, "10.0.0.10/24");
        let empty = registry.read().await.unwrap();
        let first = claim(&seen(&empty, "n1"), &place, None, &Grounds::Free);
        let view = registry.commit(first.clone()).await.unwrap();
        assert_eq!(seat(&view), (Some("n1".into()), 1));
        assert!(matches!(registry.commit(first).await, Err(Error::Stale(_))));

        let event = "edge 10.0.0.10/24: n2 asks for it".to_string();
        let asked = transfer(&seen(&view, "n2"), &place, "n2", event);
        let view = registry.commit(asked).await.unwrap();
        assert_eq!(view.setting(TRANSFERS), Some("edge/10.0.0.10/24=n2"));
        let held = seen(&view, "n1").seats[0].clone();
        let late = claim(&seen(&view, "n3"), &place, Some(&held), &Grounds::Silent);
        let left = give_up("n1", &[(place.clone(), held)], &Cause::Transfer("n2".into()));
        let view = registry.commit(left).await.unwrap();
        assert_eq!(seat(&view), (None, 1));
        // Who thought that n1 was silent comes too late.
        assert!(matches!(registry.commit(late).await, Err(Error::Stale(_))));
        let free = seen(&view, "n2").seats[0].clone();
        let taken = claim(&seen(&view, "n2"), &place, Some(&free), &Grounds::Free);
        let view = registry.commit(taken).await.unwrap();
        assert_eq!((seat(&view), view.setting(TRANSFERS)), ((Some("n2".into()), 2), None));

        let held = seen(&view, "n3").seats[0].clone();
        let taken = claim(&seen(&view, "n3"), &place, Some(&held), &Grounds::Silent);
        let view = registry.commit(taken).await.unwrap();
        let texts: Vec<&str> = view.events.iter().map(|event| event.text.as_str()).collect();
        let expected = [
            "edge 10.0.0.10/24: n1 takes it",
            "edge 10.0.0.10/24: n2 asks for it",
            "edge 10.0.0.10/24: n1 gives it up, n2 shall have it",
            "edge 10.0.0.10/24: n2 takes it",
            "edge 10.0.0.10/24: n2 → n3, n2 is silent",
        ];
        assert_eq!(texts, expected);
    }
}
