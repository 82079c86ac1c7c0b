//! One machine of the cluster: the storage module of the real executable in a network namespace. The sockets are handed down, as the
//! supervisor does it, so callers wait while the module is being replaced.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use bitrix_node::base::Scope;
use bitrix_node::host::child::above_reserved;
use bitrix_node::net::listen;
use bitrix_node::net::mesh::Caller;
use bitrix_node::net::mesh::trust::Trust;
use bitrix_node::storage::command::{self, Command, Report};
use bitrix_node::storage::mesh::{COMMANDS, LIMITS};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::support::command::EXECUTABLE;
use crate::support::netns::{self, Host};

/// First port of the mesh; the storage's is the next.
const PORT: u16 = 7400;
/// First descriptor that is handed down.
const FIRST: i32 = 3;

pub struct Machine {
    pub name: String,
    pub folder: PathBuf,
    pub address: String,
    sockets: Vec<(&'static str, OwnedFd)>,
    namespace: i32,
    child: Option<Child>,
}

impl Machine {
    /// With a certificate of the founder, or as the founder; not running yet.
    pub fn new(number: usize, folder: &Path, host: &Host, founder: Option<&Machine>) -> Self {
        let name = format!("n{number}");
        std::fs::create_dir_all(folder.join("run")).unwrap();
        let trust = Trust::new(folder.join("data/trust"));
        let own = name.parse().unwrap();
        match founder {
            None => {
                bitrix_node::storage::found(&folder.join("data/storage"), None).unwrap();
                trust.found("nemesis".parse().unwrap(), &own, None)
            }
            Some(first) => Trust::new(first.folder.join("data/trust")).issue(&own, &trust),
        }
        .unwrap();
        let text = format!(
            "[node]\nname = {name:?}\ndata_dir = \"{0}/data\"\nrun_dir = \"{0}/run\"\nlog_dir = \"{0}\"\n\
             [cluster]\naddress = \"{1}\"\nport = {PORT}\n",
            folder.display(),
            host.address
        );
        std::fs::write(folder.join("config.toml"), text).unwrap();
        let mut machine = Machine {
            name,
            folder: folder.to_owned(),
            address: format!("{}:{}", host.address, PORT + 1),
            sockets: Vec::new(),
            namespace: host.descriptor(),
            child: None,
        };
        machine.open(host);
        machine
    }

    /// Opens the listening sockets anew.
    pub fn open(&mut self, host: &Host) {
        let unix = |name: &str| -> UnixListener { listen::unix(&self.folder.join("run").join(name)).unwrap() };
        let mesh: TcpListener = host.listen(PORT + 1);
        self.sockets = vec![
            ("nfs-unix", above_reserved(&unix("nfs.sock")).unwrap()),
            ("storage", above_reserved(&unix("storage.sock")).unwrap()),
            ("storage-mesh", above_reserved(&mesh).unwrap()),
        ];
    }

    /// Nobody listens any more, as on a machine without power.
    pub fn close(&mut self) {
        self.sockets.clear();
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let program = executable();
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(program);
        command.args(["module", "storage", "--config"]);
        command.arg(self.folder.join("config.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let names: Vec<_> = self.sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        let descriptors: Vec<_> = self.sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        let namespace = self.namespace;
        let prepare = move || {
            netns::enter(namespace)?;
            for (target, source) in (FIRST..).zip(&descriptors) {
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

    /// Starts it again if it has ended by itself, as the supervisor would; whether it had.
    pub fn revive(&mut self) -> bool {
        let ended = self
            .child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_some());
        if ended {
            self.child = None;
            self.start();
        }
        ended
    }

    pub fn door(&self) -> PathBuf {
        self.folder.join("run/nfs.sock")
    }

    /// The replica's log, state and mirror.
    pub fn storage(&self) -> PathBuf {
        self.folder.join("data/storage")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub async fn command<T: DeserializeOwned>(&self, command: &Command, deadline: Duration) -> anyhow::Result<T> {
        let scope = Scope::new();
        let answer = async {
            let stream = UnixStream::connect(self.folder.join("run/storage.sock")).await?;
            let caller = Caller::start(stream, LIMITS, &scope);
            let until = Instant::now() + deadline;
            anyhow::Ok(caller.call(COMMANDS, command::encode(command), until).await?)
        };
        let answer = tokio::time::timeout(deadline, answer).await;
        // Ends the connection.
        scope.stop(Duration::ZERO).await;
        command::result(&answer??)
    }

    /// How it does, if it answers soon.
    pub async fn report(&self) -> Option<Report> {
        self.command(&Command::Status, Duration::from_secs(1)).await.ok()
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

/// `BITRIX_NODE` names the executable as it is shipped; else the one built with the tests.
fn executable() -> PathBuf {
    #[allow(clippy::disallowed_methods)]
    let named = std::env::var_os("BITRIX_NODE");
    named.map_or_else(|| EXECUTABLE.into(), PathBuf::from)
}
