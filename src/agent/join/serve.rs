//! The cluster's side of a join: one request, one answer, on a connection of which the peer has shown nothing yet.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::codec::{self, Answer, REQUEST_MAX, Request, Welcome};
use super::decide::{Applicant, Decision, Refusal, decide};
use super::limits::Limits;
use crate::base::{BoxFuture, clock};
use crate::host::verb::{self, Root, Verb};
use crate::net::mesh::identity::requested_key;
use crate::net::mesh::{Guests, Name, Stream};
use crate::registry::{Change, Error, NodeState, Registry, View, Write};

/// Requests under way. Beyond it a peer is asked to come back: joins are rare, and each is a commit.
const TURNS: usize = 8;
/// For the request to come, and for the answer to go.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Attempts to commit over the changes of others.
const ATTEMPTS: usize = 5;

/// The registry, once it is open.
pub type Source = Arc<dyn Fn() -> Option<Arc<dyn Registry>> + Send + Sync>;

/// Where machines ask to become nodes.
pub struct Door {
    registry: Source,
    root: Arc<dyn Root>,
    /// PEM of the authority's certificate.
    authority: String,
    limits: Mutex<Limits>,
    turns: Semaphore,
}

/// Why a request is not granted.
enum Denial {
    Refused(Refusal),
    /// It makes no sense.
    Malformed(String),
    /// It might be granted later.
    Unable(String),
}

impl Guests for Door {
    fn converse<'a>(&'a self, stream: Box<dyn Stream>, address: SocketAddr) -> BoxFuture<'a, ()> {
        Box::pin(self.serve(stream, address))
    }
}

