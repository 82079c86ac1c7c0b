//! The way to a directory: one HTTPS request on a connection of its own. They are few, and minutes apart.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::time::timeout;

use crate::net::name::Names;
use crate::net::tls::Connector;

/// A request whole.
const PATIENCE: Duration = Duration::from_secs(30);
/// Chains have a few KiB.
const LONGEST: usize = 1 << 20;

#[derive(Clone)]
pub struct Http {
    pub connector: Connector,
    pub names: Names,
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let own = self.clone();
        Box::pin(async move {
            let uri = request.uri().clone();
            let done = timeout(PATIENCE, own.exchange(request)).await;
            let done = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match done {
                Ok(response) => Ok(response.into()),
                Err(error) => Err(Error::Other(format!("{uri}: {error}").into())),
            }
        })
    }
}

impl Http {
    async fn exchange(&self, mut request: Request<BodyWrapper<Bytes>>) -> io::Result<Response<Full<Bytes>>> {
        let uri = request.uri().clone();
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"));
        let authority = authority.ok_or_else(|| io::Error::other("is no https URL"))?;
        let stream = self
            .names
            .connect(authority.host(), authority.port_u16().unwrap_or(443))
            .await?;
        let host = authority.host().trim_matches(['[', ']']);
        let stream = self.connector.connect(host, stream).await?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let value = HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?;
        *request.uri_mut() = target.parse::<Uri>().map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, value);
        request
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let asked = async {
            let (parts, body) = sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?
                .into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(io::Error::other)?;
            Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
        };
        let mut asked = pin!(asked);
        tokio::select! {
            biased;
            answer = asked.as_mut() => answer,
            // What had come before its end is still to be read.
            _ = connection => asked.await,
        }
    }
}
