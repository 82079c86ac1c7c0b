//! Two real nodes in network namespaces: init, token, a join that is killed after each of its steps, files seen by both, removal.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bitrix_node::config::{Config, parse};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::EXECUTABLE;
use crate::support::eventually::eventually;
use crate::support::netns::{Host, Network};

/// What `join` says after each step.
const STEPS: [&str; 5] = [
    "this machine's key is made",
    "the cluster has let it in",
    "the cluster's secrets are in place",
    "the configuration is written",
    "the certificate is in place",
];

struct Machine<'a> {
    host: &'a Host,
    folder: Option<TempDir>,
    file: PathBuf,
    supervisor: Option<Child>,
}

impl<'a> Machine<'a> {
    fn new(host: &'a Host) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("bitrix-node-")
            .tempdir_in("/tmp")
            .unwrap();
        // Several users must reach their own folders inside.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "[node]\ndata_dir = \"{0}/data\"\nrun_dir = \"{0}/run\"\nlog_dir = \"{0}/log\"\ndaemons = \"child\"\nsysctl = false\n\
             [db]\nbuffer_pool = \"128MiB\"\n[cache]\nmemory = \"64MiB\"\n[php]\nchildren = 4\n\
             [proxy]\nhttp = [\"0.0.0.0:80\"]\nhttps = [\"0.0.0.0:443\"]\n",
            folder.path().display(),
        );
        let file = folder.path().join("config.toml");
        fs::write(&file, text).unwrap();
        Machine {
            host,
            folder: Some(folder),
            file,
            supervisor: None,
        }
    }

    fn config(&self) -> Config {
        let text = fs::read_to_string(&self.file).unwrap();
        parse(&text, std::iter::empty()).unwrap().config
    }

    fn command(&self, arguments: &[&str]) -> Command {
        #[allow(clippy::disallowed_methods)]
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.host.path().display()));
        command.arg(EXECUTABLE).args(arguments).arg("--config").arg(&self.file);
        command.stdin(Stdio::null());
        command
    }

    fn ask(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = [stdout, stderr].concat();
        (status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
    }

    fn must(&self, arguments: &[&str]) -> String {
        let (code, text) = self.ask(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    }

    fn run(&mut self) {
        let log = File::create(self.file.with_file_name("supervisor.log")).unwrap();
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.supervisor = Some(command.spawn().unwrap());
    }

    /// Kills a command when it has said so. It may have come a step further by then. Returns whether it said so.
    fn cut(&self, arguments: &[&str], said: &str) -> bool {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.map_while(Result::ok).any(|line| line.starts_with(said));
        // It is the command itself: nsenter becomes it.
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        found
    }

    fn registry(&self) -> Value {
        let (_, text) = self.ask(&["registry", "show", "--output", "json"]);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Name and state of each node.
    fn nodes(&self) -> Vec<(String, String)> {
        let nodes = self.registry()["nodes"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        nodes
            .iter()
            .map(|node| (text(&node["name"]), text(&node["state"])))
            .collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.config().node_log()).unwrap_or_default()
    }

    fn files(&self) -> PathBuf {
        self.config().mount_point()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // The kernel tells its children to end if this is not enough.
            let _ = kill(Pid::from_raw(supervisor.id().try_into().unwrap()), Signal::SIGTERM);
            let _ = supervisor.wait();
        }
        let files = self.folder.as_ref().map(|folder| folder.path().join("data/files"));
        while files
            .as_deref()
            .is_some_and(|files| umount2(files, MntFlags::MNT_DETACH).is_ok())
        {}
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            println!("the node's files are kept in {}", folder.keep().display());
        }
    }
}

fn states(nodes: &[(&str, &str)]) -> Vec<(String, String)> {
    nodes
        .iter()
        .map(|(name, state)| (name.to_string(), state.to_string()))
        .collect()
}

async fn see(machine: &Machine<'_>, expected: &[(&str, &str)]) {
    eventually("the nodes in the registry", async || {
        let nodes = machine.nodes();
        if nodes == states(expected) {
            Ok(())
        } else {
            Err(format!("{nodes:?}\n{}", machine.log()))
        }
    })
    .await;
}

