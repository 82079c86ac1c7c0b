//! Pebble, the test directory of Let's Encrypt's makers, with its name server, on free ports of loopback; made as unkind as it can be
//! to its clients: half of all nonces are refused.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bitrix_node::net::tls::self_signed;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::daemon::{Daemon, free_port};
use super::eventually::eventually;

const CHAOS: [&str; 3] = [
    "PEBBLE_VA_NOSLEEP=1",
    "PEBBLE_WFE_NONCEREJECT=50",
    "PEBBLE_AUTHZREUSE=50",
];
/// A name that it refuses to certify.
pub const BLOCKED: &str = "blocked.example";

pub struct Pebble {
    folder: Option<TempDir>,
    port: u16,
    management: u16,
    names: u16,
    _names: Daemon,
    server: Option<Daemon>,
}

impl Pebble {
    /// With its own certificate and name server; not running yet.
    pub fn prepare() -> Self {
        let folder = tempfile::Builder::new().prefix("pebble-").tempdir_in("/tmp").unwrap();
        let (chain, key) = self_signed(vec!["127.0.0.1".into()]).unwrap();
        fs::write(folder.path().join("own.pem"), chain).unwrap();
        fs::write(folder.path().join("own.key"), key).unwrap();
        let (names, control) = (free_port(), free_port());
        let arguments = [
            "-management".to_string(),
            format!("127.0.0.1:{control}"),
            "-dns01".to_string(),
            format!("127.0.0.1:{names}"),
            "-defaultIPv4=127.0.0.1".to_string(),
            "-defaultIPv6=".to_string(),
            "-http01=".to_string(),
            "-https01=".to_string(),
            "-tlsalpn01=".to_string(),
            "-doh=".to_string(),
        ];
        let program = Path::new("/usr/bin/pebble-challtestsrv");
        let log = folder.path().join("names.log");
        Pebble {
            port: free_port(),
            management: free_port(),
            names,
            _names: Daemon::start(program, &arguments[..9], &log),
            server: None,
            folder: Some(folder),
        }
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().expect("taken when it ends").path()
    }

    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// What the directory's own certificate is trusted by.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("own.pem")
    }

    /// (Re)starts it; it forgets all accounts and makes a new root. `http`, `tls`: where it looks for challenges.
    pub async fn run(&mut self, http: SocketAddr, tls: SocketAddr) {
        self.server = None;
        let path = |name: &str| self.folder().join(name).display().to_string();
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": path("own.pem"),
            "privateKey": path("own.key"),
            "httpPort": http.port(),
            "tlsPort": tls.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "domainBlocklist": [BLOCKED],
        }});
        fs::write(path("config.json"), config.to_string()).unwrap();
        let mut arguments: Vec<String> = CHAOS.map(str::to_string).to_vec();
        let own = ["/usr/bin/pebble", "-config", &path("config.json"), "-dnsserver"];
        arguments.extend(own.map(str::to_string));
        arguments.push(format!("127.0.0.1:{}", self.names));
        let log = self.folder().join("pebble.log");
        self.server = Some(Daemon::start(Path::new("/usr/bin/env"), &arguments, &log));
        eventually("pebble answers", async || match self.ask("roots/0") {
            root if root.contains("BEGIN CERTIFICATE") => Ok(()),
            other => Err(other),
        })
        .await;
    }

    /// Its management interface's answer.
    fn ask(&self, place: &str) -> String {
        let url = format!("https://127.0.0.1:{}/{place}", self.management);
        #[allow(clippy::disallowed_methods)]
        let mut curl = std::process::Command::new("curl");
        let ran = curl
            .args(["--silent", "--insecure", "--max-time", "5", &url])
            .output()
            .unwrap();
        String::from_utf8(ran.stdout).unwrap()
    }

    /// PEM of the root of what it issues since it runs.
    pub fn root(&self) -> String {
        self.ask("roots/0")
    }

    /// How a certificate stands with it: `Valid`, `Revoked`.
    pub fn status(&self, serial: &str) -> String {
        let answer: Value =
            serde_json::from_str(&self.ask(&format!("cert-status-by-serial/{serial}"))).unwrap_or_default();
        answer["Status"].as_str().unwrap_or_default().to_string()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            println!("pebble's files are kept in {}", folder.keep().display());
        }
    }
}
