//! Certificates live for 30 days. When two thirds are over, or when a clock was set back before their beginning, the agent has a
//! new one signed for the same key: by its own supervisor, or by that of another node, and has its supervisor put it in place.
//! The modules look for it (`Trust::follow`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::join;
use super::mesh::{Agents, RENEW};
use crate::base::{BoxFuture, Scope, clock};
use crate::cluster::Snapshots;
use crate::host::verb::{Answer, Root, Verb};
use crate::net::mesh::identity::requested_key;
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{Fault, Handler, Identity};
use crate::registry::{NodeState, View};

/// Also how soon a clock that was set is noticed. A failed attempt is repeated then: ten days are left for it.
const LOOK: Duration = Duration::from_secs(60);

/// A node's request. JSON: it grows with the versions.
#[derive(Serialize, Deserialize)]
struct Request {
    /// PKCS #10, DER.
    request: Vec<u8>,
}

/// Renews this node's certificate when it is due, until the scope drains.
pub async fn keep(trust: Trust, root: Arc<dyn Root>, agents: Agents, snapshots: Snapshots, scope: Scope) {
    let mut has_failed = false;
    loop {
        match renew_if_due(&trust, &root, &agents, &snapshots).await {
            Ok(by) => {
                if let Some(by) = by {
                    info!(by, "this node has a new certificate");
                }
                has_failed = false;
            }
            // Once; the next attempts end the same way until somebody acts.
            Err(error) if !has_failed => {
                warn!(
                    error = format!("{error:#}"),
                    "this node's certificate cannot be renewed"
                );
                has_failed = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = scope.draining() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Returns who signed, if it was due.
async fn renew_if_due(
    trust: &Trust,
    root: &Arc<dyn Root>,
    agents: &Agents,
    snapshots: &Snapshots,
) -> anyhow::Result<Option<String>> {
    if !trust.validity()?.is_due(clock::unix()) {
        return Ok(None);
    }
    let own = trust.identity()?.node.to_string();
    let request = trust.request()?;
    let (certificate, by) = match sign(root, &own, requested_key(&request)?).await {
        Ok(certificate) => (certificate, own),
        Err(error) => elsewhere(agents, snapshots, &own, request)
            .await
            .with_context(|| format!("here: {error:#}"))?,
    };
    match root.ask(&Verb::Renew { certificate }).await? {
        Answer::Done => Ok(Some(by)),
        Answer::Refused { why } => bail!("the supervisor refuses the certificate: {why}"),
        _ => bail!("the supervisor answers something else"),
    }
}

/// Asks the other nodes, one after the other.
async fn elsewhere(
    agents: &Agents,
    snapshots: &Snapshots,
    own: &str,
    request: Vec<u8>,
) -> anyhow::Result<(String, String)> {
    let body: Bytes = serde_json::to_vec(&Request { request })?.into();
    let nodes = snapshots.borrow().nodes.clone();
    let mut failure = anyhow::anyhow!("there is no other node");
    for node in nodes.iter().filter(|node| node.name != own && node.is_live) {
        match agents.call(&node.name, RENEW, body.clone()).await {
            Ok(answer) => return Ok((String::from_utf8(answer.to_vec())?, node.name.clone())),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn sign(root: &Arc<dyn Root>, node: &str, key: Vec<u8>) -> anyhow::Result<String> {
    let node = node.to_string();
    match root.ask(&Verb::Sign { node, key }).await? {
        Answer::Certificate { certificate } => Ok(certificate),
        Answer::Refused { why } => bail!("the supervisor does not sign: {why}"),
        _ => bail!("the supervisor answers something else"),
    }
}

/// Answers other nodes that have their certificates renewed here.
pub struct Renewals {
    views: watch::Receiver<Option<Arc<View>>>,
    root: Arc<dyn Root>,
}

impl Renewals {
    pub fn new(views: watch::Receiver<Option<Arc<View>>>, root: Arc<dyn Root>) -> Self {
        Renewals { views, root }
    }

    async fn answer(&self, peer: &Identity, body: Bytes) -> anyhow::Result<String> {
        let request: Request = serde_json::from_slice(&body).context("read the request")?;
        let key = requested_key(&request.request).context("the certificate request")?;
        let view = self.views.borrow().clone().context("the registry was not seen yet")?;
        may_renew(&view, peer.node.as_str(), &key)?;
        sign(&self.root, peer.node.as_str(), key).await
    }
}

impl Handler for Renewals {
    fn call<'a>(&'a self, peer: &'a Identity, body: Bytes) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            match self.answer(peer, body).await {
                Ok(certificate) => {
                    info!(node = %peer.node, "signed another node's certificate");
                    Ok(certificate.into())
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(node = %peer.node, error, "another node's certificate is not renewed");
                    Err(Fault::Failed(error))
                }
            }
        })
    }
}

/// Only a node of the cluster, and with the key with which it was let in.
fn may_renew(view: &View, node: &str, key: &[u8]) -> anyhow::Result<()> {
    let known = view.node(node).filter(|known| known.state != NodeState::Left);
    let known = known.with_context(|| format!("{node} is no node of this cluster"))?;
    // The founder, and who got his certificate by hand, have none written down.
    if let Some(first) = known.labels.get(join::KEY) {
        ensure!(
            *first == HEXLOWER.encode(&join::digest(key)),
            "{node} has joined with another key"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::net::TcpListener;

    use super::*;
    use crate::agent::ports::Prober;
    use crate::cluster::{Fit, Member, Snapshot, Standing};
    use crate::net::mesh::identity::Authority;
    use crate::net::mesh::{Limits, Mesh, Name, Server, Services, TcpDial, identity};
    use crate::registry::{Node, Record};

    const LIMITS: Limits = Limits {
        body: 1 << 16,
        queued: 1 << 20,
        outstanding: 16,
        concurrent: 16,
        received: 1 << 20,
    };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A supervisor over a folder of trust; without the authority's key it cannot sign.
    struct Hands(Trust);

    impl Root for Hands {
        fn ask<'a>(&'a self, verb: &'a Verb) -> BoxFuture<'a, io::Result<Answer>> {
            let refused = |error: &dyn std::fmt::Display| Answer::Refused { why: error.to_string() };
            let answer = match verb {
                Verb::Sign { node, key } => match self.0.sign(&name(node), key) {
                    Ok(certificate) => Answer::Certificate { certificate },
                    Err(error) => refused(&error),
                },
                Verb::Renew { certificate } => match self.0.renew(certificate, None) {
                    Ok(()) => Answer::Done,
                    Err(error) => refused(&error),
                },
                other => panic!("nobody asks for {other:?} here"),
            };
            Box::pin(async move { Ok(answer) })
        }
    }

    /// Two nodes: n1 can sign, n2's certificate is at its end and it must ask.
    #[tokio::test]
    async fn a_node_that_cannot_sign_has_its_certificate_renewed_by_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let (first, second) = (Trust::new(place("a")), Trust::new(place("b")));
        first.found(name("c1"), &name("n1"), None).unwrap();
        first.issue(&name("n2"), &second).unwrap();
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
        let authority = Authority::from_pem(&read("a/authority.pem"), &read("a/authority.key")).unwrap();
        let key = requested_key(&second.request().unwrap()).unwrap();
        let old = authority.sign_key(&key, &name("n2"), Duration::from_secs(600)).unwrap();
        std::fs::write(place("b").join("node.pem"), old.pem()).unwrap();

        let scope = Scope::new();
        let record = |name: &str, key: &[u8]| {
            Record::Node(Node {
                name: name.into(),
                address: String::new(),
                state: NodeState::Member,
                labels: [(join::KEY.to_string(), HEXLOWER.encode(&join::digest(key)))].into(),
                version: String::new(),
            })
        };
        let view = View::from_records([record("n2", &key)]);
        let (_views, seen) = watch::channel(Some(Arc::new(view)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let renewals: Arc<dyn Handler> = Arc::new(Renewals::new(seen, Arc::new(Hands(first.clone()))));
        let server = Arc::new(Server {
            tls: Arc::new(first.tls().unwrap()),
            services: [(RENEW, renewals)].into_iter().collect::<Services>(),
            streams: None,
            limits: LIMITS,
        });
        scope.spawn(server.serve(listener, scope.clone()));
        let member = |name: &str| Member {
            name: name.into(),
            address: Some(address),
            standing: Standing::Member,
            is_live: true,
            fit: Fit::NONE,
        };
        let snapshot = Snapshot {
            nodes: vec![member("n1"), member("n2")],
            ..Snapshot::default()
        };
        let (_snapshots, snapshots) = watch::channel(Arc::new(snapshot));
        let tls = Arc::new(second.tls().unwrap());
        let dial = TcpDial {
            tls: tls.clone(),
            addresses: Arc::new(move |_| Some(address)),
        };
        let agents = Agents {
            mesh: Mesh::new(Arc::new(dial), LIMITS, &scope),
            prober: Prober {
                tls,
                snapshots: snapshots.clone(),
                has_storage: false,
            },
        };
        let root: Arc<dyn Root> = Arc::new(Hands(second.clone()));
        let renew = async || renew_if_due(&second, &root, &agents, &snapshots).await.unwrap();
        assert_eq!(renew().await.as_deref(), Some("n1"));
        assert!(!second.validity().unwrap().is_due(clock::unix()));
        let fresh = identity::certificate_from_pem(&read("b/node.pem")).unwrap();
        assert_eq!(identity::certified_key(&fresh).unwrap(), key);
        assert_eq!(renew().await, None, "it is not due any more");
        scope.stop(Duration::ZERO).await;
    }

    #[test]
    fn only_a_node_of_the_cluster_renews_and_only_with_its_key() {
        let node = |name: &str, state, key: Option<&[u8]>| {
            Record::Node(Node {
                name: name.into(),
                address: String::new(),
                state,
                labels: key
                    .map(|key| (join::KEY.to_string(), HEXLOWER.encode(&join::digest(key))))
                    .into_iter()
                    .collect(),
                version: String::new(),
            })
        };
        let view = View::from_records([
            node("founder", NodeState::Member, None),
            node("joined", NodeState::Draining, Some(b"k")),
            node("gone", NodeState::Left, Some(b"k")),
        ]);
        assert!(may_renew(&view, "founder", b"any").is_ok());
        assert!(may_renew(&view, "joined", b"k").is_ok());
        for (name, key) in [("joined", b"x"), ("gone", b"k"), ("stranger", b"k")] {
            assert!(may_renew(&view, name, key).is_err(), "{name}");
        }
    }
}
