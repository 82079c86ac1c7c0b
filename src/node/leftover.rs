//! What a killed supervisor left running. Children are told by the kernel to end when we die, but an external daemon
//! takes its time and may leave workers behind; the next supervisor waits for them, then kills them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use tracing::{info, warn};

use crate::base::file::{self, Access};
use crate::host::process::{self, Identity};

/// A database may need this long to write its pages.
const GRACE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// The children that run now, noted in the run folder.
pub struct Note {
    path: PathBuf,
    children: Mutex<BTreeMap<String, Identity>>,
}

impl Note {
    pub fn new(run_dir: &Path) -> Self {
        Note {
            path: run_dir.join("children.json"),
            children: Mutex::default(),
        }
    }

    /// Notes a child as running, or as gone.
    pub fn set(&self, name: &str, child: Option<Identity>) -> io::Result<()> {
        let mut children = self.children.lock().expect("nothing panics under this lock");
        match child {
            Some(child) => children.insert(name.to_string(), child),
            None => children.remove(name),
        };
        let text = serde_json::to_vec(&*children).expect("plain data");
        file::replace(&self.path, &text, Access::mode(0o600))
    }

    /// Ends what the former supervisor noted and did not end. The caller holds the lock of the data folder.
    pub async fn clear(&self) -> io::Result<()> {
        let noted: BTreeMap<String, Identity> = match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for (name, child) in noted {
            end(&name, child).await;
        }
        file::replace(&self.path, b"{}", Access::mode(0o600))
    }
}

async fn end(name: &str, child: Identity) {
    if process::remains(child).is_empty() {
        return;
    }
    info!(
        name,
        pid = child.pid,
        "waiting for what a former supervisor left running"
    );
    process::signal(child, Signal::SIGTERM);
    let gone = async {
        // The leader ends its own workers; without a leader nobody would.
        while process::identity(child.pid) == Some(child) {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(GRACE, gone).await.is_err() {
        warn!(name, pid = child.pid, "it does not end; killing it");
    }
    let killed = async {
        loop {
            let remains = process::remains(child);
            if remains.is_empty() {
                return;
            }
            remains
                .into_iter()
                .for_each(|process| process::signal(process, Signal::SIGKILL));
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(GRACE, killed).await.is_err() {
        warn!(name, "a killed process does not end; it hangs in the kernel");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    #[tokio::test]
    async fn workers_without_a_leader_are_ended() {
        let folder = tempfile::tempdir().expect("temp dir");
        // A leader that leaves a worker of its group behind and dies.
        #[allow(clippy::disallowed_methods)]
        let mut leader = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 300 & echo $!; read wait"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("started");
        let mut worker = String::new();
        let output = leader.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut worker).expect("read");
        let worker = process::identity(worker.trim().parse().expect("a pid")).expect("running");
        let note = Note::new(folder.path());
        note.set("daemon", process::identity(leader.id())).expect("noted");
        leader.kill().expect("killed");
        leader.wait().expect("reaped");
        assert_eq!(process::identity(worker.pid), Some(worker));
        Note::new(folder.path()).clear().await.expect("cleared");
        let is_dead = |stat: Option<Identity>| stat != Some(worker) || process::is_over(leader.id());
        assert!(is_dead(process::identity(worker.pid)), "the worker still runs");
    }
}
