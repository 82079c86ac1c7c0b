//! Three caches over pipes in memory, with a council that does what the test says.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::super::handlers::{ITEM_MAX, LIMITS};
use super::super::{Parts, Router, services};
use crate::base::{BoxFuture, Scope};
use crate::cache::backend::memcached_tests::{Memcached, own_address, until};
use crate::cache::backend::{self, Backend};
use crate::cache::class::Rules;
use crate::cache::connection;
use crate::cache::council::fixture::{name, table};
use crate::cache::council::{Event, Placement, StandingWriter, State, Told};
use crate::cache::engine::{Engine, Flushes, Limits, Route};
use crate::cache::peer::message::Control;
use crate::cache::peer::{ASK, CONTROL, Space};
use crate::cache::store::{Clock, Store};
use crate::net::mesh::{ConnectError, Dial, Identity, Mesh, Name, Protocol, Services, Stream};

pub const PATIENCE: Duration = Duration::from_secs(30);
/// With a server that is slow because the machine is busy. A loss is made, it does not happen.
const SERVER_PATIENCE: Duration = Duration::from_secs(4);
/// Instead of an answer from a connection that has ended.
const SILENCE: &str = "(the connection has ended)";
pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Which ways are open: a message to or from a node that is shut waits.
#[derive(Clone)]
struct Ways(Arc<HashMap<(Name, Name), watch::Sender<bool>>>);

impl Ways {
    fn new() -> Self {
        let pairs = NAMES
            .iter()
            .flat_map(|from| NAMES.iter().map(move |to| (name(from), name(to))));
        let ways = pairs.map(|pair| (pair, watch::Sender::new(true)));
        Ways(Arc::new(ways.collect()))
    }

    fn way(&self, from: &Name, to: &Name) -> watch::Receiver<bool> {
        self.0[&(from.clone(), to.clone())].subscribe()
    }

    fn set(&self, is_open: bool, pleases: impl Fn(&Name, &Name) -> bool) {
        for (_, way) in self.0.iter().filter(|((from, to), _)| pleases(from, to)) {
            way.send_replace(is_open);
        }
    }
}

pub struct Node {
    pub name: Name,
    pub router: Arc<Router>,
    pub stores: [Arc<Store>; 2],
    writer: StandingWriter,
    state: Mutex<State>,
    told: tokio::sync::Mutex<mpsc::Receiver<Told>>,
    engines: [Arc<Engine>; 2],
    scope: Scope,
    incarnation: Mutex<u64>,
}

type Servers = Arc<Mutex<HashMap<Name, (Services, Scope)>>>;

struct Network {
    own: Name,
    ways: Ways,
    servers: Servers,
}

