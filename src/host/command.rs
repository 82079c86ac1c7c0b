//! Short-lived programs of the system: run to the end, with a deadline, nothing on standard input.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

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
}

impl Program {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Program {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
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
        #[allow(clippy::disallowed_methods)]
        let mut command = tokio::process::Command::new(&self.path);
        command
            .args(&self.arguments)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        let child = command.spawn().map_err(named)?;
        let finished = tokio::time::timeout(deadline, child.wait_with_output()).await;
        let finished = finished.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} took longer than {deadline:?}", self.path.display()),
            )
        })?;
        let finished = finished.map_err(named)?;
        Ok(Finished {
            succeeded: finished.status.success(),
            output: String::from_utf8_lossy(&finished.stdout).into_owned(),
            errors: String::from_utf8_lossy(&finished.stderr).into_owned(),
        })
    }

    /// Like `run`, with a failure as an error that carries the end of what the program wrote to standard error,
    /// or to standard output if that is all it wrote.
    pub async fn check(self, deadline: Duration) -> io::Result<String> {
        let path = self.path.clone();
        let finished = self.run(deadline).await?;
        if finished.succeeded {
            return Ok(finished.output);
        }
        let said = if finished.errors.trim().is_empty() {
            &finished.output
        } else {
            &finished.errors
        };
        let lines: Vec<&str> = said
            .lines()
            .rev()
            .filter(|line| !line.trim().is_empty())
            .take(5)
            .collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join(" / ");
        Err(io::Error::other(format!("{} failed: {tail}", path.display())))
    }
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
    use std::os::unix::process::CommandExt;
    #[allow(clippy::disallowed_methods)]
    std::process::Command::new(path).args(arguments).exec()
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
