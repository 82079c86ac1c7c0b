//! One supervised child: started with handed-down sockets as an unprivileged user, in a process group of its own,
//! and told to end when its parent dies. Nothing of its group outlives it. A parent that replaced itself by another executable
//! goes on with the children that it has (`adopt`).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};
use tokio::net::unix::pipe::Receiver;

use super::account::Account;
use super::process::{self, Watched};
use crate::net::listen::FIRST_DESCRIPTOR;

/// Descriptors from 3 upward that `reserve` keeps for handed-down sockets. More sockets than this are refused.
const RESERVED: RawFd = 32;

/// How long to wait for killed members of a group: the kernel ends them in microseconds unless a disk hangs.
const GROUP_LOOKS: u32 = 100;
const GROUP_PAUSE: Duration = Duration::from_millis(20);

/// What to start, as whom, with which sockets.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    /// `None`: as ourselves.
    pub account: Option<Account>,
    /// Name and descriptor of each listening socket; the child finds them from descriptor 3 upward.
    pub sockets: Vec<(String, RawFd)>,
    /// What the kernel sends it when we are gone.
    pub when_orphaned: Signal,
}

/// A running child. Killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    inner: Inner,
    /// Its process id, and the id of its process group.
    pub pid: u32,
    pub output: Option<Receiver>,
    pub errors: Option<Receiver>,
}

#[derive(Debug)]
enum Inner {
    Started(tokio::process::Child),
    Adopted(Adopted),
}

/// Started by this very process before it became this executable.
#[derive(Debug)]
struct Adopted {
    pid: Pid,
    process: Watched,
    ended: Option<ExitStatus>,
    /// It may outlive us.
    is_free: bool,
}

/// Keeps descriptors 3…34 busy, so that none of ours has a number that a child's sockets will get.
/// The supervisor calls it once, before it opens anything.
pub fn reserve() -> io::Result<Vec<OwnedFd>> {
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut kept = vec![null];
    while kept
        .iter()
        .all(|descriptor| descriptor.as_raw_fd() < FIRST_DESCRIPTOR + RESERVED)
    {
        let first = kept.first().expect("opened above");
        kept.push(first.try_clone()?);
    }
    Ok(kept)
}

/// Makes us the parent of whatever our children leave behind, so that it can be ended and reaped.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

impl Child {
    /// Starts it. Must be called on the main thread: the orphan signal is bound to the thread that forks.
    pub fn launch(launch: &Launch) -> io::Result<Self> {
        if launch.sockets.len() > RESERVED as usize {
            return Err(io::Error::other("too many sockets for one child"));
        }
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(&launch.program);
        command
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(account) = &launch.account {
            use std::os::unix::process::CommandExt;
            // As root this also clears the supplementary groups.
            command.uid(account.uid).gid(account.gid);
        }
        for name in [
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LISTEN_PID",
            "LISTEN_FDS",
            "LISTEN_FDNAMES",
            super::inheritance::VARIABLE,
        ] {
            command.env_remove(name);
        }
        if !launch.sockets.is_empty() {
            let names: Vec<&str> = launch.sockets.iter().map(|(name, _)| name.as_str()).collect();
            command
                .env("LISTEN_FDS", names.len().to_string())
                .env("LISTEN_FDNAMES", names.join(":"));
        }
        let sockets: Vec<RawFd> = launch.sockets.iter().map(|(_, descriptor)| *descriptor).collect();
        let (parent, when_orphaned) = (getpid(), launch.when_orphaned);
        // SAFETY: between fork and exec `confine` makes only async-signal-safe system calls: no allocation, no lock.
        unsafe {
            use std::os::unix::process::CommandExt;
            command
                .process_group(0)
                .pre_exec(move || confine(&sockets, parent, when_orphaned));
        }
        let mut command = tokio::process::Command::from(command);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", launch.program.display()));
        let mut inner = command.kill_on_drop(true).spawn().map_err(named)?;
        let pid = inner.id().expect("not yet waited for");
        let output = inner.stdout.take().map(|pipe| pipe.into_owned_fd()).transpose()?;
        let errors = inner.stderr.take().map(|pipe| pipe.into_owned_fd()).transpose()?;
        Ok(Child {
            pid,
            output: output.map(Receiver::from_owned_fd).transpose()?,
            errors: errors.map(Receiver::from_owned_fd).transpose()?,
            inner: Inner::Started(inner),
        })
    }

