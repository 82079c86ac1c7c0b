//! A listener between a scripted leader and one who heeds when the test says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::call::{Caller, Inode, PORTAL, Query, Reply};
use super::client::Way;
use super::client_tests;
use super::listener::Listener;
use super::network::Unreached;
use super::operation::Session;
use super::promise::{Heed, Kept, Recalls};
use super::request::{Answer, Request, Response};
use super::types::NodeId;
use crate::base::{BoxFuture, Scope, clock};

const LONG: Duration = Duration::from_secs(60);
/// Long enough for a busy machine, short enough to see its end.
const SHORT: Duration = Duration::from_secs(1);
/// Over before anything is done about it.
const NOTHING: Duration = Duration::from_nanos(1);
const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

type Asked = ((u64, u64), oneshot::Sender<Response>);
type Told = (Recalls, oneshot::Sender<()>);

struct Script {
    leader: watch::Sender<Option<NodeId>>,
    asked: mpsc::Sender<Asked>,
}

impl Way for Script {
    fn leader(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader.subscribe()
    }

    fn ask<'a>(
        &'a self,
        _node: NodeId,
        request: Request,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<Response, Unreached>> {
        let Request::Listen { epoch, confirmed, .. } = request else {
            panic!("{request:?}");
        };
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.asked.send(((epoch, confirmed), answer)).await.unwrap();
            answered
                .await
                .map_err(|_| Unreached::Refused("as the test wants it".into()))
        })
    }
}

struct Slow(mpsc::Sender<Told>);

impl Heed for Slow {
    fn recalled<'a>(&'a self, recalls: &'a Recalls) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (done, is_done) = oneshot::channel();
            self.0.send((recalls.clone(), done)).await.unwrap();
            is_done.await.unwrap();
        })
    }
}

struct World {
    kept: Arc<Mutex<Kept>>,
    asked: mpsc::Receiver<Asked>,
    told: mpsc::Receiver<Told>,
    scope: Scope,
    _begun: watch::Sender<Option<Session>>,
}

impl World {
    fn start() -> Self {
        let (asked, told) = (mpsc::channel(1), mpsc::channel(1));
        let (kept, scope) = (Arc::<Mutex<Kept>>::default(), Scope::new());
        let way = Arc::new(Script {
            leader: watch::Sender::new(Some(1)),
            asked: asked.0,
        });
        let begun = watch::Sender::new(Some(Session(5)));
        let heed = Arc::new(Slow(told.0));
        let listener = Listener::new(way, kept.clone(), Some(heed), begun.subscribe(), scope.clone());
        scope.spawn(listener.run());
        World {
            kept,
            asked: asked.1,
            told: told.1,
            scope,
            _begun: begun,
        }
    }

    /// The next `Listen` says to have heard this; the leader answers it.
    async fn answer(&mut self, heard: (u64, u64), recalls: Recalls, lease: Duration) {
        let (said, answer) = self.asked.recv().await.unwrap();
        assert_eq!(said, heard);
        answer.send(Response::Listened { recalls, lease }).unwrap();
    }

    /// All is heeded, up to what the test looks for.
    async fn told(&mut self) -> Recalls {
        let (recalls, done) = self.told.recv().await.unwrap();
        done.send(()).unwrap();
        recalls
    }

    fn is_lent(&self) -> bool {
        self.kept.lock().unwrap().is_lent(clock::boot())
    }

    fn find(&self) -> Option<Answer> {
        self.kept.lock().unwrap().find(&CALLER, &QUERY, clock::boot())
    }

    async fn stop(mut self) {
        self.asked.close();
        self.scope.stop(Duration::ZERO).await;
    }
}

const QUERY: Query = Query::Attributes { inode: PORTAL };

fn recalls(epoch: u64, last: u64, inodes: &[Inode]) -> Recalls {
    Recalls {
        epoch,
        last,
        inodes: inodes.to_vec(),
        ..Recalls::default()
    }
}

fn attributes() -> Answer {
    Ok(Reply::Attributes(client_tests::attributes(PORTAL)))
}

#[tokio::test]
async fn a_recall_is_heeded_before_it_is_confirmed_and_before_the_lease_is_longer() {
    let mut world = World::start();
    world.answer((0, 0), recalls(7, 0, &[]), LONG).await;
    let (told, done) = world.told.recv().await.unwrap();
    assert!(told.all, "the epoch is new");
    assert!(!world.is_lent(), "not before that is heeded");
    done.send(()).unwrap();
    world.answer((7, 0), recalls(7, 2, &[]), SHORT).await;
    assert!(!world.told().await.all);
    {
        let mut kept = world.kept.lock().unwrap();
        let ticket = kept.ticket();
        kept.keep((&CALLER, &QUERY), &attributes(), 7, ticket);
    }
    let (said, answer) = world.asked.recv().await.unwrap();
    assert_eq!(said, (7, 2), "what was heeded is confirmed");
    assert!(world.find().is_some());
    let lease = LONG;
    let recalls = recalls(7, 3, &[PORTAL]);
    answer.send(Response::Listened { recalls, lease }).unwrap();
    let (told, done) = world.told.recv().await.unwrap();
    assert!(told.inodes == [PORTAL] && !told.all);
    assert!(world.find().is_none(), "it is forgotten before others are told");
    while world.is_lent() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(world.asked.try_recv().is_err(), "nothing is confirmed meanwhile");
    done.send(()).unwrap();
    let (said, _) = world.asked.recv().await.unwrap();
    assert!(said == (7, 3) && world.is_lent());
    world.stop().await;
}

#[tokio::test]
async fn the_end_of_a_lease_is_told_and_so_is_its_beginning() {
    let mut world = World::start();
    world.answer((0, 0), recalls(7, 0, &[]), SHORT).await;
    assert!(world.told().await.all);
    // The leader takes its time.
    let (_, late) = world.asked.recv().await.unwrap();
    assert_eq!(world.told().await, Recalls::of_all());
    assert!(!world.is_lent());
    assert!(late.is_closed(), "it is asked again");
    world.answer((7, 0), recalls(7, 0, &[]), LONG).await;
    assert!(
        world.told().await.all,
        "what was answered in between was promised by nobody"
    );
    world.answer((7, 0), recalls(7, 0, &[]), LONG).await;
    assert!(!world.told().await.all);
    world.stop().await;
}

#[tokio::test]
async fn who_heeds_longer_than_the_lease_is_not_told_the_same_for_ever() {
    let mut world = World::start();
    world.answer((0, 0), recalls(7, 0, &[]), NOTHING).await;
    let (told, done) = world.told.recv().await.unwrap();
    assert!(told.all);
    done.send(()).unwrap();
    world.answer((7, 0), recalls(7, 0, &[]), LONG).await;
    assert!(!world.told().await.all, "that has been done");
    assert!(world.asked.recv().await.is_some() && world.is_lent());
    world.stop().await;
    // But not after a try that failed: who knows for how long nobody answered.
    let mut world = World::start();
    world.answer((0, 0), recalls(7, 0, &[]), NOTHING).await;
    let (_, done) = world.told.recv().await.unwrap();
    done.send(()).unwrap();
    drop(world.asked.recv().await.unwrap());
    world.answer((7, 0), recalls(7, 0, &[]), LONG).await;
    assert!(world.told().await.all);
    world.stop().await;
}
