//! nfs-ganesha, an NFS server of other people, with its portmapper: in a network of its own that only loopback is in, and
//! with folders for its state that are gone with it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::daemon::Daemon;
use super::eventually::eventually;

/// Runs on a thread that has its own network and mounts; they end with the thread and what it started.
pub fn apart<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        for folder in ["/run", "/var/lib/nfs"] {
            mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        }
        #[allow(clippy::disallowed_methods)]
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .unwrap();
        assert!(up.success());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work())
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub struct Ganesha {
    folder: TempDir,
    _server: Daemon,
    _portmap: Daemon,
}

impl Ganesha {
    /// Starts both; the server is not serving yet.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for made in [
            "/run/rpcbind",
            "/run/ganesha",
            "/var/lib/nfs/ganesha",
            folder.path().join("export").to_str().unwrap(),
        ] {
            fs::create_dir_all(made).unwrap();
        }
        let config = folder.path().join("ganesha.conf");
        let text = format!(
            "NFS_CORE_PARAM {{ Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}\n\
             EXPORT {{ Export_Id = 1; Path = {0}; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash;\n\
             SecType = sys; Protocols = 3; Transports = TCP; FSAL {{ Name = VFS; }} }}\n",
            folder.path().join("export").display()
        );
        fs::write(&config, text).unwrap();
        let path = |name: &str| folder.path().join(name);
        let portmap = Daemon::start(Path::new("/sbin/rpcbind"), ["-f", "-w"], &path("rpcbind.out"));
        // Who cannot register gives up.
        eventually("the portmapper answers", async || {
            TcpStream::connect("127.0.0.1:111").await
        })
        .await;
        let arguments = ["-F", "-f", config.to_str().unwrap(), "-L", "STDERR", "-N", "EVENT"];
        let server = Daemon::start(Path::new("/usr/bin/ganesha.nfsd"), arguments, &path("ganesha.out"));
        Ganesha {
            _server: server,
            _portmap: portmap,
            folder,
        }
    }

    pub fn export(&self) -> PathBuf {
        self.folder.path().join("export")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("ganesha.out")).unwrap_or_default()
    }
}