    /// Goes on with a child that this process started before it became this executable, and has not waited for. Until then its
    /// process id is nobody else's. Must be called inside a runtime.
    pub fn adopt(pid: u32, output: Option<OwnedFd>, errors: Option<OwnedFd>) -> io::Result<Self> {
        let inner = Inner::Adopted(Adopted {
            pid: pid_of(pid),
            process: Watched::open(pid)?,
            ended: None,
            is_free: false,
        });
        Ok(Child {
            inner,
            pid,
            output: output.map(Receiver::from_owned_fd).transpose()?,
            errors: errors.map(Receiver::from_owned_fd).transpose()?,
        })
    }

    /// Only waits for its end; it is not killed, also when nobody waits any more.
    pub async fn outlive(mut self) {
        if let Inner::Adopted(child) = &mut self.inner {
            child.is_free = true;
        }
        let _ = self.wait().await;
    }

    /// Waits for its end. Cancel safe.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.inner {
            Inner::Started(child) => child.wait().await,
            Inner::Adopted(child) => child.wait().await,
        }
    }

    /// Signals the child itself, not its group.
    pub fn signal(&self, signal: Signal) {
        let pid = match &self.inner {
            Inner::Started(child) => child.id().map(pid_of),
            Inner::Adopted(child) => child.ended.is_none().then_some(child.pid),
        };
        if let Some(pid) = pid {
            let _ = nix::sys::signal::kill(pid, signal);
        }
    }

    /// Ends and reaps what is left of its process group; call after `wait`.
    pub async fn end_group(&self) {
        let group = pid_of(self.pid);
        for _ in 0..GROUP_LOOKS {
            // Orphans of the group were adopted by us; whoever has another parent is reaped there.
            while let Ok(status) = waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)) {
                if status == WaitStatus::StillAlive {
                    break;
                }
            }
            if process::is_over(self.pid) {
                return;
            }
            let _ = killpg(group, Signal::SIGKILL);
            tokio::time::sleep(GROUP_PAUSE).await;
        }
        tracing::warn!(
            pid = self.pid,
            "processes of the group do not end; they hang in the kernel"
        );
    }
}

impl Adopted {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(ended) = self.ended {
                return Ok(ended);
            }
            self.process.ended().await;
            self.ended = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw(code << 8)),
                WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::from_raw(signal as i32)),
                // Its descriptor says so before it can be waited for, while it is traced.
                _ => {
                    tokio::time::sleep(GROUP_PAUSE).await;
                    None
                }
            };
        }
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if self.ended.is_none() && !self.is_free {
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        }
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("the kernel's pids fit in i32"))
}

/// Runs in the child between fork and exec.
fn confine(sockets: &[RawFd], parent: Pid, when_orphaned: Signal) -> io::Result<()> {
    for (target, source) in (FIRST_DESCRIPTOR..).zip(sockets) {
        // The source is above the reserved range, the target inside it, so they differ and dup2 clears close-on-exec.
        // SAFETY: plain system call on numbers; the target belongs to nobody in the child but the reservation.
        if unsafe { nix::libc::dup2(*source, target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    prctl::set_pdeathsig(when_orphaned)?;
    if getppid() != parent {
        // The parent died before the line above took effect.
        return Err(Errno::ESRCH.into());
    }
    prctl::set_no_new_privs()?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// A copy of a descriptor above the reserved range, close-on-exec.
pub fn above_reserved(descriptor: &impl std::os::fd::AsFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let copy = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(FIRST_DESCRIPTOR + RESERVED))?;
    // SAFETY: fcntl just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// Waited for by whoever adopts it.
    #[allow(clippy::zombie_processes)]
    fn shell(script: &str) -> (u32, Option<OwnedFd>) {
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        let mut started = command.spawn().expect("started");
        (started.id(), started.stdout.take().map(OwnedFd::from))
    }

    #[tokio::test]
    async fn an_adopted_child_is_heard_and_waited_for() {
        let (pid, output) = shell("echo here; exit 7");
        let mut child = Child::adopt(pid, output, None).expect("adopted");
        let mut said = String::new();
        let mut pipe = child.output.take().expect("given");
        pipe.read_to_string(&mut said).await.expect("read");
        assert_eq!(said, "here\n");
        assert_eq!(child.wait().await.expect("ended").code(), Some(7));
        assert_eq!(child.wait().await.expect("known").code(), Some(7));
    }

    #[tokio::test]
    async fn an_adopted_child_takes_signals() {
        let (pid, _output) = shell("exec sleep 100");
        let mut child = Child::adopt(pid, None, None).expect("adopted");
        child.signal(Signal::SIGTERM);
        let ended = child.wait().await.expect("ended");
        assert_eq!(ended.signal(), Some(Signal::SIGTERM as i32));
    }
}
