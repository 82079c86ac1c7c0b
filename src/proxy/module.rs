//! `Proxy`: the front as a service of the node. Starts it, reports on it, reloads it.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::Context;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, error, info};

use super::access_log::AccessLog;
use super::balance::{Balancer, Door};
use super::edge::{self, CDN, Desk};
use super::firewall::Firewall;
use super::limit::Limit;
use super::metrics::Metrics;
use super::service::Front;
use super::setup::{self, Setup};
use super::{cert, http, http3};
use crate::base::{BoxFuture, Cx, Scope, Service, Status};
use crate::cert::Sealer;
use crate::cluster::{self, Snapshots};
use crate::config::{Config, Engine, WafMode};
use crate::net::mesh::trust::Trust;
use crate::net::mesh::{self, Tls};
use crate::net::quic::Seal;
use crate::net::serve::serve;
use crate::net::tls::{Certificate, Store};

/// Operators that are answered at once.
const OPERATORS: usize = 8;

/// The module. Listens on the sockets named `http`, `https`, `http3`, `push-http` and `push-https`, for other fronts on `proxy-mesh`,
/// and for operators on `proxy-control`.
pub struct Proxy {
    config: Mutex<Arc<Config>>,
    metrics: Arc<Metrics>,
    limit: Arc<Limit>,
    running: Mutex<Option<Running>>,
    rate: Mutex<Rate>,
}

struct Running {
    front: Arc<Front>,
    /// What the front was set up from.
    config: Arc<Config>,
    certificate: Option<Arc<Store>>,
}

/// Requests per second between two looks at the status.
struct Rate {
    since: Instant,
    total: u64,
}

impl Proxy {
    pub fn new(config: Arc<Config>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let limit = Limit::new(setup::bounds(&config), metrics.connections.clone());
        Proxy {
            config: Mutex::new(config),
            metrics,
            limit,
            running: Mutex::new(None),
            rate: Mutex::new(Rate {
                since: Instant::now(),
                total: 0,
            }),
        }
    }

    /// Takes a new, valid configuration; `reload` puts it into effect. Sockets and threads do not change.
    pub fn reconfigure(&self, config: Arc<Config>) {
        *lock(&self.config) = config;
    }

    async fn serve(&self, mut cx: Cx) -> anyhow::Result<()> {
        let config = lock(&self.config).clone();
        let mesh = cx.take_tcp("proxy-mesh");
        let snapshots = match mesh.is_empty() && config.storage.engine == Engine::None {
            true => watch::Sender::default().subscribe(),
            false => cluster::follow(config.view_socket(), &cx.scope),
        };
        let tls = match mesh.is_empty() {
            true => None,
            false => {
                let tls = cluster::tls(&Trust::new(config.trust()), snapshots.clone(), &cx.scope);
                Some(tls.context("meet other nodes")?)
            }
        };
        let front = self.front(&config, &cx.scope, tls.clone())?;
        let (looked_after, scope) = (front.clone(), cx.scope.clone());
        let probe = front.balancer.clone().probe(move || looked_after.setup(), scope);
        cx.scope.spawn(probe);
        let desk = Arc::new(Desk::new(front.clone(), &config.node.name));
        if let Some(tls) = tls {
            meet(&desk, tls, mesh, snapshots.clone())?;
        }
        answer_operators(&desk, cx.take_unix("proxy-control"))?;
        let (mut plain, mut secure) = (cx.take_tcp("http"), cx.take_tcp("https"));
        plain.extend(cx.take_tcp("push-http"));
        secure.extend(cx.take_tcp("push-https"));
        let certificate = match secure.is_empty() {
            true => None,
            false => Some(Store::new(certificate(&config)?)),
        };
        let acceptor = certificate.as_ref().map(|store| store.acceptor(&http::PROTOCOLS));
        if config.storage.engine != Engine::None {
            match Sealer::read(&config.cert_key()) {
                Ok(sealer) => {
                    let store = certificate.clone();
                    let shown = cert::follow(sealer, front.clone(), store, snapshots, cx.scope.clone());
                    cx.scope.spawn(shown);
                }
                Err(error) => error!(%error, "the cluster's certificates are not shown"),
            }
        }
        if let Some(store) = &certificate {
            speak_http3(&front, &config, store, &mut cx)?;
        }
        *lock(&self.running) = Some(Running {
            front: front.clone(),
            config,
            certificate,
        });
        let plain = plain.into_iter().map(|listener| (listener, None));
        let secure = secure.into_iter().map(|listener| (listener, acceptor.clone()));
        let doors = plain
            .chain(secure)
            .map(|(listener, tls)| http::accept(front.clone(), listener, tls));
        futures_util::future::try_join_all(doors).await.context("listen")?;
        Ok(())
    }

    fn front(&self, config: &Config, scope: &Scope, tls: Option<Arc<Tls>>) -> anyhow::Result<Arc<Front>> {
        let leaving = Arc::default();
        let setup = Setup::open(config, scope, &leaving, &self.metrics, None)?;
        let balancer = Arc::new(Balancer::new(tls, config.php.children, self.metrics.clone())?);
        let (metrics, limit) = (self.metrics.clone(), self.limit.clone());
        Front::new(setup, metrics, limit, balancer, leaving, scope.clone())
    }

