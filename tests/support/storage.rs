//! The storage service in this process, on a folder of its own, with its unix door.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitrix_node::base::service::{NamedSocket, Socket};
use bitrix_node::base::{Cx, Scope, Service};
use bitrix_node::config::parse;
use bitrix_node::storage::Storage;
use tempfile::TempDir;

const GRACE: Duration = Duration::from_secs(30);

pub struct Door {
    folder: TempDir,
    scope: Scope,
}

impl Door {
    pub fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("nfs.sock")).unwrap();
        let text = format!("[node]\ndata_dir = {:?}", folder.path());
        let storage = Storage::new(&parse(&text, std::iter::empty()).unwrap().config);
        let scope = Scope::new();
        let cx = Cx {
            scope: scope.clone(),
            sockets: vec![NamedSocket {
                name: "nfs-unix".into(),
                socket: Socket::Unix(unix),
            }],
        };
        let storage = Arc::new(storage);
        scope.spawn(async move { storage.run(cx).await.unwrap() });
        Door { folder, scope }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("nfs.sock")
    }

    pub async fn close(self) {
        assert!(self.scope.stop(GRACE).await, "the storage ends by itself");
    }
}
