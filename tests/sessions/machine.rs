//! One machine: a network namespace with the programs that serve PHP's sessions in it. Either the cache module of the real executable,
//! its sockets handed down as the supervisor does it, or a memcached with a nutcracker in front of all three.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
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
use crate::support::netns;

/// First port of the mesh; the cache's is two further.
const PORT: u16 = 7400;
/// Of a memcached behind nutcracker or behind ours.
const BACKEND: u16 = 11311;
/// Where nutcracker tells its own, before the machine's number.
const STATISTICS: usize = 22200;
/// First descriptor that is handed down.
const FIRST: i32 = 3;
const MEMCACHED: &str = "/usr/bin/memcached";
const NUTCRACKER: &str = "/usr/sbin/nutcracker";
const TASKSET: &str = "/usr/bin/taskset";

/// Where a machine is: its namespace, which must outlive it, its address among the others, and where its own clients ask.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub namespace: RawFd,
    pub address: Ipv4Addr,
    pub cache: SocketAddr,
}

/// What all machines of a test have in common.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub threads: usize,
    /// The one that all programs share, in a measurement.
    pub processor: Option<usize>,
}

struct Program {
    words: Vec<OsString>,
    /// The machine's listening sockets are its own.
    takes_sockets: bool,
}

pub struct Machine {
    pub name: String,
    pub folder: PathBuf,
    pub place: Place,
    sockets: Vec<(&'static str, OwnedFd)>,
    /// The last is the one that clients ask.
    programs: Vec<Program>,
    children: Vec<Child>,
}

impl Machine {
    fn new(number: usize, folder: &Path, place: Place) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        Machine {
            name: format!("n{number}"),
            folder: folder.to_owned(),
            place,
            sockets: Vec::new(),
            programs: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Ours, with a certificate of the founder, or as the founder; not running yet.
    pub fn ours(
        number: usize,
        folder: &Path,
        place: Place,
        setting: Setting,
        founder: Option<&Machine>,
        is_backed: bool,
    ) -> Self {
        let mut machine = Machine::new(number, folder, place);
        let trust = Trust::new(folder.join("trust"));
        let own = machine.name.parse().unwrap();
        match founder {
            None => trust.found("sessions".parse().unwrap(), &own, None),
            Some(first) => Trust::new(first.folder.join("trust")).issue(&own, &trust),
        }
        .unwrap();
        let text = format!(
            "[node]\nname = {:?}\ndata_dir = \"{2}\"\nrun_dir = \"{2}\"\nlog_dir = \"{2}\"\nlog = \"info,bitrix_node::cache=debug\"\n\
             [cluster]\naddress = \"{3}\"\nport = {PORT}\n[cache]\nshared = true\nmemory = \"64MiB\"\nworkers = {1}\n",
            machine.name,
            setting.threads,
            folder.display(),
            place.address
        );
        let backend = match is_backed {
            true => format!("backend = \"127.0.0.1:{BACKEND}\"\n"),
            false => String::new(),
        };
        if is_backed {
            machine.add(memcached("127.0.0.1", setting), false, setting);
        }
        let config = folder.join("config.toml");
        std::fs::write(&config, text + &backend).unwrap();
        let mesh = listen_inside(place.namespace, (place.address, PORT + 2).into());
        let cache = listen_inside(place.namespace, place.cache);
        machine.sockets = vec![
            ("cache", above_reserved(&cache).unwrap()),
            ("cache-mesh", above_reserved(&mesh).unwrap()),
        ];
        let words = [
            executable().into(),
            "module".into(),
            "cache".into(),
            "--config".into(),
            config.into(),
        ];
        machine.add(words, true, setting);
        machine
    }

    /// For comparison: Debian's memcached, and nutcracker for the clients, which spreads keys over the memcacheds of all addresses.
    /// A memcached that fails is left out until it answers again, or its keys would fail for as long.
    pub fn nutcracker(number: usize, folder: &Path, place: Place, setting: Setting, all: &[Ipv4Addr]) -> Self {
        let mut machine = Machine::new(number, folder, place);
        let servers: String = all
            .iter()
            .map(|address| format!("  - {address}:{BACKEND}:1\n"))
            .collect();
        let text = format!(
            "cache:\n  listen: {}\n  hash: fnv1a_64\n  distribution: ketama\n  auto_eject_hosts: true\n  timeout: 400\n  \
             server_retry_timeout: 2000\n  server_failure_limit: 1\n  servers:\n{servers}",
            place.cache
        );
        std::fs::write(folder.join("nutcracker.yml"), text).unwrap();
        machine.add(memcached(&place.address.to_string(), setting), false, setting);
        let file = |name| folder.join(name).display().to_string();
        let (config, log, process) = (file("nutcracker.yml"), file("nutcracker.log"), file("nutcracker.pid"));
        let statistics = (STATISTICS + number).to_string();
        let words = [
            NUTCRACKER,
            "-c",
            &config,
            "-o",
            &log,
            "-p",
            &process,
            "-a",
            "127.0.0.1",
            "-s",
            &statistics,
        ];
        machine.add(words.map(OsString::from), false, setting);
        machine
    }

    fn add(&mut self, words: impl IntoIterator<Item = OsString>, takes_sockets: bool, setting: Setting) {
        let pin = setting
            .processor
            .map(|processor| [TASKSET.into(), "-c".into(), processor.to_string().into()]);
        let words = pin.into_iter().flatten().chain(words).collect();
        self.programs.push(Program { words, takes_sockets });
    }

    /// As the registry has it.
    pub fn member(&self) -> Member {
        Member {
            name: self.name.clone(),
            address: Some((self.place.address, PORT).into()),
            standing: Standing::Member,
            is_live: true,
            fit: Fit::CACHE,
        }
    }

    pub fn start(&mut self) {
        assert!(self.children.is_empty(), "{} runs", self.name);
        let started = self.programs.iter().map(|program| self.spawn(program));
        self.children = started.collect();
    }

    fn spawn(&self, program: &Program) -> Child {
        let sockets = if program.takes_sockets { &self.sockets[..] } else { &[] };
        let (path, arguments) = program.words.split_first().expect("a program has a name");
        let mut command = self.inside(Path::new(path), sockets);
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        command.args(arguments).stdout(Stdio::null()).stderr(log);
        let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        command.spawn().unwrap()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        for child in &mut self.children {
            child.kill().unwrap();
        }
        for mut child in self.children.drain(..) {
            child.wait().unwrap();
        }
    }

    /// Ends the program that was started first, or starts it again.
    pub fn kill_first(&mut self) {
        let first = &mut self.children[0];
        first.kill().unwrap();
        first.wait().unwrap();
    }

    pub fn start_first(&mut self) {
        self.children[0] = self.spawn(&self.programs[0]);
    }

    pub fn signal_first(&self, signal: Signal) {
        kill(Pid::from_raw(self.children[0].id().try_into().unwrap()), signal).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        for process in self.processes() {
            kill(Pid::from_raw(process.try_into().unwrap()), signal).unwrap();
        }
    }

    /// What runs, in the order of its start: of what clients ask the last.
    pub fn processes(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// A program of this machine; it ends with the test.
    pub fn inside(&self, program: &Path, sockets: &[(&'static str, OwnedFd)]) -> Command {
        #[allow(clippy::disallowed_methods)]
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        let namespace = self.place.namespace;
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

    pub fn connect(&self) -> std::io::Result<TcpStream> {
        let Place { namespace, cache, .. } = self.place;
        // A thread's namespace is its own.
        let connect = move || -> std::io::Result<TcpStream> {
            netns::enter(namespace)?;
            TcpStream::connect_timeout(&cache, Duration::from_secs(2))
        };
        let stream = std::thread::scope(|scope| scope.spawn(connect).join().unwrap())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    }

    /// Lines of the cache's answer, until one that begins so.
    pub fn ask(&self, request: &str, last: &[&str]) -> std::io::Result<Vec<String>> {
        let stream = self.connect()?;
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
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn memcached(address: &str, setting: Setting) -> [OsString; 13] {
    let (threads, port) = (setting.threads.to_string(), BACKEND.to_string());
    let words = [
        MEMCACHED, "-u", "root", "-m", "64", "-U", "0", "-t", &threads, "-l", address, "-p", &port,
    ];
    words.map(OsString::from)
}

fn listen_inside(namespace: RawFd, address: SocketAddr) -> TcpListener {
    let bind = move || netns::enter(namespace).and_then(|()| listen::tcp(address));
    let bound = std::thread::scope(|scope| scope.spawn(bind).join().unwrap());
    bound.unwrap_or_else(|error| panic!("listen on {address}: {error}"))
}

/// `BITRIX_NODE` names the executable as it is shipped; else the one built with the tests.
fn executable() -> PathBuf {
    #[allow(clippy::disallowed_methods)]
    let named = std::env::var_os("BITRIX_NODE");
    named.map_or_else(|| EXECUTABLE.into(), PathBuf::from)
}
