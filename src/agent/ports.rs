//! Tries the ports of the other nodes, with the handshake that their modules expect: a port that opens and leads to somebody else is
//! as useless as one that is blocked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::cluster::{Member, Snapshot, Snapshots};
use crate::config::Port;
use crate::net::mesh::{Dial, Name, Protocol, TcpDial, Tls};

/// A handshake on a LAN takes milliseconds; one lost packet costs a second.
const PATIENCE: Duration = Duration::from_secs(2);

const MODULES: [(Port, &str); 6] = [
    (Port::Agent, "agent"),
    (Port::Storage, "storage"),
    (Port::Cache, "cache"),
    (Port::Push, "push"),
    (Port::Proxy, "front"),
    (Port::Db, "database"),
];

/// Whether one node reaches a port of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    pub from: String,
    pub to: String,
    pub module: String,
    pub address: String,
    /// Why not.
    pub error: Option<String>,
}

/// Tries them from this node, in its name.
#[derive(Clone)]
pub struct Prober {
    pub tls: Arc<Tls>,
    pub snapshots: Snapshots,
    /// The nodes keep the files themselves.
    pub has_storage: bool,
}

impl Prober {
    pub async fn try_all(&self) -> Vec<Reach> {
        let snapshot = self.snapshots.borrow().clone();
        try_all(&self.tls, &snapshot, self.has_storage).await
    }
}

/// Tries all ports of all other nodes side by side.
async fn try_all(tls: &Arc<Tls>, snapshot: &Snapshot, has_storage: bool) -> Vec<Reach> {
    let others = snapshot.nodes.iter().filter(|node| node.name != snapshot.own);
    let modules = || {
        MODULES
            .into_iter()
            .filter(|(port, _)| has_storage || *port != Port::Storage)
    };
    let each = others.flat_map(|node| modules().map(move |module| (node, module)));
    let tried = each.map(|(node, module)| try_one(tls, &snapshot.own, node, module));
    join_all(tried).await.into_iter().flatten().collect()
}

async fn try_one(tls: &Arc<Tls>, own: &str, node: &Member, (port, module): (Port, &str)) -> Option<Reach> {
    let address = node.port(port)?;
    let name: Name = node.name.parse().ok()?;
    let dial = TcpDial {
        tls: tls.clone(),
        addresses: Arc::new(move |_| Some(address)),
    };
    let dialled = timeout(PATIENCE, dial.dial(&name, Protocol::Call)).await;
    let error = match dialled {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!(
            "no answer within {PATIENCE:?}: a firewall, or a process that hangs"
        )),
    };
    Some(Reach {
        from: own.to_string(),
        to: node.name.clone(),
        module: module.to_string(),
        address: address.to_string(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Scope;
    use crate::cluster::{Fit, Standing};
    use crate::net::listen;
    use crate::net::mesh::identity::{Authority, NodeKey};
    use crate::net::mesh::{Limits, Server, Services};

    fn tls(authority: &Authority, node: &str) -> Arc<Tls> {
        let key = NodeKey::generate().unwrap();
        let (request, life) = (key.request().unwrap(), Duration::from_secs(3600));
        let signed = authority.sign(&request, &node.parse().unwrap(), life).unwrap();
        Arc::new(Tls::new(authority.certificate(), signed.der().clone(), &key).unwrap())
    }

    #[tokio::test]
    async fn a_port_counts_when_its_own_module_answers() {
        let authority = Authority::generate("c".parse().unwrap()).unwrap();
        let scope = Scope::new();
        // The port of the agent is served; behind the one of the cache is somebody who speaks no TLS; the others are closed.
        let (agent, cache) = loop {
            let agent = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
            let mut address = agent.local_addr().unwrap();
            address.set_port(address.port().saturating_add(2));
            if let Ok(cache) = listen::tcp(address) {
                break (agent, cache);
            }
        };
        let address = agent.local_addr().unwrap();
        let server = Arc::new(Server {
            tls: tls(&authority, "n2"),
            services: Services::default(),
            streams: None,
            limits: Limits::default(),
        });
        let agent = tokio::net::TcpListener::from_std(agent).unwrap();
        scope.spawn(server.serve(agent, scope.clone()));
        scope.spawn(async move {
            cache.set_nonblocking(false).unwrap();
            let answer = tokio::task::spawn_blocking(move || {
                use std::io::Write;
                let accepted = cache.incoming().next();
                accepted.unwrap().unwrap().write_all(b"220 mail.example\r\n").unwrap();
            });
            answer.await.unwrap();
        });
        let member = |name: &str| Member {
            name: name.into(),
            address: Some(address),
            standing: Standing::Member,
            is_live: true,
            fit: Fit::NONE,
        };
        let snapshot = Snapshot {
            own: "n1".into(),
            nodes: vec![member("n1"), member("n2")],
            ..Snapshot::default()
        };
        let tried = try_all(&tls(&authority, "n1"), &snapshot, false).await;
        let seen: Vec<(&str, bool)> = tried
            .iter()
            .map(|reach| (reach.module.as_str(), reach.error.is_none()))
            .collect();
        let expected = [
            ("agent", true),
            ("cache", false),
            ("push", false),
            ("front", false),
            ("database", false),
        ];
        assert_eq!(seen, expected, "{tried:?}");
        assert!(
            tried[1].error.as_ref().unwrap().contains("does not speak TLS"),
            "{tried:?}"
        );
        scope.stop(Duration::ZERO).await;
    }
}
