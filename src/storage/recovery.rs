//! Unclean recovery: a replica that lost the majority of its group for good becomes a group of its own, on the operator's word alone.
//!
//! Ordered while the replica runs without a leader, written down, and done at its next start, before Raft: the vote and the
//! log are continued by a leader of a new term whose membership is this replica. All that its log holds is kept, so what was
//! acknowledged while it was in sync is there, if all in sync had to have it. With more of them than copies are wanted that is not
//! so: one may lack what others have, for as long as the leader is patient (`insync`). Nor does a replica that was cut off before the
//! others were lost hear that it was dropped: what its log ends with is all it knows. It takes a new store identity, by which those
//! that were given up are refused should they come back; among themselves they may still be a majority of the old group, so they
//! must stay off until they are emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::disk::{Disk, Folder};
use super::entry::Body;
use super::identity;
use super::log::{self, Sizes};
use super::types::{Entry, Membership, NodeId, Peer, Vote, log_id, next_index};
use crate::base::file::{self, Access};

const NAME: &str = "recovery.json";

/// What was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub number: NodeId,
    pub peer: Peer,
}

/// Why a replica must not recover.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    #[error("{0} leads; there is nothing to recover from")]
    Led(String),
    #[error("a witness holds no files; recover on a replica that does")]
    Witness,
    #[error("this replica is no member of a group")]
    NoMember,
    #[error("{0} is a member too; name every member that is lost, or start it again")]
    NotNamed(String),
    #[error("{0} is no member")]
    Unknown(String),
    #[error(
        "this replica was not in sync: changes that were acknowledged without it are lost with the others. \
         Recover on one that was ({0}), or repeat with --accept-loss"
    )]
    NotInSync(String),
    #[error(
        "{in_sync} replicas were in sync and {copies} copies are enough to acknowledge: this one may lack the last seconds of what \
         was acknowledged. Repeat with --accept-loss if no other can be started again"
    )]
    MayLack { in_sync: usize, copies: usize },
}

/// What is known of the group.
pub struct Seen<'a> {
    pub me: NodeId,
    pub leader: Option<NodeId>,
    pub members: &'a BTreeMap<NodeId, Peer>,
    pub in_sync: &'a BTreeSet<NodeId>,
    /// On how many of those a change is before it is acknowledged.
    pub copies: usize,
}

/// Whether this replica may go on alone, given the names of the lost. Pure.
pub fn allow(seen: &Seen<'_>, lost: &[String], accepts_loss: bool) -> Result<Order, Refused> {
    let name = |node: &NodeId| seen.members.get(node).map_or("?", |peer| peer.name.as_str()).to_owned();
    let own = seen.members.get(&seen.me).ok_or(Refused::NoMember)?;
    if let Some(leader) = seen.leader {
        return Err(Refused::Led(name(&leader)));
    }
    if own.witness {
        return Err(Refused::Witness);
    }
    let others = || seen.members.iter().filter(|(node, _)| **node != seen.me);
    if let Some(stranger) = lost.iter().find(|lost| !others().any(|(_, peer)| peer.name == **lost)) {
        return Err(Refused::Unknown(stranger.clone()));
    }
    if let Some((_, peer)) = others().find(|(_, peer)| !lost.contains(&peer.name)) {
        return Err(Refused::NotNamed(peer.name.clone()));
    }
    if !seen.in_sync.contains(&seen.me) && !accepts_loss {
        let names: Vec<_> = seen.in_sync.iter().map(name).collect();
        return Err(Refused::NotInSync(names.join(", ")));
    }
    if seen.in_sync.len() > seen.copies && !accepts_loss {
        return Err(Refused::MayLack {
            in_sync: seen.in_sync.len(),
            copies: seen.copies,
        });
    }
    Ok(Order {
        number: seen.me,
        peer: own.clone(),
    })
}

fn place(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Writes the order down for the next start.
pub fn order(folder: &Path, order: &Order) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(order).map_err(io::Error::other)?;
    file::replace(&place(folder), &text, Access::mode(0o600))
}

