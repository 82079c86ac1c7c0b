//! The hub by itself: replay, live messages, who is online, and no gap between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::channel::Address;
use super::hub::{Hub, PER_CHANNEL, Wanted};
use super::message::{Body, Message, Publication, Sender};
use super::metrics::Metrics;
use super::mid::Mid;
use super::queue::Ended;
use crate::base::Scope;

/// Of a test that waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn hub() -> Arc<Hub> {
    Hub::new(8 << 20, Arc::new(Metrics::default()))
}

fn to(users: &[u64], body: usize, expiry: u32) -> Publication {
    Publication {
        receivers: users.iter().map(|user| Address::User(*user)).collect(),
        sender: Sender::Backend,
        body: Body::new(body.to_string()).expect("JSON"),
        expiry,
        extras: None,
    }
}

fn listens(user: u64, after: Option<Mid>) -> Wanted {
    Wanted {
        addresses: vec![Address::User(user)],
        after,
        own: vec![Address::User(user)],
        is_bounded: true,
    }
}

fn bodies(messages: &VecDeque<Arc<Message>>) -> Vec<usize> {
    let body = |message: &Arc<Message>| message.body.as_str().parse().expect("a number");
    messages.iter().map(body).collect()
}

#[tokio::test]
async fn who_comes_back_gets_what_it_missed_and_nothing_twice() {
    let hub = hub();
    let first = hub.subscribe(listens(1, None));
    hub.enter((0..3).map(|body| to(&[1], body, 60)).collect())
        .await
        .expect("alone");
    let taken = first.queue().take().await.expect("not ended");
    assert_eq!(bodies(&taken), [0, 1, 2]);
    drop(first);
    hub.enter(vec![to(&[1], 3, 60), to(&[2], 4, 60), to(&[1], 5, 0)])
        .await
        .expect("alone");
    let second = hub.subscribe(listens(1, Some(taken[1].mid)));
    hub.enter(vec![to(&[1], 6, 60)]).await.expect("alone");
    let taken = second.queue().take().await.expect("not ended");
    assert_eq!(bodies(&taken), [2, 3, 6], "without the one that was for those present");
    let stranger = hub.subscribe(listens(1, None));
    assert!(
        stranger.queue().try_take().is_none(),
        "nothing of the past unless it is asked for"
    );
}

