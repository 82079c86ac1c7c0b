//! Clients of all nodes under a nemesis: nodes are frozen, left out, taken out while they live, and come back. Seeded.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::history::{Counter, Lock, Register};
use super::world::{Client, NAMES, World};
use crate::base::Scope;
use crate::base::seeded::Random;
use crate::cache::backend::memcached_tests::Memcached;

/// Everything that the clients of a run share.
struct Book {
    registers: Vec<Mutex<Register>>,
    counter: Mutex<Counter>,
    lock: Mutex<Lock>,
    /// The longest that a client waited while its own node was in the table all the time.
    stall: Mutex<Duration>,
}

const REGISTERS: usize = 40;

impl Book {
    fn new() -> Arc<Self> {
        let register = |number| {
            let is_bulk = number % 2 == 0;
            let key = if is_bulk {
                format!("k{number}")
            } else {
                format!("s.{number}")
            };
            Mutex::new(Register::new(key, is_bulk))
        };
        Arc::new(Book {
            registers: (0..REGISTERS).map(register).collect(),
            counter: Mutex::default(),
            lock: Mutex::default(),
            stall: Mutex::default(),
        })
    }
}

impl Book {
    fn tell(&self, seed: u64, reads: usize, misses: usize) -> String {
        format!(
            "seed {seed}: {reads} reads, {misses} misses, {} additions, {} grants of a lock, stall {:?}",
            self.counter.lock().unwrap().confirmed(),
            self.lock.lock().unwrap().grants,
            self.stall.lock().unwrap()
        )
    }

    fn waited(&self, time: Duration) {
        let mut stall = self.stall.lock().unwrap();
        *stall = (*stall).max(time);
    }
}

async fn write(mut client: Client, book: Arc<Book>, number: usize, scope: Scope, mut random: Random) {
    while !scope.is_draining() {
        let is_removal = random.index(8) == 0;
        let (key, version) = {
            let mut register = book.registers[number].lock().unwrap();
            (register.key.clone(), register.write(is_removal))
        };
        let reply = match is_removal {
            true => client.line(&format!("delete {key}\r\n")).await,
            false => client.set(&key, &version.to_string()).await,
        };
        match reply.as_str() {
            "STORED" | "DELETED" | "NOT_FOUND" => book.registers[number].lock().unwrap().confirm(version),
            other => assert!(other.starts_with("SERVER_ERROR"), "{other}"),
        }
        sleep(Duration::from_millis(1 + random.index(12) as u64)).await;
    }
}

async fn read(mut client: Client, book: Arc<Book>, scope: Scope, mut random: Random) {
    while !scope.is_draining() {
        let register = &book.registers[random.index(REGISTERS)];
        let (key, reading) = {
            let register = register.lock().unwrap();
            (register.key.clone(), register.read())
        };
        let answer = client.try_get(&key).await;
        if let Ok(value) = answer {
            let value = value.map(|value| value.parse().unwrap());
            register.lock().unwrap().judge(&reading, value);
        }
        sleep(Duration::from_millis(random.index(4) as u64)).await;
    }
}

async fn count(mut client: Client, book: Arc<Book>, scope: Scope, mut random: Random) {
    while !scope.is_draining() {
        book.counter.lock().unwrap().attempt();
        let reply = client.line("incr s.counter 1\r\n").await;
        match reply.parse() {
            Ok(value) => book.counter.lock().unwrap().told(value),
            Err(_) => assert!(reply.starts_with("SERVER_ERROR"), "{reply}"),
        }
        sleep(Duration::from_millis(random.index(6) as u64)).await;
    }
}

async fn lock(mut client: Client, own: usize, book: Arc<Book>, scope: Scope, mut random: Random) {
    while !scope.is_draining() {
        let generation = book.lock.lock().unwrap().generation;
        let key = format!("session{generation}.lock");
        match client.line(&format!("add {key} 0 0 1\r\n1\r\n")).await.as_str() {
            "STORED" => {
                book.lock.lock().unwrap().granted(generation, own);
                sleep(Duration::from_millis(random.index(10) as u64)).await;
                book.lock.lock().unwrap().releasing(generation);
                if client.line(&format!("delete {key}\r\n")).await != "DELETED" {
                    book.lock.lock().unwrap().unknown(generation);
                }
            }
            "NOT_STORED" => {}
            other => {
                assert!(other.starts_with("SERVER_ERROR"), "{other}");
                book.lock.lock().unwrap().unknown(generation);
            }
        }
        sleep(Duration::from_millis(1 + random.index(5) as u64)).await;
    }
}

