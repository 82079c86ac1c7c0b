//! A whole node: the real executable with real PHP-FPM, MariaDB and the demo portal, on free ports of 127.0.0.1,
//! in a folder of its own that is kept when the test fails.

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use bitrix_node::config::{Config, parse};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::command::{EXECUTABLE, Ran, bitrix_node};
use super::daemon::free_port;
use super::eventually::eventually;
use super::http;

pub struct Node {
    folder: Option<TempDir>,
    pub file: PathBuf,
    pub config: Config,
    /// What `run` starts.
    pub executable: PathBuf,
    supervisor: Option<Child>,
}

impl Node {
    /// Prepared by `init`, with the demo portal installed, unless its files come with the running node; not running yet. `sections`
    /// is added to the configuration.
    pub fn prepare(sections: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("bitrix-node-")
            .tempdir_in("/tmp")
            .unwrap();
        // Several users must reach their own folders inside.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "[node]\nname = \"node1\"\ndata_dir = \"{0}/data\"\nrun_dir = \"{0}/run\"\nlog_dir = \"{0}/log\"\ndaemons = \"child\"\nsysctl = false\n\
             [db]\nlisten = \"127.0.0.1:{1}\"\nbuffer_pool = \"128MiB\"\n[cache]\nlisten = \"127.0.0.1:{2}\"\nmemory = \"64MiB\"\n\
             [admin]\nlisten = \"127.0.0.1:{3}\"\n[php]\nchildren = 6\n\
             [push]\nlisten = \"127.0.0.1:{6}\"\n\
             [proxy]\nhttp = [\"127.0.0.1:{4}\"]\nhttps = [\"127.0.0.1:{5}\"]\npush_http = [\"127.0.0.1:{7}\"]\npush_https = []\n{sections}",
            folder.path().display(),
            free_port(),
            free_port(),
            free_port(),
            free_port(),
            free_port(),
            free_port(),
            free_port(),
        );
        let file = folder.path().join("config.toml");
        fs::write(&file, &text).unwrap();
        let config = parse(&text, std::iter::empty()).unwrap().config;
        let node = Node {
            folder: Some(folder),
            file,
            config,
            executable: EXECUTABLE.into(),
            supervisor: None,
        };
        node.must(&["init", "--yes"]);
        if !node.config.is_portal_on_files() {
            node.install();
        }
        node
    }

    fn install(&self) {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
        self.must(&["portal", "install", "--from", demo.to_str().unwrap()]);
    }

    /// Prepared, running, with every check of the portal green.
    pub async fn start(sections: &str) -> Self {
        let mut node = Self::prepare(sections);
        node.run();
        node.be_healthy().await;
        if node.config.is_portal_on_files() {
            node.install();
        }
        node.must(&["portal", "settings"]);
        node.be_green().await;
        node
    }

    /// `bitrix-node run` in the background.
    pub fn run(&mut self) {
        let log = File::create(self.file.with_file_name("supervisor.log")).unwrap();
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(&self.executable);
        command.args(["run", "--config"]).arg(&self.file).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.supervisor = Some(command.spawn().unwrap());
    }

    /// Runs a command against this node.
    pub fn command(&self, arguments: &[&str]) -> Ran {
        bitrix_node(&[arguments, &["--config", self.file.to_str().unwrap()]].concat(), &[])
    }

    fn must(&self, arguments: &[&str]) {
        let ran = self.command(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.err);
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.command(&["status", "--output", "json"]).out).unwrap_or_default()
    }

    /// Row of a module or daemon.
    pub fn service(&self, name: &str) -> Value {
        let status = self.status();
        let rows = status["services"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["name"] == name).unwrap_or_default()
    }

    pub fn pid(&self, name: &str) -> Option<i32> {
        self.service(name)["pid"].as_i64().and_then(|pid| pid.try_into().ok())
    }

    pub fn kill(&self, name: &str) -> i32 {
        let pid = self.pid(name).unwrap_or_else(|| panic!("{name} runs"));
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        pid
    }

    pub fn signal_supervisor(&self, signal: Signal) {
        let supervisor = self.supervisor.as_ref().expect("it runs");
        kill(Pid::from_raw(supervisor.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until the supervisor has ended; its exit code.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        self.supervisor.take().expect("it runs").wait().unwrap().code()
    }

    pub async fn be_healthy(&self) {
        eventually("the node is healthy", async || match self.status() {
            status if status["verdict"] == "healthy" => Ok(()),
            status => Err(status["reason"].to_string()),
        })
        .await;
    }

    /// Every check of the demo portal succeeds.
    pub async fn be_green(&self) {
        eventually("the portal is green", async || {
            let answer = http::get(self.http(), "/check.json").map_err(|error| error.to_string())?;
            let check: Value = serde_json::from_slice(&answer.body).map_err(|_| answer.text())?;
            if check["ok"] == true {
                Ok(())
            } else {
                Err(check.to_string())
            }
        })
        .await;
    }

    pub fn http(&self) -> SocketAddr {
        self.config.proxy.http[0]
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.config.node_log()).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // The kernel tells its children to end if this is not enough.
            let _ = kill(Pid::from_raw(supervisor.id().try_into().unwrap()), Signal::SIGTERM);
            let _ = supervisor.wait();
        }
        // A killed supervisor's, which would be looked into when the folder is removed.
        while umount2(&self.config.mount_point(), MntFlags::MNT_DETACH).is_ok() {}
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            println!("the node's files are kept in {}", folder.keep().display());
        }
    }
}
