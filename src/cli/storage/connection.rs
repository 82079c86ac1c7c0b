//! A connection to the storage of this node.

use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixStream;

use crate::base::Scope;
use crate::config::Config;
use crate::net::mesh::Caller;
use crate::storage::mesh::LIMITS;

/// A connection to this node's storage. Its tasks end with it.
pub struct Connection {
    pub caller: Caller,
    scope: Scope,
}

impl Connection {
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let path = config.storage_socket();
        let stream = UnixStream::connect(&path).await.with_context(|| {
            format!(
                "the storage does not answer at {}; is storage.engine \"replicated\", and does bitrix-node run?",
                path.display()
            )
        })?;
        let scope = Scope::new();
        let caller = Caller::start(stream, LIMITS, &scope);
        Ok(Connection { caller, scope })
    }

    pub async fn close(self) {
        drop(self.caller);
        self.scope.stop(Duration::ZERO).await;
    }
}
