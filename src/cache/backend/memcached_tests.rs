//! A memcached of Debian's on a port of its own, as long as a test needs it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::net::TcpStream;

use crate::cache::client_tests::PATIENCE;

const PROGRAM: &str = "/usr/bin/memcached";

pub struct Memcached {
    child: Child,
    pub address: SocketAddr,
}

impl Memcached {
    /// Bytes for items.
    pub const MEMORY: usize = 64 << 20;

    pub fn start(address: SocketAddr) -> Self {
        let megabytes = (Self::MEMORY >> 20).to_string();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let arguments = [
            "-u", "root", "-l", &host, "-U", "0", "-t", "4", "-m", &megabytes, "-p", &port,
        ];
        #[allow(clippy::disallowed_methods)]
        let child = std::process::Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect("memcached is installed: packaging/test-dependencies.sh");
        Memcached { child, address }
    }

    pub async fn until_open(&self) {
        until(|| async { TcpStream::connect(self.address).await.is_ok() }).await;
    }

    /// Stops it; none of its threads runs any more on return, which kill(2) does not promise.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let stopped = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED));
        assert_eq!(stopped, Ok(WaitStatus::Stopped(self.pid(), Signal::SIGSTOP)));
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it lives");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A place of this machine that nobody else gets: each has a loopback address of its own, so that no other test and no
/// outgoing connection takes the port before the server does.
pub fn own_address() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 64 | (high & 63), low, COUNT.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((host, 0)).expect("bound");
    listener.local_addr().expect("address")
}

/// Looks again and again.
pub async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("in time");
}
