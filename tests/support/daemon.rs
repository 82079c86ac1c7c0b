//! A long-lived program that a test needs; it ends with the test, by its own pid.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};

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

/// A port of 127.0.0.1 that nobody uses now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
