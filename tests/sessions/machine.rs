//! One machine: the cache module of the real executable in a network namespace, its sockets handed down as the supervisor does it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitrix_node::cluster::{Fit, Member, Standing};
use bitrix_node::host::child::above_reserved;
use bitrix_node::net::listen;
use bitrix_node::net::mesh::trust::Trust;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::command::EXECUTABLE;
use crate::support::netns::{self, Host};

/// First port of the mesh; the cache's is two further.
const PORT: u16 = 7400;
/// First descriptor that is handed down.
const FIRST: i32 = 3;
const CACHE: &str = "127.0.0.1:11211";

pub struct Machine {
    pub name: String,
    pub folder: PathBuf,
    address: SocketAddr,
    sockets: Vec<(&'static str, OwnedFd)>,
    namespace: i32,
    child: Option<Child>,
}

impl Machine {
    /// With a certificate of the founder, or as the founder; not running yet.
    pub fn new(number: usize, folder: &Path, host: &Host, founder: Option<&Machine>) -> Self {
        let name = format!("n{number}");
        std::fs::create_dir_all(folder).unwrap();
        let trust = Trust::new(folder.join("trust"));
        let own = name.parse().unwrap();
        match founder {
            None => trust.found("sessions".parse().unwrap(), &own, None),
            Some(first) => Trust::new(first.folder.join("trust")).issue(&own, &trust),
        }
        .unwrap();
        let text = format!(
            "[node]\nname = {name:?}\ndata_dir = \"{0}\"\nrun_dir = \"{0}\"\nlog_dir = \"{0}\"\nlog = \"info,bitrix_node::cache=debug\"\n\
             [cluster]\naddress = \"{1}\"\nport = {PORT}\n[cache]\nshared = true\nmemory = \"64MiB\"\nworkers = 2\n",
            folder.display(),
            host.address
        );
        std::fs::write(folder.join("config.toml"), text).unwrap();
        let mesh = host.listen(PORT + 2);
        let cache = listen_inside(host.descriptor(), CACHE.parse().unwrap());
        Machine {
            name,
            folder: folder.to_owned(),
            address: SocketAddr::from((host.address, PORT)),
            sockets: vec![
                ("cache", above_reserved(&cache).unwrap()),
                ("cache-mesh", above_reserved(&mesh).unwrap()),
            ],
            namespace: host.descriptor(),
            child: None,
        }
    }

    /// As the registry has it.
    pub fn member(&self) -> Member {
        Member {
            name: self.name.clone(),
            address: Some(self.address),
            standing: Standing::Member,
            is_live: true,
            fit: Fit::CACHE,
        }
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.inside(&executable(), &self.sockets);
        command
            .args(["module", "cache", "--config"])
            .arg(self.folder.join("config.toml"));
        command.stdout(Stdio::null()).stderr(log);
        let names: Vec<_> = self.sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        self.child = Some(command.spawn().unwrap());
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} runs", self.name));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} runs", self.name));
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    }

    /// A program of this machine; it ends with the test.
    pub fn inside(&self, program: &Path, sockets: &[(&'static str, OwnedFd)]) -> Command {
        #[allow(clippy::disallowed_methods)]
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        let namespace = self.namespace;
        let prepare = move || {
            netns::enter(namespace)?;
            for (target, source) in (FIRST..).zip(&descriptors) {
                // SAFETY: a system call on numbers; the sources are above the reserved range.
                if unsafe { libc::dup2(*source, target) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
        };
        // SAFETY: `prepare` makes system calls only: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// Lines of the cache's answer, until one that begins so.
    pub fn ask(&self, request: &str, last: &[&str]) -> std::io::Result<Vec<String>> {
        let namespace = self.namespace;
        // A thread's namespace is its own.
        let connect = move || -> std::io::Result<TcpStream> {
            netns::enter(namespace)?;
            TcpStream::connect_timeout(&CACHE.parse().unwrap(), Duration::from_secs(2))
        };
        let stream = std::thread::scope(|scope| scope.spawn(connect).join().unwrap())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        (&stream).write_all(format!("{request}\r\n").as_bytes())?;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let is_last = last.iter().any(|last| line.starts_with(last));
            lines.push(line);
            if is_last {
                break;
            }
        }
        Ok(lines)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn listen_inside(namespace: i32, address: SocketAddr) -> TcpListener {
    let bind = move || netns::enter(namespace).and_then(|()| listen::tcp(address));
    std::thread::scope(|scope| scope.spawn(bind).join().unwrap()).unwrap()
}

/// `BITRIX_NODE` names the executable as it is shipped; else the one built with the tests.
fn executable() -> PathBuf {
    #[allow(clippy::disallowed_methods)]
    let named = std::env::var_os("BITRIX_NODE");
    named.map_or_else(|| EXECUTABLE.into(), PathBuf::from)
}