impl Door {
    pub fn new(registry: Source, root: Arc<dyn Root>, authority: String) -> Self {
        Door {
            registry,
            root,
            authority,
            limits: Mutex::default(),
            turns: Semaphore::new(TURNS),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, address: SocketAddr) {
        let is_allowed = self.limits().allow(address.ip(), Instant::now());
        let turn = self.turns.try_acquire();
        let (true, Ok(_turn)) = (is_allowed, turn) else {
            debug!(client.addr = %address, "too many attempts to join");
            let why = "too many attempts; try again in a minute".to_string();
            send(&mut stream, &Answer::Refused { why }).await;
            return;
        };
        let request = match timeout(EXCHANGE, receive(&mut stream)).await {
            Ok(Ok(Some(request))) => request,
            // It looked whose certificate this is, and will come back.
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return self.malformed(address, &error.to_string()),
            Err(_) => return self.malformed(address, "no request in time"),
        };
        let answer = match self.grant(&request, address).await {
            Ok(welcome) => {
                info!(client.addr = %address, node = request.node, token = request.id, "a machine joins");
                Answer::Welcome(Box::new(welcome))
            }
            Err(denial) => self.deny(denial, &request, address).await,
        };
        send(&mut stream, &answer).await;
    }

    fn malformed(&self, address: SocketAddr, error: &str) {
        warn!(client.addr = %address, error, "a request to join was refused");
        self.limits().refused(address.ip(), Instant::now());
    }

    async fn deny(&self, denial: Denial, request: &Request, address: SocketAddr) -> Answer {
        let why = match denial {
            Denial::Unable(error) => {
                warn!(client.addr = %address, error, "a request to join cannot be granted now");
                return Answer::Refused {
                    why: "the cluster cannot take nodes in now; look at the log of the node asked, and try again"
                        .into(),
                };
            }
            Denial::Malformed(error) => {
                self.malformed(address, &error);
                return Answer::Refused { why: error };
            }
            Denial::Refused(refusal) => {
                // Names of strangers are not for the terminal of who reads the log.
                let node: String = request.node.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
                warn!(client.addr = %address, node, reason = ?refusal, "a request to join was refused");
                refusal.to_string()
            }
        };
        if self.limits().refused(address.ip(), Instant::now()) {
            self.tell(format!("a request to join from {} was refused", address.ip()))
                .await;
        }
        Answer::Refused { why }
    }

    /// For the operator; the log has it too.
    async fn tell(&self, event: String) {
        let Some(registry) = (self.registry)() else { return };
        if let Err(error) = registry.commit(Change::default().and(Write::Event(event))).await {
            debug!(%error, "no event of a refused join");
        }
    }

    async fn grant(&self, request: &Request, from: SocketAddr) -> Result<Welcome, Denial> {
        let malformed = |what: &str| Denial::Malformed(what.to_string());
        let node: Name = request
            .node
            .parse()
            .map_err(|error| Denial::Malformed(format!("{error}")))?;
        let address = request.address.parse().map_err(|_| malformed("the address is none"))?;
        let secret = HEXLOWER_PERMISSIVE
            .decode(request.secret.as_bytes())
            .map_err(|_| malformed("the secret is none"))?;
        let asked = HEXLOWER_PERMISSIVE
            .decode(request.request.as_bytes())
            .map_err(|_| malformed("the certificate request is none"))?;
        let key = requested_key(&asked).map_err(|error| Denial::Malformed(error.to_string()))?;
        let applicant = Applicant {
            id: &request.id,
            hash: codec::digest(&secret),
            node: &node,
            address,
            key: &HEXLOWER.encode(&codec::digest(&key)),
            version: &request.version,
        };
        let view = self.admit(&applicant).await?;
        debug!(client.addr = %from, %node, "let in; its certificate is made");
        let sign = Verb::Sign {
            node: node.to_string(),
            key,
        };
        let verb::Answer::Certificate { certificate } = self.ask(&sign).await? else {
            return Err(Denial::Unable("the supervisor gave no certificate".into()));
        };
        let verb::Answer::Secrets(secrets) = self.ask(&Verb::Secrets).await? else {
            return Err(Denial::Unable("the supervisor gave no secrets".into()));
        };
        Ok(Welcome {
            certificate,
            authority: self.authority.clone(),
            secrets,
            settings: settings(&view),
            members: members(&view),
        })
    }

    /// Has it in the registry; returns a version that has it.
    async fn admit(&self, applicant: &Applicant<'_>) -> Result<Arc<View>, Denial> {
        let unable = |error: Error| Denial::Unable(error.to_string());
        let registry = (self.registry)().ok_or_else(|| Denial::Unable("the registry is not open yet".into()))?;
        for _ in 0..ATTEMPTS {
            let view = registry.read().await.map_err(unable)?;
            let now = clock::unix_millis();
            match decide(&view, applicant, now).map_err(Denial::Refused)? {
                Decision::Again => return Ok(view),
                Decision::Admit(change) => match registry.commit(change).await {
                    Ok(view) => return Ok(view),
                    Err(Error::Stale(_)) => {}
                    Err(error) => return Err(unable(error)),
                },
            }
        }
        Err(Denial::Unable("the registry changes too often".into()))
    }

    async fn ask(&self, verb: &Verb) -> Result<verb::Answer, Denial> {
        match self.root.ask(verb).await {
            Ok(verb::Answer::Refused { why }) => Err(Denial::Unable(format!("the supervisor refuses: {why}"))),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Denial::Unable(format!("the supervisor does not answer: {error}"))),
        }
    }

    fn limits(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.limits.lock().expect("nothing panics under this lock")
    }
}

fn settings(view: &View) -> BTreeMap<String, String> {
    view.settings()
        .map(|setting| (setting.key.clone(), setting.value.clone()))
        .collect()
}

fn members(view: &View) -> Vec<(String, String)> {
    view.nodes()
        .filter(|node| node.state != NodeState::Left)
        .map(|node| (node.name.clone(), node.address.clone()))
        .collect()
}

/// `None`: the peer asks nothing.
async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Request>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = codec::length(head, REQUEST_MAX).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    codec::decode(&body).map(Some).map_err(io::Error::other)
}

/// A peer that went away, or does not take it, asks again.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer) {
    let sent = timeout(EXCHANGE, async {
        stream.write_all(&codec::encode(answer)).await?;
        stream.shutdown().await
    });
    if let Ok(Err(error)) = sent.await {
        debug!(%error, "the answer to a request to join did not arrive");
    }
}
