//! `demo`: a whole portal in the foreground, from nothing to a green page, in a folder of its own that goes with it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::{client, init, portal, require_root, status, storage};
use crate::agent::Phase;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::base::file::{Access, ensure_folder, replace, try_lock};
use crate::config::Config;
use crate::host::child::{Child, Launch};
use crate::host::mount::fuse;
use crate::host::{account, facts};
use crate::node::mount;
use crate::portal::demo;
use crate::portal::install::Target;

/// A first start makes the database's system tables; on a slow disk that takes minutes.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);
const LAST_LINES: usize = 15;

#[derive(Debug, Args)]
pub struct Demo {
    /// Where everything lies while it runs; it must not exist yet, or be left from a demo
    #[arg(long, default_value = "/var/lib/bitrix-node-demo")]
    folder: PathBuf,
    /// Address of the portal
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Port of plain HTTP
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of HTTPS
    #[arg(long, default_value_t = 8443)]
    https_port: u16,
    /// Stop as soon as the portal was ready
    #[arg(long)]
    once: bool,
}

/// Written into the folder, so that nothing else is ever removed with it.
const MARK: &str = "bitrix-node-demo";

impl Demo {
    pub async fn perform(self) -> anyhow::Result<u8> {
        require_root()?;
        let _mark = self.claim_folder()?;
        let ended = self.lead().await;
        if ended.is_err() {
            self.show_log();
        }
        self.let_go().await?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("remove {}", self.folder.display()))?;
        ended
    }

    /// The lock on the mark tells a running demo from what a killed one left.
    fn claim_folder(&self) -> anyhow::Result<fs::File> {
        let mark = self.folder.join(MARK);
        let is_foreign = self.folder.exists() && !mark.exists() && fs::read_dir(&self.folder)?.next().is_some();
        anyhow::ensure!(
            !is_foreign,
            "{} is no demo's folder; name another with --folder",
            self.folder.display()
        );
        ensure_folder(&self.folder, Access::mode(0o755))?;
        try_lock(&mark)?.with_context(|| format!("a demo runs in {} already", self.folder.display()))
    }

    async fn lead(&self) -> anyhow::Result<u8> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (file, config) = self.configuration()?;
        init::ready(&config, &init::Plan::make(&config).await?).await?;
        let mut child = start(&file)?;
        let code = tokio::select! {
            ready = self.become_ready(&config) => {
                let url = ready?;
                println!("portal ready: {url}");
                if self.once {
                    EXIT_OK
                } else {
                    println!("Ctrl-C stops it and removes {}", self.folder.display());
                    tokio::select! {
                        _ = interrupt.recv() => EXIT_OK,
                        _ = terminate.recv() => EXIT_OK,
                        ended = child.wait() => anyhow::bail!("the node ended: {}", ended?),
                    }
                }
            }
            _ = interrupt.recv() => EXIT_DEGRADED,
            _ = terminate.recv() => EXIT_DEGRADED,
            ended = child.wait() => anyhow::bail!("the node ended: {}", ended?),
        };
        println!("stopping …");
        child.signal(Signal::SIGTERM);
        child.wait().await?;
        Ok(code)
    }

    fn configuration(&self) -> anyhow::Result<(PathBuf, Config)> {
        let inner = free_ports::<4>()?;
        let folder = self.folder.display();
        let (http, https) = (
            SocketAddr::new(self.address, self.port),
            SocketAddr::new(self.address, self.https_port),
        );
        let text = format!(
            "[node]\ndata_dir = \"{folder}/data\"\nrun_dir = \"{folder}/run\"\nlog_dir = \"{folder}/log\"\n\
             daemons = \"child\"\nsysctl = false\n[proxy]\nhttp = [\"{http}\"]\nhttps = [\"{https}\"]\npush_http = []\npush_https = []\n\
             [db]\nlisten = \"127.0.0.1:{}\"\nbuffer_pool = \"128MiB\"\n[cache]\nlisten = \"127.0.0.1:{}\"\n\
             [admin]\nlisten = \"127.0.0.1:{}\"\n[php]\nchildren = 8\n{}",
            inner[0],
            inner[1],
            inner[2],
            shared(inner[3]),
        );
        let file = self.file();
        replace(&file, text.as_bytes(), Access::mode(0o644))?;
        Ok((file.clone(), super::load(&file)?.config))
    }

    /// Waits for the files and the database, puts the portal there with its settings, and waits until all its checks are green.
    async fn become_ready(&self, config: &Config) -> anyhow::Result<String> {
        let until = Instant::now() + PATIENCE;
        if config.files().is_some() {
            is_ready(config, mount::NAME, until).await?;
        }
        is_ready(config, "mariadb", until).await?;
        let owner = account::require(&config.portal.user)?;
        let root = config.portal_root();
        let target = Target {
            root: &root,
            owner: (owner.uid, owner.gid),
            replace: true,
        };
        demo::install(&target, &mut |_, _| {})?;
        portal::apply_settings(config).await?;
        let reached = SocketAddr::new(self.address, self.port);
        let mut last = String::new();
        loop {
            match self.check(reached).await {
                Ok(answer) if answer["ok"] == true => return Ok(format!("http://{reached}/")),
                Ok(answer) => last = answer["checks"].to_string(),
                Err(error) => last = if last.is_empty() { format!("{error:#}") } else { last },
            }
            anyhow::ensure!(
                Instant::now() < until,
                "the portal did not get ready within {PATIENCE:?}: {last}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn check(&self, reached: SocketAddr) -> anyhow::Result<serde_json::Value> {
        let stream = TcpStream::connect(reached).await?;
        let answer = client::get_over(stream, &reached.to_string(), "/check.json").await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// A node that was killed left its mount, in which everything would be found and nothing removed.
    async fn let_go(&self) -> anyhow::Result<()> {
        let file = self.file();
        match file.exists() {
            true => storage::let_go(&super::load(&file)?.config).await,
            false => Ok(()),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    fn show_log(&self) {
        let log = fs::read_to_string(self.folder.join("log").join("bitrix-node.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
            eprintln!("  {line}");
        }
    }
}

/// The files as on a node of many, where this machine can mount them.
fn shared(port: u16) -> String {
    if fuse::device().is_err() || !facts::may_mount() {
        println!("no FUSE here: the demo's files are plain ones");
        return String::new();
    }
    format!("[storage]\nengine = \"replicated\"\nmount = \"fuse\"\nlisten = \"127.0.0.1:{port}\"\n")
}

/// Waits until a service of the node is ready.
async fn is_ready(config: &Config, name: &str, until: Instant) -> anyhow::Result<()> {
    loop {
        let overview = status::fetch(config).await.ok().flatten();
        let rows = overview.map(|overview| overview.services).unwrap_or_default();
        let row = rows.into_iter().find(|row| row.name == name);
        match row {
            Some(row) if row.phase == Phase::Ready => return Ok(()),
            row => anyhow::ensure!(
                Instant::now() < until,
                "{name} did not get ready within {PATIENCE:?}: {}",
                row.map(|row| row.detail).unwrap_or_default()
            ),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The node itself, as `bitrix-node run`; it writes its own log file.
fn start(file: &Path) -> anyhow::Result<Child> {
    let launch = Launch {
        program: std::env::current_exe()?,
        arguments: vec!["run".into(), "--config".into(), file.into()],
        environment: Vec::new(),
        account: None,
        sockets: Vec::new(),
        when_orphaned: Signal::SIGTERM,
    };
    let mut child = Child::launch(&launch)?;
    // Nobody reads these here; an unread pipe would stop the node.
    drop((child.output.take(), child.errors.take()));
    Ok(child)
}

/// Ports that are free now, outside of those that Linux gives to outgoing connections: they stay free until the node listens.
/// All are held until all are known, so they differ.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let held = |port| Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?));
    let (ports, _held): (Vec<u16>, Vec<TcpListener>) = (20_000..32_000).filter_map(held).take(N).unzip();
    ports
        .try_into()
        .map_err(|_| anyhow::anyhow!("no port of 20000 to 32000 is free"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn the_demos_configuration_is_valid() {
        let folder = tempfile::tempdir().expect("temp dir");
        let demo = Demo {
            folder: folder.path().to_path_buf(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            https_port: 8443,
            once: true,
        };
        let (file, config) = demo.configuration().expect("valid");
        let text = fs::read_to_string(file).expect("written");
        assert_eq!(parse(&text, std::iter::empty()).expect("valid").config, config);
        assert_ne!(config.db.listen.port(), config.cache.listen.port());
    }
}