/// The bytes written on one are read on the other.
async fn pass(from: &Path, to: &Path, content: &str) {
    eventually("a file is written", async || fs::write(from, content)).await;
    eventually("it is read elsewhere", async || match fs::read_to_string(to) {
        Ok(text) if text == content => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Makes the first node; returns the line that joins others.
async fn found(first: &mut Machine<'_>, own: &str) -> String {
    let init = [
        "init",
        "--yes",
        "--address",
        own,
        "--name",
        "n1",
        "--domain",
        "portal.test",
    ];
    assert!(
        first
            .must(&[&init[..], &["--dry-run"]].concat())
            .contains("cluster.address")
    );
    assert!(!first.config().trust().exists(), "nothing was changed");
    assert!(first.must(&init).contains("start the node"));
    first.run();
    eventually("the node listens", async || {
        std::os::unix::net::UnixStream::connect(first.config().control_socket())
    })
    .await;
    let told = first.must(&init);
    let line = told.lines().last().unwrap().trim().to_string();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(
        (words[0], words[1], words[2], words[3]),
        ("bitrix-node", "join", own, "--token")
    );
    line
}

#[tokio::test]
async fn a_machine_joins_although_each_step_is_cut_off_and_is_removed() {
    let network = Network::new(2);
    let (mut first, mut second) = (Machine::new(network.host(0)), Machine::new(network.host(1)));
    let own = first.host.address.to_string();
    let line = found(&mut first, &own).await;
    let words: Vec<&str> = line.split(' ').collect();
    // The second one, with a wrong token first, then killed after each step.
    let mut wrong = words[4].to_string();
    wrong.replace_range(wrong.len() - 4.., "0000");
    let (code, text) = second.ask(&["join", &own, "--token", &wrong, "--name", "n2", "--yes"]);
    assert!(code != 0 && text.contains("not valid"), "{text}");
    let join = ["join", words[2], "--token", words[4], "--name", "n2", "--yes"];
    for step in STEPS {
        let has_said = second.cut(&join, step);
        // The attempt before may have been finished before it was killed.
        let is_node = second.config().trust().join("node.pem").exists();
        assert!(has_said || is_node, "it never said {step:?}");
    }
    assert_eq!(first.nodes(), states(&[("n1", "member"), ("n2", "joining")]));
    assert_eq!(
        first.registry()["tokens"].as_array().map(Vec::len),
        Some(1),
        "not used up"
    );
    assert!(second.must(&join).contains("start the node"));
    second.run();
    eventually("the node listens", async || {
        std::os::unix::net::UnixStream::connect(second.config().control_socket())
    })
    .await;
    assert!(second.cut(&join, "the node runs; waiting"));
    assert!(second.must(&join).contains("n2 is a node of the cluster"));
    // Both see each other, and one another's files. The token is used up.
    for machine in [&first, &second] {
        see(machine, &[("n1", "member"), ("n2", "member")]).await;
        assert_eq!(machine.registry()["tokens"].as_array().map(Vec::len), Some(0));
    }
    assert_eq!(second.config().portal.domain, "portal.test");
    pass(&first.files().join("one"), &second.files().join("one"), "of the first").await;
    pass(&second.files().join("two"), &first.files().join("two"), "of the second").await;
    let used = second.ask(&["join", words[2], "--token", words[4], "--name", "n2", "--yes"]);
    assert_eq!(used.0, 0, "a node of the cluster already: {}", used.1);
    // It is removed, although it lives, and is refused from then on.
    let (code, text) = first.ask(&["node", "remove", "n2"]);
    assert!(code != 0 && text.contains("drain"), "{text}");
    let removed = first.must(&["node", "remove", "n2", "--force"]);
    assert!(removed.contains("counts no more"), "{removed}");
    assert_eq!(first.nodes(), states(&[("n1", "member"), ("n2", "left")]));
    eventually("the removed node is refused", async || {
        let log = first.log();
        if log.contains("node n2 has left the cluster") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    let again = first.must(&["token", "create", "--output", "json"]);
    let token: Value = serde_json::from_str(&again).unwrap();
    assert!(first.must(&["token", "list"]).contains(token["id"].as_str().unwrap()));
    first.must(&["token", "revoke", token["id"].as_str().unwrap()]);
}
