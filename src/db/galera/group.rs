//! `Group`: what the server here says of the group that it is in, by a read that waits for all that the group has agreed on. Root's, by
//! the socket.
//!
//! Such a read is answered only while the group is there: the server sends a message of its own for it, unless one came back within
//! the last `evs.causal_keepalive_period`, and waits until that and all before it is applied. So an answer shows that the server is in
//! the Primary component, that it keeps up, and who else was in it at most so long before the question.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;

use crate::db::root::connect;

/// A server that is further behind does not keep up.
const PATIENCE: Duration = Duration::from_secs(1);
/// The table is each server's own, written at each change of the view.
const MEMBERS: &str = "SELECT node_name FROM mysql.wsrep_cluster_members";

pub struct Group {
    socket: PathBuf,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    connection: Conn,
    /// How much this server counts, as was said last.
    weight: u8,
}

impl Group {
    pub fn new(socket: PathBuf) -> Self {
        Group {
            socket,
            kept: Mutex::default(),
        }
    }

    /// Names of the servers in the Primary component, this one among them. `weight`: how much this one counts from now on, when the
    /// group decides which part of it goes on (`pc.weight`).
    ///
    /// Fails when the server does not keep up, or is in no Primary component.
    pub async fn ask(&self, weight: u8) -> anyhow::Result<Vec<String>> {
        let mut kept = self.kept.lock().await;
        // A connection that is not given back is in an unknown state.
        let taken = kept.take();
        let work = async {
            let mut known = match taken {
                Some(known) => known,
                None => Kept {
                    connection: self.connect().await?,
                    weight: 0,
                },
            };
            if known.weight != weight {
                let statement = format!("SET GLOBAL wsrep_provider_options = 'pc.weight={weight}'");
                known.connection.query_drop(statement).await.context("say its weight")?;
                known.weight = weight;
            }
            let members: Vec<String> = known.connection.query(MEMBERS).await?;
            anyhow::Ok((known, members))
        };
        let asked = tokio::time::timeout(PATIENCE, work).await;
        let (known, members) = asked.context("the database here does not keep up")??;
        *kept = Some(known);
        Ok(members)
    }

    async fn connect(&self) -> anyhow::Result<Conn> {
        let mut connection = connect(&self.socket).await?;
        connection.query_drop("SET SESSION wsrep_sync_wait = 1").await?;
        Ok(connection)
    }
}