#[tokio::test]
async fn who_missed_more_than_may_wait_gets_the_newest() {
    const MOST: usize = 5;
    // The second: one is told however large it is.
    for size in [1 << 20, 3 << 20] {
        let hub = Hub::new(64 << 20, Arc::new(Metrics::default()));
        let first = hub.subscribe(listens(1, None));
        let publications = (0..MOST).map(|body| Publication {
            body: Body::new(format!("{body}{}", " ".repeat(size))).expect("JSON"),
            ..to(&[1], body, 60)
        });
        hub.enter(publications.collect()).await.expect("alone");
        for after in [first.since, Mid::parse(&"9".repeat(26)).expect("26 digits")] {
            let back = hub.subscribe(listens(1, Some(after)));
            let taken = back.queue().take().await.expect("not cut off");
            let told = taken.iter().map(|message| message.body.as_str().trim_end().parse());
            let told: Vec<usize> = told.collect::<Result<_, _>>().expect("numbers");
            assert!(
                !told.is_empty() && told.iter().copied().eq(MOST - told.len()..MOST),
                "{told:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_id_of_a_predecessor_with_a_fast_clock_hides_nothing() {
    let hub = hub();
    hub.enter(vec![to(&[1], 0, 60)]).await.expect("alone");
    let future = Mid::parse(&"9".repeat(26)).expect("26 digits");
    let back = hub.subscribe(listens(1, Some(future)));
    assert_eq!(bodies(&back.queue().take().await.expect("not ended")), [0]);
}

/// A publisher never stops, clients come and go all the time, and each must have seen every message once. Were replay and subscription
/// two steps, some message would fall between them. The publisher stays so near to the slowest client that the history has it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_falls_between_replay_and_live() {
    const MESSAGES: usize = 20_000;
    const AHEAD: usize = 50;
    let (hub, scope) = (hub(), Scope::new());
    let progress: Arc<[AtomicUsize; 3]> = Arc::default();
    let clients = (0..progress.len()).map(|client| {
        let (hub, progress) = (hub.clone(), progress.clone());
        scope.spawn(async move {
            let (mut seen, mut after, mut visits) = (Vec::new(), Mid::default(), 0);
            while seen.len() < MESSAGES {
                let visit = hub.subscribe(listens(1, Some(after)));
                let taken = visit.queue().take().await.expect("fast enough");
                after = taken.back().expect("at least one").mid;
                seen.extend(bodies(&taken));
                progress[client].store(seen.len(), Ordering::Relaxed);
                visits += 1;
            }
            (seen, visits)
        })
    });
    let clients: Vec<_> = clients.collect();
    let publish = async {
        for body in 0..MESSAGES {
            while progress.iter().any(|seen| seen.load(Ordering::Relaxed) + AHEAD < body) {
                tokio::task::yield_now().await;
            }
            hub.enter(vec![to(&[1], body, 60)]).await.expect("alone");
        }
    };
    // Who has lost one waits for it for ever, and the publisher for him.
    let published = tokio::time::timeout(PATIENCE, publish).await;
    published.expect("a client has lost a message");
    for client in clients {
        let (seen, visits) = client.await.expect("no panic").expect("not killed");
        assert!(visits > MESSAGES / 100, "{visits} visits prove nothing");
        assert!(seen.into_iter().eq(0..MESSAGES), "each once and in order");
    }
}

#[tokio::test(start_paused = true)]
async fn coming_and_going_is_told_to_those_who_follow() {
    let (hub, scope) = (hub(), Scope::new());
    scope.spawn(hub.clone().keep_house(scope.clone()));
    let mut watcher = hub.subscribe(listens(1, None));
    assert!(watcher.follow(2) && watcher.follow(2));
    let told = |messages: VecDeque<Arc<Message>>| -> Vec<(u64, bool)> {
        let read = |message: &Arc<Message>| {
            let body: serde_json::Value = serde_json::from_str(message.body.as_str()).expect("JSON");
            let params = &body["params"];
            (
                params["user_id"].as_u64().expect("a user"),
                params["online"].as_bool().expect("a state"),
            )
        };
        messages.iter().map(read).collect()
    };
    let (other, second) = (hub.subscribe(listens(2, None)), hub.subscribe(listens(2, None)));
    assert_eq!(told(watcher.queue().take().await.expect("told")), [(2, true)]);
    drop((other, second));
    assert_eq!(
        hub.online(&[Address::User(2), Address::User(3)]),
        [true, false],
        "for a while"
    );
    assert_eq!(told(watcher.queue().take().await.expect("told")), [(2, false)]);
    assert_eq!(hub.online(&[Address::User(2)]), [false]);
    let seen = hub.last_seen(&[1, 2, 3]);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(seen[&1].is_zero() && !seen[&2].is_zero());
    watcher.unfollow(2);
    let _back = hub.subscribe(listens(2, None));
    assert!(watcher.queue().try_take().is_none());
    assert!(scope.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn the_oldest_of_too_many_connections_goes() {
    let hub = hub();
    let mut all: Vec<_> = (0..PER_CHANNEL).map(|_| hub.subscribe(listens(1, None))).collect();
    assert!(all[0].queue().try_take().is_none());
    all.push(hub.subscribe(listens(1, None)));
    assert_eq!(all[0].queue().take().await.err(), Some(Ended::Crowded));
    assert!(all[1].queue().try_take().is_none());
    // A channel that belongs to nobody in particular has no such bound.
    let shared = Wanted {
        addresses: vec![Address::User(9)],
        ..Wanted::default()
    };
    let many: Vec<_> = (0..PER_CHANNEL * 2).map(|_| hub.subscribe(shared.clone())).collect();
    assert!(
        many.iter()
            .all(|subscription| subscription.queue().try_take().is_none())
    );
    drop((all, many));
    assert_eq!(hub.numbers().channels, 0);
}
