//! Floating addresses on a bridge: neighbours learn who has them, living owners are found, and whatever becomes of the holder, an
//! address goes with its hold.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bitrix_node::base::clock;
use bitrix_node::host::address::farewell::Doors;
use bitrix_node::host::verb::{Answer, Task};

use super::machine::Machine;
use crate::support::eventually::eventually;
use crate::support::netns::{self, Host, Network};

/// For IPv4; IPv6 has the next one.
const PORT: u16 = 4711;
/// The same of a front that waits to be asked.
const FRONT: u16 = 4721;
const MINUTE: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(3);
/// Outlasts what a busy machine needs to look; the supervisor takes up to ten seconds.
const LONG: Duration = Duration::from_secs(9);
/// An answer comes within milliseconds; a first packet that was lost is sent again after a second.
const ANSWER: Duration = Duration::from_secs(3);

const ADDRESSES: [&str; 2] = ["10.93.0.100/24", "fd93::100/64"];

/// Two nodes and a client.
fn network() -> Network {
    let network = Network::new(3);
    for number in 0..3 {
        let own = format!("fd93::{}/64", number + 1);
        let host = network.host(number);
        host.ip(&["address", "add", &own, "dev", "eth0", "nodad"]);
        if number < 2 {
            serve(host, u8::try_from(number).unwrap());
        }
    }
    network
}

/// Listens for either kind of address.
fn listen_at(host: &Host, port: u16) -> [TcpListener; 2] {
    let namespace = host.descriptor();
    let bind = move || {
        netns::enter(namespace).unwrap();
        [IpAddr::from([0; 4]), IpAddr::from([0; 16])]
            .map(|any| TcpListener::bind(SocketAddr::new(any, port + u16::from(any.is_ipv6()))).unwrap())
    };
    std::thread::scope(|scope| scope.spawn(bind).join().unwrap())
}

/// Answers each connection with a byte, in threads that end with the test.
fn serve(host: &Host, name: u8) {
    for listener in listen_at(host, PORT) {
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(&[name]);
            }
        });
    }
}

/// Who answers at an address, seen from a machine.
fn answers(host: &Host, address: IpAddr) -> Option<u8> {
    let namespace = host.descriptor();
    let ask = move || {
        netns::enter(namespace).unwrap();
        let port = PORT + u16::from(address.is_ipv6());
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), ANSWER).ok()?;
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        let mut name = [0];
        stream.read_exact(&mut name).ok().map(|()| name[0])
    };
    std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
}

fn task(address: &str) -> Task {
    Task::Address(address.parse().unwrap())
}

fn ip(address: &str) -> IpAddr {
    address.split('/').next().unwrap().parse().unwrap()
}

fn has(host: &Host, address: &str) -> bool {
    let shown = host.ip(&["-o", "address", "show", "dev", "eth0"]);
    shown.contains(&format!(" {}/", ip(address)))
}

fn mac(host: &Host) -> String {
    let shown = host.ip(&["-o", "link", "show", "dev", "eth0"]);
    let after = shown.split("link/ether ").nth(1).unwrap();
    after.split(' ').next().unwrap().to_owned()
}

async fn is_gone(host: &Host, address: &str) -> Duration {
    eventually("the address is gone", async || match has(host, address) {
        true => Err("it is there"),
        false => Ok(()),
    })
    .await;
    clock::boot()
}

