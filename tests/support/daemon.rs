//! A long-lived program that a test needs; it ends with the test, by its own pid.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Daemon(Child);

impl Daemon {
    /// Starts `program` with its output in `log`.
    pub fn start<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn();
        Daemon(child.unwrap_or_else(|error| panic!("start {}: {error}", program.display())))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that no outgoing connection gets from Linux (`ip_local_port_range`): what is free here now is free until it is listened on.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A port of 127.0.0.1 that nobody uses now, and no other test of this process is given.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes begin in different places.
    let offset = std::process::id().wrapping_mul(997);
    loop {
        let number = offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
