//! A scripted directory over real TLS: what it says of renewals, and what becomes of an ill one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{Kind, open, window};
use crate::base::Scope;
use crate::net::serve::serve;
use crate::net::tls::{Certificate, self_signed};

const START: &str = "2030-01-01T00:00:00Z";
const END: &str = "2030-01-02T00:00:00Z";
/// Of `START`, in seconds since 1970.
const START_SECONDS: u64 = 1_893_456_000;

struct Directory {
    folder: TempDir,
    address: SocketAddr,
    /// Refuses the nonces of the next so many requests.
    refusals: Arc<AtomicU32>,
    scope: Scope,
}

impl Directory {
    async fn start(has_windows: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = self_signed(vec!["127.0.0.1".into()]).unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("chain"), chain).unwrap();
        std::fs::write(path("key"), key).unwrap();
        let acceptor = Certificate::read(&path("chain"), &path("key"))
            .unwrap()
            .acceptor(&[b"http/1.1"]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, scope, refusals) = (
            listener.local_addr().unwrap(),
            Scope::new(),
            Arc::new(AtomicU32::new(0)),
        );
        let script = Script {
            address,
            has_windows,
            refusals: refusals.clone(),
        };
        let serving = serve(
            listener,
            Arc::new(Semaphore::new(8)),
            scope.clone(),
            move |stream: TcpStream, _| {
                let (acceptor, script) = (acceptor.clone(), script.clone());
                async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let service = service_fn(move |request| {
                        let answer = script.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
            },
        );
        scope.spawn(serving);
        Directory {
            folder,
            address,
            refusals,
            scope,
        }
    }

    async fn open(&self) -> Result<(super::Account, Option<String>), super::Error> {
        let url = format!("https://{}/dir", self.address);
        open(&url, "admin@a.example", Some(&self.folder.path().join("chain")), None).await
    }
}

#[derive(Clone)]
struct Script {
    address: SocketAddr,
    has_windows: bool,
    refusals: Arc<AtomicU32>,
}

impl Script {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let url = |place: &str| format!("https://{}/{place}", self.address);
        let answer = Response::builder().header("replay-nonce", "n");
        let path = request.uri().path();
        let refuses = |left: u32| left.checked_sub(1);
        let (answer, body) = match (request.method(), path) {
            (_, "/dir") => {
                let windows = match self.has_windows {
                    true => format!(r#","renewalInfo":"{}""#, url("window")),
                    false => String::new(),
                };
                let body = format!(
                    r#"{{"newNonce":"{}","newAccount":"{}","newOrder":"{}"{windows}}}"#,
                    url("nonce"),
                    url("account"),
                    url("order")
                );
                (answer, body)
            }
            (&Method::POST, "/account")
                if self
                    .refusals
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuses)
                    .is_ok() =>
            {
                let body = r#"{"type":"urn:ietf:params:acme:error:badNonce","status":400}"#.to_string();
                (answer.status(StatusCode::BAD_REQUEST), body)
            }
            (&Method::POST, "/account") => {
                let answer = answer.status(StatusCode::CREATED).header("location", url("account/1"));
                (answer, r#"{"status":"valid"}"#.to_string())
            }
            (&Method::GET, path) if path.starts_with("/window/") && path.contains('.') => {
                let body = format!(r#"{{"suggestedWindow":{{"start":"{START}","end":"{END}"}}}}"#);
                (answer.header("retry-after", "21600"), body)
            }
            _ => (answer, String::new()),
        };
        answer.body(Full::new(body.into())).unwrap()
    }
}

/// A certificate that names its authority's key, as only issued ones do.
fn issued() -> String {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(authority, authority_key);
    let mut leaf = CertificateParams::new(vec!["a.example".to_string()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    leaf.signed_by(&key, &issuer).unwrap().pem()
}

#[tokio::test]
async fn the_window_of_the_directory_is_read_with_how_long_that_holds() {
    let directory = Directory::start(true).await;
    let (account, made) = directory.open().await.unwrap();
    assert!(made.unwrap().contains("key_pkcs8"));
    let ((start, end), holds) = window(&account, &issued()).await.unwrap().unwrap();
    assert_eq!((start, end), (START_SECONDS, START_SECONDS + 24 * 3600));
    assert!((21_590..=21_600).contains(&holds.as_secs()), "{holds:?}");
    let (unnamed, _) = self_signed(vec!["a.example".into()]).unwrap();
    assert_eq!(window(&account, &unnamed).await, Ok(None));
    directory.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_directory_without_windows_suggests_nothing() {
    let directory = Directory::start(false).await;
    let (account, _) = directory.open().await.unwrap();
    assert_eq!(window(&account, &issued()).await, Ok(None));
    directory.scope.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn what_is_to_be_done_about_a_fault_is_known() {
    let directory = Directory::start(true).await;
    directory.refusals.store(30, Ordering::Relaxed);
    assert_eq!(directory.open().await.err().map(|error| error.kind), Some(Kind::Again));
    directory.refusals.store(1, Ordering::Relaxed);
    assert!(directory.open().await.is_ok(), "one refused nonce is not even noticed");
    let url = format!("https://{}/dir", directory.address);
    // Nobody vouches for it.
    let foreign = open(&url, "", None, None).await.err().unwrap();
    assert!(
        foreign.kind == Kind::Unreachable && foreign.text.contains("certificate"),
        "{foreign}"
    );
    let unreadable = open(&url, "", None, Some("{}")).await.err().unwrap();
    assert_eq!(unreadable.kind, Kind::NoAccount);
    directory.scope.stop(Duration::ZERO).await;
    let gone = directory.open().await.err().unwrap();
    assert_eq!(gone.kind, Kind::Unreachable);
}