impl Dial for Network {
    fn dial<'a>(&'a self, node: &'a Name, _: Protocol) -> BoxFuture<'a, Result<Box<dyn Stream>, ConnectError>> {
        Box::pin(async move {
            let found = self.servers.lock().unwrap().get(node).cloned();
            let (services, scope) = found.ok_or(ConnectError::NoAddress)?;
            let (near, near_end) = duplex(64 << 10);
            let (far_end, far) = duplex(64 << 10);
            let (near_read, near_write) = tokio::io::split(near_end);
            let (far_read, far_write) = tokio::io::split(far_end);
            scope.spawn(pump(near_read, far_write, self.ways.way(&self.own, node)));
            scope.spawn(pump(far_read, near_write, self.ways.way(node, &self.own)));
            let peer: Identity = format!("bitrix-node://c/{}", self.own).parse().unwrap();
            let owner = scope.clone();
            scope.spawn(async move { services.serve(far, peer, LIMITS, &owner, owner.draining()).await });
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }

    fn renewed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// Carries bytes while the way is open.
async fn pump(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    mut way: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || way.wait_for(|is_open| *is_open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

pub struct World {
    pub nodes: BTreeMap<&'static str, Arc<Node>>,
    ways: Ways,
    number: Mutex<u64>,
    /// Nodes of the table in force, `+` before those that are filling.
    members: Mutex<Vec<String>>,
    /// Of the nodes that keep their items in one.
    memcacheds: Mutex<BTreeMap<&'static str, Memcached>>,
}

impl World {
    /// All three serve.
    pub fn new() -> Self {
        Self::over(BTreeMap::new())
    }

    /// Each keeps its items in its memcached, if it has one.
    fn over(memcacheds: BTreeMap<&'static str, Memcached>) -> Self {
        let (ways, servers) = (Ways::new(), Servers::default());
        let made = NAMES.into_iter().map(|text| {
            let address = memcacheds.get(text).map(|memcached| memcached.address);
            let node = Node::new(name(text), address, ways.clone(), servers.clone());
            (text, Arc::new(node))
        });
        let world = World {
            nodes: made.collect(),
            ways,
            number: Mutex::new(0),
            members: Mutex::default(),
            memcacheds: Mutex::new(memcacheds),
        };
        for node in world.nodes.values() {
            node.writer.put_lease(Duration::MAX);
        }
        world
    }

    pub async fn start() -> Self {
        let world = World::new();
        world.change(&NAMES).await;
        world
    }

    /// Over a memcached for each.
    pub async fn start_far() -> Self {
        let world = World::over(NAMES.map(|text| (text, Memcached::start(own_address()))).into());
        for node in world.nodes.values() {
            node.until_kept(true).await;
        }
        world.change(&NAMES).await;
        world
    }

    pub fn node(&self, text: &str) -> &Arc<Node> {
        &self.nodes[text]
    }

    pub fn has_servers(&self) -> bool {
        !self.memcacheds.lock().unwrap().is_empty()
    }

    pub fn memcached<R>(&self, text: &str, act: impl FnOnce(&Memcached) -> R) -> R {
        act(&self.memcacheds.lock().unwrap()[text])
    }

    /// The node knows of it when this returns.
    pub async fn kill_server(&self, text: &'static str) {
        let killed = self.memcacheds.lock().unwrap().remove(text).expect("it has one");
        let address = killed.address;
        drop(killed);
        self.node(text).until_kept(false).await;
        // It is back at once, and empty.
        self.memcacheds.lock().unwrap().insert(text, Memcached::start(address));
    }

    /// The same where it stands still and goes on later, with what it had been told before.
    pub async fn freeze_server(&self, text: &'static str) {
        self.memcached(text, Memcached::freeze);
        self.node(text).until_kept(false).await;
        self.memcached(text, Memcached::thaw);
    }

    /// Lets nothing through to and from a node, or lets it through again.
    pub fn cut(&self, text: &str, is_open: bool) {
        let cut = name(text);
        self.ways.set(is_open, |from, to| *from == cut || *to == cut);
    }

    /// Lets everything through between two nodes again, and nothing else.
    pub fn mend(&self, one: &str, other: &str) {
        let ends = [name(one), name(other)];
        self.ways.set(true, |from, to| ends.contains(from) && ends.contains(to));
    }

    /// A session that one node owns and another one has a copy of.
    pub fn key_between(&self, owner: &str, replica: &str) -> String {
        self.keys_between(owner, replica, 1).remove(0)
    }

    pub fn keys_between(&self, owner: &str, replica: &str, count: usize) -> Vec<String> {
        let router = &self.nodes[owner].router;
        let state = router.standing.state();
        let placement = state.placement().expect("there is a table");
        let is_between = |key: &String| {
            let shard = router.rules().shard(key.as_bytes());
            let pair = [placement.owner(shard), placement.replica(shard)];
            pair.map(|node| node.map(|node| node.name.as_str())) == [Some(owner), Some(replica)]
        };
        let keys = (0..).map(|number| format!("s.{number}"));
        keys.filter(is_between).take(count).collect()
    }

    /// A table of these nodes, `+` for one that is filling, in the two steps of the council; who is not in it hears nothing.
    pub async fn change(&self, members: &[&str]) {
        let number = {
            let mut number = self.number.lock().unwrap();
            *number += 1;
            *number
        };
        let mut next = table(number, members);
        for node in &mut next.nodes {
            node.incarnation = *self.nodes[node.name.as_str()].incarnation.lock().unwrap();
        }
        let next = Arc::new(Placement::new(Arc::new(next)));
        let there: Vec<&Arc<Node>> = members
            .iter()
            .map(|member| self.node(member.trim_start_matches('+')))
            .collect();
        for node in &there {
            node.prepare(&next).await;
            tokio::task::yield_now().await;
        }
        for node in &there {
            node.commit(&next).await;
            // Between two nodes' commits time passes.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        *self.members.lock().unwrap() = members.iter().map(ToString::to_string).collect();
    }

    /// A table of nobody is in force, as far as that node knows.
    pub fn desert(&self, text: &str) {
        let node = self.node(text);
        let empty = Arc::new(Placement::new(Arc::new(table(1 << 20, &[]))));
        node.put(State::new(node.name.clone(), 1).with_tables(Some(empty), None));
    }

    /// The node's lease ends and the others go on without it.
    pub async fn lose(&self, text: &str) {
        self.node(text).writer.put_lease(Duration::ZERO);
        let members = self.members.lock().unwrap().clone();
        let left: Vec<&str> = members
            .iter()
            .map(String::as_str)
            .filter(|member| member.trim_start_matches('+') != text)
            .collect();
        self.change(&left).await;
    }

    /// It comes back empty, is filled by all others, and serves.
    pub async fn rejoin(&self, text: &'static str) {
        self.come_back(text).await;
        self.until_filled(text).await;
        self.serve().await;
    }

    /// Who was filling serves.
    pub async fn serve(&self) {
        let members = self.members.lock().unwrap().clone();
        let served: Vec<&str> = members.iter().map(|member| member.trim_start_matches('+')).collect();
        self.change(&served).await;
    }

    /// It comes back empty and is being filled.
    pub async fn come_back(&self, text: &'static str) {
        let node = self.node(text);
        let incarnation = {
            let mut incarnation = node.incarnation.lock().unwrap();
            *incarnation += 1;
            *incarnation
        };
        node.put(State::new(node.name.clone(), incarnation));
        let told = node.carry_out(Event::Empty { incarnation }).await;
        assert_eq!(told, Some(Told::Emptied { incarnation }));
        node.until_kept(true).await;
        node.writer.put_lease(Duration::MAX);
        let filling = format!("+{text}");
        let mut members = self.members.lock().unwrap().clone();
        members.push(filling);
        members.sort_by_key(|member| member.trim_start_matches('+').to_string());
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        self.change(&members).await;
    }

    pub async fn until_filled(&self, text: &str) {
        let members = self.members.lock().unwrap().clone();
        let number = *self.number.lock().unwrap();
        for member in members.iter().filter(|member| !member.starts_with('+')) {
            let node = self.node(member);
            let wait = async {
                loop {
                    match node.told.lock().await.recv().await.expect("the router lives") {
                        Told::Filled(filled) if filled.node == name(text) && filled.epoch.number == number => return,
                        _ => {}
                    }
                }
            };
            timeout(PATIENCE, wait).await.expect("filled in time");
        }
    }

    pub fn client(&self, text: &str) -> Client {
        self.node(text).client(Space::Portal)
    }

    pub async fn stop(self) {
        for node in self.nodes.values() {
            node.scope.stop(Duration::ZERO).await;
        }
    }
}

impl Node {
    fn new(own: Name, address: Option<SocketAddr>, ways: Ways, servers: Servers) -> Self {
        let scope = Scope::new();
        let writer = StandingWriter::new(own.clone());
        let dial = Arc::new(Network {
            own: own.clone(),
            ways,
            servers: servers.clone(),
        });
        let stores = [(); 2].map(|()| Arc::new(Store::new(32 << 20, ITEM_MAX)));
        let (sender, told) = mpsc::channel(64);
        let clock = Clock::default();
        let backend = address.map(|address| {
            let parts = backend::Parts {
                address,
                patience: SERVER_PATIENCE,
                bench: stores[0].clone(),
                rules: Rules::new(&["s."]),
                clock,
            };
            Backend::new(parts, &scope)
        });
        let parts = Parts {
            own: own.clone(),
            rules: Rules::new(&["s."]),
            stores: stores.clone(),
            backend: backend.clone(),
            clock,
            standing: writer.subscribe(),
            mesh: Mesh::new(dial, LIMITS, &scope),
            told: sender,
        };
        let router = Router::new(parts, &scope);
        let services = services(&router).into_iter().collect();
        servers.lock().unwrap().insert(own.clone(), (services, scope.clone()));
        let engines = Space::ALL.map(|space| {
            let limits = Limits {
                max_connections: 10,
                workers: 1,
                tcp_port: 1,
            };
            let mut engine = Engine::new(stores[space.index()].clone(), limits);
            engine.clock = clock;
            if let (Space::Portal, Some(backend)) = (space, &backend) {
                engine.keep_in(backend.clone());
            }
            engine.place(Route {
                router: router.clone(),
                space,
                flushes: Flushes::Space(space),
            });
            Arc::new(engine)
        });
        Node {
            state: Mutex::new(State::new(own.clone(), 1)),
            name: own,
            router,
            stores,
            writer,
            told: tokio::sync::Mutex::new(told),
            engines,
            scope,
            incarnation: Mutex::new(1),
        }
    }

    fn put(&self, state: State) {
        *self.state.lock().unwrap() = state.clone();
        self.writer.put(Arc::new(state));
    }

    async fn prepare(&self, next: &Arc<Placement>) {
        let state = self.state.lock().unwrap().clone();
        let placement = state.placement().cloned();
        let both = placement.as_ref().map(|placement| placement.owned(&self.name));
        let serves = both.unwrap_or_default().and(&next.owned(&self.name));
        self.put(state.with_tables(placement, Some(next.clone())).serving(serves));
        let told = self.carry_out(Event::Stop(next.clone())).await;
        assert_eq!(told, Some(Told::Stopped(next.epoch())));
    }

    async fn commit(&self, next: &Arc<Placement>) {
        let state = self.state.lock().unwrap().clone();
        let serves = next.owned(&self.name);
        self.put(state.with_tables(Some(next.clone()), None).serving(serves));
        assert_eq!(self.carry_out(Event::Commit(next.clone())).await, None);
    }

    /// Where a server keeps the items this waits for what is under way.
    async fn carry_out(&self, event: Event) -> Option<Told> {
        if self.router.backend(Space::Portal).is_none() {
            return self.router.carry_out(event);
        }
        let router = self.router.clone();
        let carrying = tokio::task::spawn_blocking(move || router.carry_out(event));
        carrying.await.expect("it does not panic")
    }

    /// Its server, if it has one, is there, or is lost.
    async fn until_kept(&self, is_up: bool) {
        if let Some(backend) = self.router.backend(Space::Portal) {
            until(|| async { backend.is_up() == is_up }).await;
        }
    }

    /// Of its service for commands.
    pub async fn answer(&self, body: Vec<u8>) -> Vec<u8> {
        let services = services(&self.router);
        let (_, handler) = services.iter().find(|(id, _)| *id == ASK).unwrap();
        let peer: Identity = "bitrix-node://c/n9".parse().unwrap();
        handler.call(&peer, body.into()).await.unwrap().to_vec()
    }

    /// Has it flush what is in its part, as another node asks it to.
    pub async fn flush(&self) {
        let services = services(&self.router);
        let (_, handler) = services.iter().find(|(id, _)| *id == CONTROL).unwrap();
        let peer: Identity = "bitrix-node://c/n9".parse().unwrap();
        let (space, after) = (Space::Portal, None);
        let body = Control::Flush { space, after }.encode(self.router.epoch().unwrap());
        handler.call(&peer, body.into()).await.unwrap();
    }

    pub fn client(self: &Arc<Self>, space: Space) -> Client {
        Client {
            stream: self.connect(space),
            node: self.clone(),
            space,
        }
    }

    fn connect(&self, space: Space) -> DuplexStream {
        let (near, far) = duplex(64 << 10);
        let (engine, scope) = (self.engines[space.index()].clone(), self.scope.clone());
        self.scope.spawn(async move {
            let _ = connection::serve(far, &engine, scope).await;
        });
        near
    }
}

/// A client of the text protocol.
pub struct Client {
    stream: DuplexStream,
    /// For another connection.
    node: Arc<Node>,
    space: Space,
}

impl Client {
    pub fn take_stream(self) -> DuplexStream {
        self.stream
    }

    pub async fn send(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// What comes until the text ends in one of these ways.
    async fn read_until(&mut self, ends: &[&str]) -> String {
        let mut text = Vec::new();
        let reading = async {
            while !ends.iter().any(|end| text.ends_with(end.as_bytes())) {
                match self.stream.read_u8().await {
                    Ok(byte) => text.push(byte),
                    Err(_) => return text.extend(SILENCE.bytes()),
                }
            }
        };
        if timeout(PATIENCE, reading).await.is_err() {
            panic!("no {ends:?} after {:?}", String::from_utf8_lossy(&text));
        }
        String::from_utf8(text).unwrap()
    }

    /// A request with a reply of one line.
    pub async fn line(&mut self, request: &str) -> String {
        self.send(request).await;
        self.read_until(&["\r\n"]).await.trim_end().to_string()
    }

    pub async fn set(&mut self, key: &str, value: &str) -> String {
        self.line(&format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()))
            .await
    }

    pub async fn get(&mut self, key: &str) -> Option<String> {
        self.try_get(key).await.expect("an owner answers")
    }

    /// The value of a session that is touched.
    pub async fn touch(&mut self, key: &str) -> Option<String> {
        self.send(&format!("gat 100 {key}\r\n")).await;
        let reply = self.read_until(&["END\r\n"]).await;
        reply.lines().nth(1).map(str::to_string)
    }

    /// An error is no answer: the connection has ended, and there is another one.
    pub async fn try_get(&mut self, key: &str) -> Result<Option<String>, String> {
        self.send(&format!("get {key}\r\n")).await;
        let reply = self.read_until(&["END\r\n"]).await;
        if reply == SILENCE {
            self.stream = self.node.connect(self.space);
            return Err(reply);
        }
        let mut lines = reply.lines();
        let head = lines.next().unwrap_or_default();
        Ok(head
            .starts_with("VALUE ")
            .then(|| lines.next().unwrap_or_default().to_string()))
    }

    /// A number of `stats`.
    pub async fn number(&mut self, name: &str) -> usize {
        self.send("stats\r\n").await;
        let rows = self.read_until(&["END\r\n"]).await;
        let head = format!("STAT {name} ");
        let number = rows.lines().find_map(|row| row.strip_prefix(&head));
        number.expect("there is such a row").parse().expect("it is a number")
    }
}
