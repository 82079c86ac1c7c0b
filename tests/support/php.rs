//! A real PHP-FPM on a socket of its own, in a process group of its own: its children outlive a master that is killed alone.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};

pub struct PhpFpm(Child);

impl PhpFpm {
    /// With that many children, for which `NODE` is `name`. Files go into `folder`.
    pub fn start(folder: &Path, socket: &Path, name: &str, children: usize) -> Self {
        let user = if geteuid().is_root() {
            "user = root\ngroup = root"
        } else {
            ""
        };
        let settings = format!(
            "[global]\nerror_log = {log}\n[www]\n{user}\nlisten = {socket}\npm = static\npm.max_children = {children}\nenv[NODE] = {name}\n",
            log = folder.join("fpm.log").display(),
            socket = socket.display(),
        );
        let file = folder.join("fpm.conf");
        fs::write(&file, settings).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("fpm.out"))
            .unwrap();
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(executable());
        command.args(["-F", "-n", "-R", "-y"]).arg(file).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        PhpFpm(command.spawn().unwrap())
    }
}

/// `kill -9` of all of it; the socket stays, and refuses.
impl Drop for PhpFpm {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn executable() -> PathBuf {
    let entries = fs::read_dir("/usr/sbin").unwrap().flatten();
    let is_fpm = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("php-fpm"))
    };
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(is_fpm).collect();
    found.sort();
    found.pop().expect("php-fpm is installed")
}
