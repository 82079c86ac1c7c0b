//! An HTTP/3 client made of quinn and h3.

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bitrix_node::base::Scope;
use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3::error::StreamError;
use http::{HeaderMap, Request};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, Endpoint, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, pem::PemObject};

pub type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

pub struct Client {
    pub sender: SendRequest<h3_quinn::OpenStreams, Bytes>,
    pub quic: quinn::Connection,
    _endpoint: Endpoint,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    /// `chain`: PEM file of the server's own certificate.
    pub async fn connect(server: SocketAddr, chain: &Path, scope: &Scope) -> Result<Self, ConnectionError> {
        Self::with_window(server, chain, scope, None).await
    }

    /// `window`: how much of an answer it takes before it is read.
    pub async fn with_window(
        server: SocketAddr,
        chain: &Path,
        scope: &Scope,
        window: Option<u32>,
    ) -> Result<Self, ConnectionError> {
        let local: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let mut endpoint = Endpoint::client(local).unwrap();
        let mut config = config(chain);
        if let Some(window) = window {
            let mut transport = TransportConfig::default();
            transport.stream_receive_window(VarInt::from_u32(window));
            config.transport_config(Arc::new(transport));
        }
        endpoint.set_default_client_config(config);
        let quic = endpoint.connect(server, "portal.example").unwrap().await?;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(quic.clone()))
            .await
            .map_err(|_| quic.close_reason().unwrap())?;
        scope.spawn(async move {
            let _ = poll_fn(|cx| driver.poll_close(cx)).await;
        });
        Ok(Client {
            sender,
            quic,
            _endpoint: endpoint,
        })
    }

    pub async fn begin(&self, request: Request<()>) -> Result<Stream, StreamError> {
        self.sender.clone().send_request(request).await
    }

    /// Sends the body in pieces, and reads the answer meanwhile.
    pub async fn send(&self, request: Request<()>, body: Bytes) -> Result<Answer, StreamError> {
        let (mut send, mut receive) = self.begin(request).await?.split();
        let sending = async {
            let mut body = body;
            while body.has_remaining() {
                let piece = body.split_to(body.len().min(50_000));
                // A server that has answered may want no more of it.
                if send.send_data(piece).await.is_err() {
                    return;
                }
            }
            let _ = send.finish().await;
        };
        let receiving = async {
            let head = receive.recv_response().await?;
            let mut body = Vec::new();
            while let Some(mut piece) = receive.recv_data().await? {
                body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
            }
            Ok((head, body))
        };
        let ((), received) = tokio::join!(sending, receiving);
        let (head, body) = received?;
        Ok(Answer {
            status: head.status().as_u16(),
            headers: head.headers().clone(),
            body,
        })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, StreamError> {
        self.send(get(path), Bytes::new()).await
    }
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("https://portal.example{path}")).body(()).unwrap()
}

pub fn post(path: &str) -> http::request::Builder {
    Request::post(format!("https://portal.example{path}"))
}

fn config(chain: &Path) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h3".to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}