/// Asks what its node does not own, again and again; how long may an answer take?
async fn time(mut client: Client, book: Arc<Book>, scope: Scope, mut random: Random) {
    while !scope.is_draining() {
        let began = tokio::time::Instant::now();
        // How long, whatever it says.
        let _ = client.try_get(&format!("s.{}", random.index(500))).await;
        book.waited(began.elapsed());
        sleep(Duration::from_millis(1)).await;
    }
}

async fn round(world: &World, random: &mut Random) {
    let lost = NAMES[1 + random.index(2)];
    // n1 stays, so that there is a client whose node is always there.
    match random.index(if world.has_servers() { 6 } else { 3 }) {
        // Frozen, or cut off.
        0 => {
            world.cut(lost, false);
            sleep(Duration::from_millis(100 + random.index(200) as u64)).await;
            world.lose(lost).await;
            sleep(Duration::from_millis(random.index(1500) as u64)).await;
            world.cut(lost, true);
        }
        // Left out while it lives, and goes on sending.
        1 => world.lose(lost).await,
        // Cut off for a moment, and nobody minds.
        2 => {
            world.cut(lost, false);
            sleep(Duration::from_millis(random.index(150) as u64)).await;
            world.cut(lost, true);
            return;
        }
        // Its server is killed, or frozen and thawed, and is there again before it is left out.
        3 => {
            world.kill_server(lost).await;
            world.lose(lost).await;
        }
        4 => {
            world.freeze_server(lost).await;
            world.lose(lost).await;
        }
        // Its server stands still for a moment, and nobody minds.
        _ => {
            world.memcached(lost, Memcached::freeze);
            sleep(Duration::from_millis(random.index(300) as u64)).await;
            world.memcached(lost, Memcached::thaw);
            return;
        }
    }
    sleep(Duration::from_millis(random.index(300) as u64)).await;
    if random.index(3) == 0 {
        // It is lost again before it is filled.
        world.come_back(lost).await;
        sleep(Duration::from_millis(random.index(20) as u64)).await;
        world.lose(lost).await;
    }
    world.rejoin(lost).await;
    sleep(Duration::from_millis(random.index(300) as u64)).await;
}

pub async fn run(world: World, seed: u64, rounds: usize) -> String {
    let (book, scope) = (Book::new(), Scope::new());
    let seeded = |number: usize| Random(seed << 20 | number as u64);
    assert_eq!(world.client("n1").line("add s.counter 0 0 1\r\n0\r\n").await, "STORED");
    let mut clients = Vec::new();
    for (number, node) in NAMES.iter().cycle().take(REGISTERS).enumerate() {
        let task = write(world.client(node), book.clone(), number, scope.clone(), seeded(number));
        clients.push(scope.spawn(task));
    }
    for (number, node) in NAMES.iter().cycle().take(9).enumerate() {
        let client = || (world.client(node), book.clone(), scope.clone());
        let ((first, book, owner), (second, ..), (third, ..)) = (client(), client(), client());
        clients.push(scope.spawn(read(first, book.clone(), owner.clone(), seeded(100 + number))));
        clients.push(scope.spawn(count(second, book.clone(), owner.clone(), seeded(300 + number))));
        clients.push(scope.spawn(lock(third, number, book, owner, seeded(200 + number))));
    }
    let timed = time(world.client("n1"), book.clone(), scope.clone(), seeded(400));
    clients.push(scope.spawn(timed));
    let mut random = seeded(999);
    for _ in 0..rounds {
        round(&world, &mut random).await;
        if clients.iter().any(|client| client.is_finished()) {
            break;
        }
    }
    assert!(scope.stop(super::world::PATIENCE).await, "clients end");
    for client in clients {
        client.await.expect("seed {seed}: a client has found a fault");
    }
    let mut last = world.client("n1");
    let value = last.get("s.counter").await.expect("it is not lost").parse().unwrap();
    book.counter.lock().unwrap().end(value);
    let (mut reads, mut misses) = (0, 0);
    for register in &book.registers {
        let (key, reading) = {
            let register = register.lock().unwrap();
            (register.key.clone(), register.read())
        };
        let value = last.get(&key).await.map(|value| value.parse().unwrap());
        let mut register = register.lock().unwrap();
        register.judge(&reading, value);
        (reads, misses) = (reads + register.reads, misses + register.misses);
    }
    let told = book.tell(seed, reads, misses);
    world.stop().await;
    told
}