    /// Takes everything or nothing of a new configuration.
    fn refresh(&self, running: &mut Running) -> anyhow::Result<()> {
        let config = lock(&self.config).clone();
        let setup = match config == running.config {
            true => None,
            false => Some(Setup::open(
                &config,
                &running.front.scope,
                &running.front.leaving,
                &self.metrics,
                Some(&running.front.setup()),
            )?),
        };
        if let Some(certificate) = &running.certificate {
            let (chain, key) = config.certificate();
            certificate
                .file()
                .reload(&chain, &key)
                .context("read the certificate")?;
        }
        match setup {
            Some(setup) => running.front.replace(setup),
            None => {
                let setup = running.front.setup();
                setup.log.iter().for_each(AccessLog::reopen);
                setup.firewall.iter().for_each(Firewall::reopen);
            }
        }
        self.limit.set(setup::bounds(&config));
        running.front.balancer.set_capacity(config.php.children);
        running.config = config;
        Ok(())
    }
}

impl Service for Proxy {
    fn name(&self) -> &'static str {
        "proxy"
    }

    fn run<'a>(&'a self, cx: Cx) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.serve(cx))
    }

    fn status(&self) -> Status {
        if lock(&self.running).is_none() {
            return Status::starting();
        }
        let total = self.metrics.total();
        let mut rate = lock(&self.rate);
        let seconds = rate.since.elapsed().as_secs_f64().max(0.001);
        let per_second = (total - rate.total) as f64 / seconds;
        *rate = Rate {
            since: Instant::now(),
            total,
        };
        let mut detail = format!("{per_second:.0} req/s, {} connections", self.limit.open());
        if let Some(running) = lock(&self.running).as_ref() {
            detail.push_str(&targets(running.front.balancer.counts()));
            detail.push_str(&firewall(running));
        }
        Status::good(detail)
    }

    fn reload(&self) {
        let mut running = lock(&self.running);
        let Some(running) = running.as_mut() else { return };
        match self.refresh(running) {
            Ok(()) => info!("reloaded"),
            Err(error) => error!(error = format!("{error:#}"), "not reloaded; the old settings stay"),
        }
    }

    fn metrics(&self) -> String {
        if let Some(running) = lock(&self.running).as_ref() {
            let setup = running.front.setup();
            self.metrics.fastcgi(setup.php.counts());
            let kept = setup.edge.as_ref().map(|edge| edge.counts());
            self.metrics
                .kept(kept.map_or(0, |kept| kept.addresses), kept.map_or(0, |kept| kept.bytes));
        }
        self.metrics.encode()
    }
}

/// Says what the caches of all nodes keep, and removes it.
fn answer_operators(desk: &Arc<Desk>, listeners: Vec<UnixListener>) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(OPERATORS));
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener).context("listen for operators")?;
        let (asked, scope) = (desk.clone(), &desk.front.scope);
        let handle = move |stream: UnixStream, _| {
            let desk = asked.clone();
            async move {
                if let Err(error) = edge::control::serve(stream, async |question| desk.ask_all(question).await).await {
                    debug!(%error, "an operator's connection broke off");
                }
            }
        };
        scope.spawn(serve(listener, permits.clone(), scope.clone(), handle));
    }
    Ok(())
}

/// Answers other fronts, and follows what the cluster says of their nodes.
fn meet(desk: &Arc<Desk>, tls: Arc<Tls>, listeners: Vec<TcpListener>, snapshots: Snapshots) -> anyhow::Result<()> {
    let front = &desk.front;
    let scope = &front.scope;
    let caches: (u16, Arc<dyn mesh::Handler>) = (CDN, desk.clone());
    let server = Arc::new(mesh::Server {
        tls,
        services: [caches].into_iter().collect(),
        streams: Some(Arc::new(Door::new(front.clone()))),
        limits: mesh::Limits::default(),
    });
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        scope.spawn(server.clone().serve(listener, scope.clone()));
    }
    let (leaver, changes, until) = (front.clone(), snapshots.clone(), scope.clone());
    scope.spawn(async move { leaver.leaving.follow(changes, until).await });
    scope.spawn(front.balancer.clone().follow(snapshots, scope.clone()));
    Ok(())
}

/// Serves HTTP/3 where the supervisor has bound a socket for it. The front is whole without it.
fn speak_http3(front: &Arc<Front>, config: &Config, store: &Arc<Store>, cx: &mut Cx) -> anyhow::Result<()> {
    let (_, key) = config.certificate();
    let secret = std::fs::read(&key).with_context(|| format!("read {}", key.display()))?;
    let seal = Arc::new(Seal::new(&secret));
    for socket in cx.take_udp("http3") {
        let served = http3::accept(front.clone(), socket, store.clone(), seal.clone());
        front.scope.spawn(async move {
            if let Err(error) = served.await {
                error!(%error, "HTTP/3 is not served");
            }
        });
    }
    Ok(())
}

/// What `status` says of the targets; of a node that is alone, only that its PHP fails.
fn targets((all, ejected): (usize, usize)) -> String {
    match (all, ejected) {
        (1, 0) => String::new(),
        (1, _) => ", PHP fails".into(),
        (all, 0) => format!(", {all} targets"),
        (all, ejected) => format!(", {all} targets, {ejected} ejected"),
    }
}

/// What `status` says of the firewall; nothing where it is switched off.
fn firewall(running: &Running) -> String {
    match (&running.front.setup().firewall, running.config.waf.mode) {
        (_, WafMode::Off) => String::new(),
        (Some(firewall), mode) => match running.config.waf.answers() {
            WafMode::Off => format!(", waf {}", firewall.mode()),
            answers if answers == mode => format!(", waf {} (and answers)", firewall.mode()),
            answers => format!(", waf {} (answers: {})", firewall.mode(), answers.name()),
        },
        (None, _) => ", waf without rules: off".into(),
    }
}

fn certificate(config: &Config) -> anyhow::Result<Arc<Certificate>> {
    let (chain, key) = config.certificate();
    Certificate::read(&chain, &key).context("read the certificate")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under this lock")
}
