//! A memcached of Debian's on a port of its own, as long as a test needs it.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
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

    pub fn start(port: u16) -> Self {
        let megabytes = (Self::MEMORY >> 20).to_string();
        let port_text = port.to_string();
        let arguments = [
            "-u",
            "root",
            "-l",
            "127.0.0.1",
            "-U",
            "0",
            "-t",
            "4",
            "-m",
            &megabytes,
            "-p",
            &port_text,
        ];
        #[allow(clippy::disallowed_methods)]
        let child = std::process::Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect("memcached is installed: packaging/test-dependencies.sh");
        Memcached {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    pub async fn until_open(&self) {
        until(|| async { TcpStream::connect(self.address).await.is_ok() }).await;
    }

    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it lives");
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of 127.0.0.1 that nobody uses now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    listener.local_addr().expect("address").port()
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
