//! A module of the executable as a process of its own, as a supervisor starts it.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bitrix_node::net::listen;
use nix::libc;
use nix::sys::signal::Signal;

/// Runs it with `config.toml` of that folder, and with these sockets, which lie above the reserved numbers. It writes into `log` there.
pub fn run(executable: &Path, module: &str, folder: &Path, sockets: &[(&'static str, OwnedFd)]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    #[allow(clippy::disallowed_methods)]
    let mut command = Command::new(executable);
    command
        .args(["module", module, "--config"])
        .arg(folder.join("config.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    command.env("LISTEN_FDS", names.len().to_string());
    command.env("LISTEN_FDNAMES", names.join(":"));
    let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
    let prepare = move || {
        for (target, source) in (listen::FIRST_DESCRIPTOR..).zip(&descriptors) {
            // SAFETY: a system call on numbers; the sources are above the reserved range.
            if unsafe { libc::dup2(*source, target) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        // It ends with the test, however that ends.
        Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
    };
    // SAFETY: `prepare` makes system calls only: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
    command.spawn().unwrap()
}
