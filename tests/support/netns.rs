//! Machines of a network: namespaces on a bridge that has no way out, with links that can be cut and lose packets one way.
//! Needs root. Names carry this process's number; what dead runs left is removed before a network is made.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::libc;

const PREFIX: &str = "bnode";

static NETWORKS: AtomicU8 = AtomicU8::new(0);

/// Which packets a machine loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}

pub struct Network {
    bridge: String,
    hosts: Vec<Host>,
}

/// One machine of the network.
pub struct Host {
    namespace: String,
    link: String,
    handle: File,
    pub address: Ipv4Addr,
}

impl Network {
    /// So many machines that reach one another.
    pub fn new(count: u8) -> Self {
        sweep();
        // Tests of one process run side by side; a name of an interface has at most 15 bytes.
        let letter = char::from(b'a' + NETWORKS.fetch_add(1, Ordering::Relaxed) % 26);
        let bridge = format!("{PREFIX}{}{letter}", std::process::id());
        let mut network = Network {
            bridge,
            hosts: Vec::new(),
        };
        let bridge = network.bridge.clone();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["link", "set", &bridge, "up"]);
        for number in 1..=count {
            let host = Host::new(&bridge, number);
            network.hosts.push(host);
        }
        network
    }

    pub fn host(&self, at: usize) -> &Host {
        &self.hosts[at]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.bridge);
    }
}

impl Host {
    fn new(bridge: &str, number: u8) -> Self {
        let namespace = format!("{bridge}-{number}");
        let link = format!("{bridge}v{number}");
        let address = Ipv4Addr::new(10, 93, 0, number);
        ip(&["netns", "add", &namespace]);
        let peer = ["peer", "name", "eth0", "netns", &namespace];
        ip(&[&["link", "add", &link, "type", "veth"][..], &peer].concat());
        ip(&["link", "set", &link, "master", bridge, "up"]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        ip(&[
            "-n",
            &namespace,
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ]);
        let handle = File::open(Path::new("/run/netns").join(&namespace)).unwrap();
        Host {
            namespace,
            link,
            handle,
            address,
        }
    }

    /// For nsenter(1).
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// For `setns` in a child; open while the network is.
    pub fn descriptor(&self) -> RawFd {
        self.handle.as_raw_fd()
    }

    /// A listening socket inside.
    pub fn listen(&self, port: u16) -> TcpListener {
        let (namespace, address) = (self.descriptor(), SocketAddr::from((self.address, port)));
        let bound = std::thread::scope(|scope| {
            // A thread's namespace is its own.
            let bind = move || enter(namespace).and_then(|()| bitrix_node::net::listen::tcp(address));
            scope.spawn(bind).join().unwrap()
        });
        bound.unwrap_or_else(|error| panic!("listen on {address} in {}: {error}", self.namespace))
    }

    /// What `ip` says inside.
    pub fn ip(&self, arguments: &[&str]) -> String {
        let arguments = [&["-n", &self.namespace][..], arguments].concat();
        let output = command("ip").args(&arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The cable is pulled, or put back.
    pub fn cut(&self, is_cut: bool) {
        ip(&["link", "set", &self.link, if is_cut { "down" } else { "up" }]);
    }

    /// Packets of one direction are lost until `heal`.
    pub fn lose(&self, way: Way) {
        let (hook, loopback) = match way {
            Way::In => ("input", "iif"),
            Way::Out => ("output", "oif"),
        };
        let chain = format!("type filter hook {hook} priority 0; policy drop; {loopback} lo accept;");
        let rules = format!("table inet loss {{ chain loss {{ {chain} }}; }}");
        run("ip", &["netns", "exec", &self.namespace, "nft", &rules]);
    }

    /// Packets from and to one other machine are lost until `heal`.
    pub fn part(&self, other: Ipv4Addr) {
        let chain = |hook: &str, end: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority 0; ip {end} {other} drop; }};")
        };
        let (inward, outward) = (chain("input", "saddr"), chain("output", "daddr"));
        let rules = format!("table inet loss {{ {inward} {outward} }}");
        run("ip", &["netns", "exec", &self.namespace, "nft", &rules]);
    }

    pub fn heal(&self) {
        run("ip", &["netns", "exec", &self.namespace, "nft", "flush", "ruleset"]);
    }
}

/// Moves the calling thread into a namespace. Async-signal-safe.
pub fn enter(namespace: RawFd) -> std::io::Result<()> {
    // SAFETY: a system call on numbers.
    match unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Removes networks whose process is gone.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten();
    let namespaces = namespaces.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names.chain(namespaces) {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if !number.is_empty() && !Path::new("/proc").join(&number).exists() {
            let letter: String = rest[number.len()..]
                .chars()
                .take(1)
                .filter(char::is_ascii_lowercase)
                .collect();
            remove(&format!("{PREFIX}{number}{letter}"));
        }
    }
}

fn remove(bridge: &str) {
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten();
    let inside = format!("{bridge}-");
    for name in namespaces.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        if name.starts_with(&inside) {
            // Its end of the link goes with it, and with that the other end.
            quietly(&["netns", "delete", &name]);
        }
    }
    quietly(&["link", "delete", bridge]);
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &[&str]) {
    let output = command(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

fn quietly(arguments: &[&str]) {
    let _ = command("ip").args(arguments).stderr(Stdio::null()).status();
}

fn command(program: &str) -> std::process::Command {
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new(program);
    command.stdin(Stdio::null());
    command
}