fn signed(at: Duration, of: Duration) -> f64 {
    at.as_secs_f64() - of.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_follow_an_address_from_one_node_to_the_next() {
    let network = network();
    let (first, second, client) = (network.host(0), network.host(1), network.host(2));
    let machines = [first, second].map(|host| Machine::new(Some(host.descriptor()), MINUTE));
    for address in ADDRESSES {
        let task = task(address);
        let begun = Instant::now();
        machines[0].must_hold(&task, 1, LONG).await;
        let (held, found) = (begun.elapsed(), answers(client, ip(address)));
        println!(
            "{address}: held after {held:.2?}, reachable after {:.2?}",
            begun.elapsed()
        );
        assert_eq!(found, Some(0), "{address}");
        let neighbour = || client.ip(&["neighbour", "show", &ip(address).to_string()]);
        assert!(neighbour().contains(&mac(first)), "{}", neighbour());
        machines[0].release(&task).await;
        assert!(!has(first, address), "released is gone");
        let begun = Instant::now();
        machines[1].must_hold(&task, 2, LONG).await;
        // The client has sent nothing since: it was told.
        eventually("the client's table has the new holder", async || {
            let shown = neighbour();
            if shown.contains(&mac(second)) {
                Ok(())
            } else {
                Err(shown)
            }
        })
        .await;
        println!(
            "{address}: the client knows the new holder after {:.2?}",
            begun.elapsed()
        );
        assert_eq!(answers(client, ip(address)), Some(1), "{address}");
        let shown = second.ip(&["-o", "address", "show", "dev", "eth0"]);
        let own = if ip(address).is_ipv4() {
            "10.93.0.100/32"
        } else {
            "fd93::100/128"
        };
        assert!(shown.contains(own), "{shown}");
        machines[1].release(&task).await;
    }
}

/// A client of the address: connects, says that it has, and asks when it may.
fn client(host: &Host, address: IpAddr) -> (std::thread::JoinHandle<std::io::Result<u8>>, Receiver<()>, Sender<()>) {
    let namespace = host.descriptor();
    let ((connected, is_connected), (may, go)) = (channel(), channel());
    let ask = move || {
        netns::enter(namespace).unwrap();
        let at = SocketAddr::new(address, FRONT + u16::from(address.is_ipv6()));
        let mut stream = TcpStream::connect_timeout(&at, LONG)?;
        stream.set_read_timeout(Some(LONG))?;
        connected.send(()).unwrap();
        go.recv().unwrap();
        stream.write_all(b"?")?;
        let mut name = [0];
        stream.read_exact(&mut name).map(|()| name[0])
    };
    (std::thread::spawn(ask), is_connected, may)
}

/// Answers each connection that asks, and closes it.
fn front(listeners: &[TcpListener; 2], name: u8) {
    for listener in listeners {
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    if stream.read_exact(&mut [0]).is_ok() {
                        let _ = stream.write_all(&[name]);
                    }
                });
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_cuts_nobody_and_lets_nobody_begin() {
    let network = network();
    let (first, second) = (network.host(0), network.host(1));
    let listeners = listen_at(first, FRONT);
    front(&listeners, 0);
    let doors = Doors::new(listeners.map(OwnedFd::from).into());
    let machines = [
        Machine::with_front(first.descriptor(), MINUTE, doors),
        Machine::new(Some(second.descriptor()), MINUTE),
    ];
    front(&listen_at(second, FRONT), 1);
    for address in ADDRESSES {
        let task = task(address);
        machines[0].must_hold(&task, 1, LONG).await;
        let (begun, is_connected, may_ask) = client(network.host(2), ip(address));
        is_connected.recv().unwrap();
        let release = machines[0].let_go(&task, true);
        let mut release = std::pin::pin!(release);
        // The one that has begun is waited for, and a late one is not let in.
        let soon = Duration::from_millis(250);
        let asked = tokio::time::timeout(soon, release.as_mut()).await;
        let (late, is_connected_late, may_ask_late) = client(network.host(2), ip(address));
        let waited = tokio::time::timeout(soon, release.as_mut()).await;
        assert!(
            asked.is_err() && waited.is_err() && has(first, address),
            "{address}: it is there while somebody uses it"
        );
        assert!(
            is_connected_late.try_recv().is_err(),
            "{address}: nobody begins any more"
        );
        may_ask.send(()).unwrap();
        assert_eq!(
            begun.join().unwrap().unwrap(),
            0,
            "{address}: the first one answers to the end"
        );
        release.await;
        assert!(!has(first, address), "{address}");
        machines[1].must_hold(&task, 2, LONG).await;
        may_ask_late.send(()).unwrap();
        assert_eq!(late.join().unwrap().unwrap(), 1, "{address}: the next holder answers");
        machines[1].release(&task).await;
        // The first one lets everybody in again.
        machines[0].must_hold(&task, 3, LONG).await;
        let (again, _connected, may_ask) = client(network.host(2), ip(address));
        may_ask.send(()).unwrap();
        assert_eq!(again.join().unwrap().unwrap(), 0, "{address}");
        machines[0].release(&task).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_somebody_has_is_not_taken() {
    let network = network();
    let (node, owner) = (network.host(0), network.host(2));
    let machine = Machine::new(Some(node.descriptor()), MINUTE);
    for address in ADDRESSES {
        let task = task(address);
        owner.ip(&["address", "add", address, "dev", "eth0", "nodad"]);
        let Answer::Refused { why } = machine.hold(&task, 1, LONG).await else {
            panic!("{address} is somebody's")
        };
        assert!(why.contains(&mac(owner)), "{why}");
        assert!(!has(node, address));
        // Its own neighbours may remember it: it does not live any more.
        answers(node, ip(address));
        owner.cut(true);
        machine.must_hold(&task, 1, LONG).await;
        assert!(has(node, address));
        owner.cut(false);
        machine.release(&task).await;
        owner.ip(&["address", "flush", "dev", "eth0", "to", &ip(address).to_string()]);
    }
    // The operator's own.
    node.ip(&["address", "add", "10.93.0.100/24", "dev", "eth0"]);
    let Answer::Refused { why } = machine.hold(&task("10.93.0.100/24"), 2, LONG).await else {
        panic!("it is the operator's")
    };
    assert!(why.contains("of eth0 already"), "{why}");
    assert!(has(node, "10.93.0.100/24"), "it stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_ends_with_its_hold_whoever_is_silent() {
    let network = network();
    let host = network.host(0);
    for address in ADDRESSES {
        let task = task(address);
        // 1. An agent that says it no more.
        let machine = Machine::new(Some(host.descriptor()), MINUTE);
        machine.must_hold(&task, 5, HOLD).await;
        let until = clock::boot() + HOLD;
        machine.must_hold(&task, 5, HOLD).await;
        let gone = is_gone(host, address).await;
        println!(
            "{address}: silent agent: gone {:+.2} s from the end of the hold",
            signed(gone, until)
        );
        assert!(gone + Duration::from_millis(20) >= until, "not before its end");
        // 2. A supervisor that stands still.
        machine.must_hold(&task, 5, HOLD).await;
        let until = clock::boot() + HOLD;
        machine.freeze(HOLD * 3).await;
        let gone = is_gone(host, address).await;
        println!(
            "{address}: frozen supervisor: gone {:+.2} s from the end of the hold",
            signed(gone, until)
        );
        let refused = machine.hold(&task, 4, HOLD * 3).await;
        assert!(matches!(refused, Answer::Refused { why } if why.contains("epoch 4")));
        // 3. A supervisor that is killed.
        machine.must_hold(&task, 5, HOLD).await;
        let (until, folder) = (clock::boot() + HOLD, machine.folder.clone());
        machine.kill();
        assert!(has(host, address));
        let gone = is_gone(host, address).await;
        println!(
            "{address}: killed supervisor: gone {:+.2} s from the end of the hold",
            signed(gone, until)
        );
        // 4. One that is started again takes it away at once, and knows the epochs.
        let machine = Machine::again(Some(host.descriptor()), MINUTE, folder.clone());
        machine.must_hold(&task, 6, HOLD).await;
        machine.kill();
        assert!(has(host, address));
        let machine = Machine::again(Some(host.descriptor()), MINUTE, folder);
        assert!(!has(host, address), "taken away at the start");
        let refused = machine.hold(&task, 5, HOLD).await;
        assert!(matches!(refused, Answer::Refused { why } if why.contains("epoch 5")));
    }
}

/// For the figures in `host::address::lifetime`: how late the kernel is, over many lifetimes.
#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_ends_a_lifetime_soon_after_it() {
    use bitrix_node::host::address;
    let network = network();
    let host = network.host(0);
    let mut late = Vec::new();
    for round in 0..12_u32 {
        let text = ADDRESSES[round as usize % 2];
        let (namespace, net) = (host.descriptor(), text.parse().unwrap());
        let left = Duration::from_millis(1_000 + u64::from(round) * 37);
        let put_up = std::thread::scope(|scope| {
            let put = move || {
                netns::enter(namespace).unwrap();
                let place = address::find(net, "").unwrap();
                let put_up = clock::boot();
                assert!(address::keep(&place, left).unwrap());
                put_up
            };
            scope.spawn(put).join().unwrap()
        });
        let gone = is_gone(host, text).await;
        late.push(signed(gone, put_up + Duration::from_secs(1)));
    }
    println!("late: {late:.2?} s");
    assert!(late.iter().all(|late| *late > -0.1), "a lifetime is whole: {late:?}");
}