/// Carries out what was ordered, if anything was. May be cut short and begun again. Blocks.
pub fn perform(folder: &Path, sizes: Sizes) -> io::Result<bool> {
    let text = match std::fs::read(place(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text?,
    };
    let Order { number, peer } = serde_json::from_slice(&text)?;
    let disk = std::sync::Arc::new(Folder::new(folder.join("log")));
    let store = identity::renew(&*disk, number)?;
    go_alone(disk, sizes, number, Peer { store, ..peer })?;
    std::fs::remove_file(place(folder))?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(true)
}

/// Continues vote and log in the name of this replica alone.
fn go_alone(disk: std::sync::Arc<dyn Disk>, sizes: Sizes, me: NodeId, peer: Peer) -> io::Result<()> {
    log::amend(disk, sizes, |last, vote| {
        let voted = vote.map_or(0, |vote| vote.leader_id.term);
        let term = voted.max(last.map_or(0, |id| id.leader_id.term)) + 1;
        let alone = BTreeSet::from([me]);
        let membership = Membership::new(vec![alone.clone()], BTreeMap::from([(me, peer)]));
        let payloads = [
            EntryPayload::Membership(membership),
            EntryPayload::Normal(Body::InSync(alone)),
        ];
        let first = next_index(last);
        let entries = payloads.into_iter().zip(first..).map(|(payload, index)| Entry {
            log_id: log_id(term, me, index),
            payload,
        });
        (Vote::new_committed(term, me), entries.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> BTreeMap<NodeId, Peer> {
        let peer = |node: NodeId| Peer {
            name: format!("n{node}"),
            witness: node == 4,
            ..Peer::default()
        };
        (1..=4).map(|node| (node, peer(node))).collect()
    }

    fn seen<'a>(me: NodeId, members: &'a BTreeMap<NodeId, Peer>, in_sync: &'a BTreeSet<NodeId>) -> Seen<'a> {
        Seen {
            me,
            leader: None,
            members,
            in_sync,
            copies: 3,
        }
    }

    fn decide(
        me: NodeId,
        leader: Option<NodeId>,
        in_sync: &[NodeId],
        lost: &[&str],
        accepts: bool,
    ) -> Result<(), Refused> {
        let (members, in_sync) = (members(), in_sync.iter().copied().collect());
        let seen = Seen {
            leader,
            ..seen(me, &members, &in_sync)
        };
        let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
        allow(&seen, &lost, accepts).map(drop)
    }

    #[test]
    fn only_a_survivor_that_was_in_sync_and_knows_all_lost_goes_on() {
        let all = ["n1", "n2", "n4"];
        assert_eq!(decide(3, None, &[1, 3], &all, false), Ok(()));
        assert_eq!(decide(3, Some(2), &[1, 3], &all, true), Err(Refused::Led("n2".into())));
        assert_eq!(
            decide(4, None, &[1, 3], &["n1", "n2", "n3"], true),
            Err(Refused::Witness)
        );
        assert_eq!(decide(9, None, &[1], &all, true), Err(Refused::NoMember));
        assert_eq!(
            decide(3, None, &[3], &["n1", "n2"], true),
            Err(Refused::NotNamed("n4".into()))
        );
        assert_eq!(
            decide(3, None, &[3], &["n1", "n7"], true),
            Err(Refused::Unknown("n7".into()))
        );
        assert_eq!(
            decide(3, None, &[1, 2], &all, false),
            Err(Refused::NotInSync("n1, n2".into()))
        );
        assert_eq!(decide(3, None, &[1, 2], &all, true), Ok(()));
    }

    #[test]
    fn of_more_in_sync_than_copies_each_may_lack_what_the_others_have() {
        let peer = |node: NodeId| Peer {
            name: format!("n{node}"),
            ..Peer::default()
        };
        let members: BTreeMap<_, _> = (1..=5).map(|node| (node, peer(node))).collect();
        let lost = ["n1", "n2", "n3", "n5"].map(String::from);
        let decide = |in_sync: &[NodeId], accepts| {
            let in_sync = in_sync.iter().copied().collect();
            allow(&seen(4, &members, &in_sync), &lost, accepts).map(drop)
        };
        let may_lack = |in_sync| Err(Refused::MayLack { in_sync, copies: 3 });
        for (in_sync, expected) in [
            (&[4][..], Ok(())),
            (&[1, 4], Ok(())),
            (&[1, 2, 4], Ok(())),
            (&[1, 2, 3, 4], may_lack(4)),
            (&[1, 2, 3, 4, 5], may_lack(5)),
            (&[1, 2, 3, 5], Err(Refused::NotInSync("n1, n2, n3, n5".into()))),
        ] {
            assert_eq!(decide(in_sync, false), expected);
            assert_eq!(decide(in_sync, true), Ok(()));
        }
    }

    #[test]
    fn an_order_is_carried_out_once_and_the_store_is_another_then() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("log")).unwrap();
        let disk = Folder::new(folder.path().join("log"));
        let before = identity::ensure(&disk, 3).unwrap();
        assert!(
            !perform(folder.path(), Sizes::default()).unwrap(),
            "nothing was ordered"
        );
        let peer = members().remove(&3).unwrap();
        order(folder.path(), &Order { number: 3, peer }).unwrap();
        assert!(perform(folder.path(), Sizes::default()).unwrap());
        assert!(!perform(folder.path(), Sizes::default()).unwrap());
        assert_ne!(identity::ensure(&disk, 3).unwrap(), before);
    }
}
