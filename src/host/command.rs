//! Short-lived programs of the system: run to the end, with a deadline, nothing on standard input unless it is given.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::account::Account;

/// A killed program is gone after this, unless it hangs in the kernel.
const KILLED: Duration = Duration::from_millis(500);

/// What a finished program left.
#[derive(Debug)]
pub struct Finished {
    pub succeeded: bool,
    pub output: String,
    pub errors: String,
}

/// A program to run, given by its whole path.
pub struct Program {
    path: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    environment: Vec<(String, String)>,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    account: Option<Account>,
}

impl Program {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Program {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: None,
            output: None,
            account: None,
        }
    }

    /// Its standard input.
    pub fn input(mut self, input: Option<OwnedFd>) -> Self {
        self.input = input;
        self
    }

    /// Where its standard output goes; then `Finished` has none of it.
    pub fn output(mut self, output: OwnedFd) -> Self {
        self.output = Some(output);
        self
    }

    /// As whom it runs, without supplementary groups, instead of as ourselves.
    pub fn account(mut self, account: &Account) -> Self {
        self.account = Some(account.clone());
        self
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_os_string());
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_os_string()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Runs it to the end; past the deadline it is killed and `TimedOut` is returned.
    pub async fn run(self, deadline: Duration) -> io::Result<Finished> {
        let path = self.path.clone();
        self.start()?.finish(deadline).await?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} took longer than {deadline:?}", path.display()),
            )
        })
    }

    /// Starts it, for those who must know what becomes of it after its deadline.
    pub fn start(self) -> io::Result<Started> {
        #[allow(clippy::disallowed_methods)]
        let mut command = tokio::process::Command::new(&self.path);
        command
            .args(&self.arguments)
            .envs(self.environment)
            .stdin(self.input.map_or_else(Stdio::null, Stdio::from))
            .stdout(self.output.map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(account) = &self.account {
            // As root this also clears the supplementary groups.
            command.uid(account.uid).gid(account.gid);
        }
        let child = command.spawn().map_err(|error| named(error, &self.path))?;
        Ok(Started { child, path: self.path })
    }

    /// Starts it for a caller that blocks.
    pub fn start_blocking(self) -> io::Result<Blocking> {
        use std::os::unix::process::CommandExt;
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(&self.path);
        command
            .args(&self.arguments)
            .envs(self.environment)
            .stdin(self.input.map_or_else(Stdio::null, Stdio::from))
            .stdout(self.output.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped());
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        let child = command.spawn().map_err(|error| named(error, &self.path))?;
        Ok(Blocking { child, path: self.path })
    }

    /// Like `run`, with a failure as an error that carries the end of what the program wrote to standard error,
    /// or to standard output if that is all it wrote.
    pub async fn check(self, deadline: Duration) -> io::Result<String> {
        let path = self.path.clone();
        let finished = self.run(deadline).await?;
        match finished.succeeded {
            true => Ok(finished.output),
            false => Err(finished.failure(&path)),
        }
    }
}

impl Finished {
    /// An error that carries the end of what it wrote.
    pub fn failure(&self, path: &Path) -> io::Error {
        let said = if self.errors.trim().is_empty() {
            &self.output
        } else {
            &self.errors
        };
        let lines: Vec<&str> = said
            .lines()
            .rev()
            .filter(|line| !line.trim().is_empty())
            .take(5)
            .collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join(" / ");
        io::Error::other(format!("{} failed: {tail}", path.display()))
    }
}

/// A program whose standard input and output are its caller's business; waiting for it blocks. Killed when this is dropped.
pub struct Blocking {
    child: std::process::Child,
    path: PathBuf,
}

impl Blocking {
    /// Its exit code, where it has one, and what it wrote to standard error, which must be little.
    pub fn finish(mut self) -> io::Result<(Option<i32>, String)> {
        let mut errors = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            io::Read::read_to_string(&mut pipe, &mut errors).map_err(|error| named(error, &self.path))?;
        }
        let status = self.child.wait().map_err(|error| named(error, &self.path))?;
        Ok((status.code(), errors))
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // One that has ended is neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that runs. Killed when this is dropped.
pub struct Started {
    child: tokio::process::Child,
    path: PathBuf,
}

impl Started {
    /// Waits for its end. Past the deadline it is killed and `None` is returned; then it may still run, if it hangs in the kernel.
    pub async fn finish(&mut self, deadline: Duration) -> io::Result<Option<Finished>> {
        let (output, errors) = (self.child.stdout.take(), self.child.stderr.take());
        let end = async { tokio::try_join!(self.child.wait(), whole(output), whole(errors)) };
        let ended = tokio::time::timeout(deadline, end).await;
        let Ok(ended) = ended else {
            self.child.start_kill()?;
            let _ = tokio::time::timeout(KILLED, self.child.wait()).await;
            return Ok(None);
        };
        let (status, output, errors) = ended.map_err(|error| named(error, &self.path))?;
        Ok(Some(Finished {
            succeeded: status.success(),
            output,
            errors,
        }))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

async fn whole(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The executable of that name in one of the system's folders.
pub fn find(name: &str) -> Option<PathBuf> {
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(name))
    .find(|path| path.is_file())
}

/// Replaces this process by another program; returns only when that fails.
pub fn become_program(path: &Path, arguments: &[String]) -> io::Error {
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new(path);
    exec(command.args(arguments))
}

/// Starts a program that outlives us, in a process group of its own, with our standard error. Whoever calls must wait for it in
/// the end. Returns its process id.
pub fn detach(path: &Path, arguments: &[std::ffi::OsString], input: OwnedFd) -> io::Result<u32> {
    use std::os::unix::process::CommandExt;
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new(path);
    command.args(arguments).env_remove(super::inheritance::VARIABLE);
    command.stdin(Stdio::from(input)).stdout(Stdio::null()).process_group(0);
    // Waited for by its number.
    #[allow(clippy::zombie_processes)]
    let started = command.spawn().map_err(|error| named(error, path))?;
    Ok(started.id())
}

/// Like `become_program`, with one more variable in the environment.
pub fn become_with(path: &Path, arguments: &[std::ffi::OsString], name: &str, value: &str) -> io::Error {
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new(path);
    exec(command.args(arguments).env(name, value))
}

fn exec(command: &mut std::process::Command) -> io::Error {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    // The standard library has let SIGPIPE end this process before it tried.
    // SAFETY: ignoring a signal runs no code of ours.
    let ignored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    debug_assert!(ignored.is_ok(), "SIGPIPE can be ignored");
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failure_carries_the_last_lines() {
        let error = Program::new("/bin/sh")
            .args(["-c", "echo one >&2; echo two >&2; exit 3"])
            .check(Duration::from_secs(20))
            .await
            .expect_err("failed");
        assert_eq!(error.to_string(), "/bin/sh failed: one / two");
    }

    #[tokio::test]
    async fn deadline_kills() {
        let error = Program::new("/bin/sleep")
            .arg("60")
            .run(Duration::from_millis(50))
            .await
            .expect_err("late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
