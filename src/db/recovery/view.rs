//! `gvwstate.dat`: the last Primary view that a node was in. It is there while the server runs and after it crashed; an orderly end
//! removes it. No I/O.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::position::Uuid;

/// What a primary component's id begins with.
const PRIMARY: &str = "3";
/// More than a group ever has: a damaged file must not fill the memory.
const MEMBERS: usize = 64;

/// A Primary view, as one of its members saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// This node among the members.
    pub own: Uuid,
    /// The member that formed it, and its number: both together tell views apart.
    pub leader: Uuid,
    pub number: u64,
    pub members: BTreeSet<Uuid>,
}

impl View {
    /// Both were in the same one.
    pub fn is_same(&self, other: &View) -> bool {
        (self.leader, self.number, &self.members) == (other.leader, other.number, &other.members)
    }
}

/// `None`: this is no such file, half of one, or not of a primary component.
pub fn parse(bytes: &[u8]) -> Option<View> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let own = lines.next()?.strip_prefix("my_uuid: ")?.parse().ok()?;
    if lines.next()? != "#vwbeg" {
        return None;
    }
    let (mut id, mut members) = (None, BTreeSet::new());
    loop {
        let line = lines.next()?;
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name {
            "#vwend" => break,
            "view_id" if id.is_none() => id = Some(view_id(value)?),
            "member" if members.len() < MEMBERS => {
                members.insert(value.split_once(' ')?.0.parse().ok()?);
            }
            "bootstrap" => {}
            _ => return None,
        }
    }
    let (leader, number) = id?;
    members.contains(&own).then_some(View {
        own,
        leader,
        number,
        members,
    })
}

/// Type, the member that formed it, number.
fn view_id(text: &str) -> Option<(Uuid, u64)> {
    let mut fields = text.split(' ');
    let kind = fields.next()?;
    let id = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (kind == PRIMARY && fields.next().is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "my_uuid: 6d64faa9-e9f2-11f1-b28d-fae7986430ab\n#vwbeg\nview_id: 3 6d64faa9-e9f2-11f1-b28d-fae7986430ab 2\nbootstrap: 0\nmember: 6d64faa9-e9f2-11f1-b28d-fae7986430ab 0\nmember: 6f364ec6-e9f2-11f1-9605-7a3f2f0c2b11 0\n#vwend\n";

    #[test]
    fn a_view_has_its_members() {
        let view = parse(FILE.as_bytes()).unwrap();
        assert_eq!((view.number, view.members.len()), (2, 2));
        let mut other = view.clone();
        other.own = *view.members.last().unwrap();
        assert!(view.is_same(&other));
        other.number = 3;
        assert!(!view.is_same(&other));
    }

    #[test]
    fn half_a_file_and_other_bytes_are_none() {
        for end in 0..FILE.len() - 1 {
            assert_eq!(parse(&FILE.as_bytes()[..end]), None, "{end}");
        }
        for (old, new) in [
            ("view_id: 3", "view_id: 2"),
            ("view_id: 3", "view_id: 3 x"),
            ("my_uuid: 6d64", "my_uuid: 6d65"),
            (
                "bootstrap: 0",
                "bootstrap: 0\nview_id: 3 6d64faa9-e9f2-11f1-b28d-fae7986430ab 9",
            ),
            ("#vwbeg", "#vwbegin"),
            ("member: 6f364ec6", "member: 6f364ec"),
        ] {
            assert_eq!(parse(FILE.replacen(old, new, 1).as_bytes()), None, "{old} -> {new}");
        }
        let many: String = (0..=MEMBERS)
            .map(|n| format!("member: 6f364ec6-e9f2-11f1-9605-{n:012x} 0\n"))
            .collect();
        assert_eq!(parse(FILE.replace("#vwend", &(many + "#vwend")).as_bytes()), None);
    }
}
