//! The two loops of a replica: when to stand for election, and whom to count as in sync. They look and act; what to do is
//! decided in `guard` and `insync`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::ServerState;

use super::entry::Body;
use super::group::Group;
use super::guard::{self, Evidence, FRESH, Standing, Verdict};
use super::insync::{Keeper, Now};
use super::types::{NodeId, Vote, next_index};
use super::wire::{self, Kind};
use crate::base::Scope;

/// How often a follower looks whether its leader is silent.
const LOOK: Duration = Duration::from_millis(50);
/// How long others have to say how they stand.
const ASK: Duration = Duration::from_millis(150);
/// How much longer than a majority the others have.
const LINGER: Duration = Duration::from_millis(40);
/// How often a leader judges its replicas.
const JUDGE: Duration = Duration::from_millis(100);

/// Waits; false when the scope drains.
async fn pause(scope: &Scope, time: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = scope.draining() => false,
    }
}

/// Has this node stand for election when there is evidence that one is due.
pub async fn guard_elections(group: Group, scope: Scope) {
    let mut last_attempt = None;
    while pause(&scope, LOOK).await {
        let is_leader = group.raft.server_metrics().borrow().state == ServerState::Leader;
        let (leader, silence) = group.silence();
        let voters = group.voters();
        // A lone voter has nobody to hear.
        let is_alone = voters.iter().all(|voters| voters.len() == 1);
        if is_leader || (silence < FRESH && leader.is_some() && !is_alone) {
            last_attempt = None;
            continue;
        }
        let answers = ask(&group, &voters).await;
        let now = (group.network.clock)();
        let verdict = guard::decide(&Evidence {
            now,
            contact: now.saturating_sub(group.silence().1),
            me: group.settings.me,
            last_log: group.last_log(),
            is_witness: group.is_witness(),
            voters: &voters,
            answers: &answers,
            last_attempt,
        });
        if verdict == Verdict::Stand {
            tracing::info!(
                node = group.settings.me,
                ?silence,
                "no leader is heard; standing for election"
            );
            last_attempt = Some(now);
            // Fails only when the replica has ended.
            let _ = group.raft.trigger().elect().await;
        }
    }
}

/// Asks the other voters how they stand, until all have answered, or a majority of each set and a little longer: who goes
/// first must be judged from the same answers everywhere, or several stand at once.
async fn ask(group: &Group, voters: &[BTreeSet<NodeId>]) -> BTreeMap<NodeId, Standing> {
    let (me, peers) = (group.settings.me, group.peers());
    let asked = peers
        .iter()
        .filter(|(node, _)| **node != me && voters.iter().any(|voters| voters.contains(node)));
    let mut calls: FuturesUnordered<_> = asked
        .map(|(node, peer)| async move {
            let call = group.network.call(Kind::Standing, *node, peer, &[], ASK);
            let answer = tokio::time::timeout(ASK, call).await.ok()?.ok()?.ok()?;
            Some((*node, wire::from_json(&answer).ok()?))
        })
        .collect();
    let mut answers = BTreeMap::new();
    while !guard::is_majority(voters, me, &answers) {
        let Some(answer) = calls.next().await else {
            return answers;
        };
        answers.extend(answer);
    }
    let rest = async {
        while let Some(answer) = calls.next().await {
            answers.extend(answer);
        }
    };
    // Whoever is left out is silent, or as good as that.
    let _ = tokio::time::timeout(LINGER, rest).await;
    answers
}

/// While this node leads, writes changes of the in-sync set into the log.
pub async fn keep_in_sync(group: Group, scope: Scope) {
    let mut keeper: Option<(Vote, Keeper)> = None;
    while pause(&scope, JUDGE).await {
        let (vote, state) = {
            let metrics = group.raft.server_metrics();
            let metrics = metrics.borrow();
            (metrics.vote, metrics.state)
        };
        let Some(durable) = group.durable().filter(|_| state == ServerState::Leader) else {
            keeper = None;
            group.raft.runtime_config().heartbeat(true);
            continue;
        };
        let time = (group.network.clock)();
        let data: BTreeSet<_> = group
            .peers()
            .into_iter()
            .filter(|(_, peer)| !peer.witness)
            .map(|(node, _)| node)
            .collect();
        if group.is_witness() {
            // One that has files and all of the log shall lead: it stands when this node falls silent.
            let next = next_index(group.last_log());
            let can_hand_on = durable.iter().any(|(node, has)| data.contains(node) && *has >= next);
            group.raft.runtime_config().heartbeat(!can_hand_on);
            continue;
        }
        let (_, judge) = match keeper.take_if(|(known, _)| *known == vote) {
            Some(known) => keeper.insert(known),
            None => keeper.insert((vote, Keeper::new(time, &data, group.silence().0))),
        };
        let heard = |node| {
            let contacts = group.network.contacts.lock().expect("no holder of this lock panics");
            contacts.last(node)
        };
        let wanted = judge.wanted(&Now {
            time,
            me: group.settings.me,
            in_sync: &group.in_sync(),
            data: &data,
            durable: &durable,
            next: next_index(group.last_log()),
            heard: &heard,
        });
        if let Some(wanted) = wanted {
            tracing::info!(in_sync = ?wanted, "the in-sync set changes");
            // A leader that is one no longer fails here; the next judges anew. Cut off, it waits here, and that is right.
            let write = group.raft.client_write(Body::InSync(wanted));
            let _ = group.while_leading(write).await;
        }
    }
}
